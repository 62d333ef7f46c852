//! Names of the HTTP headers that Tidemark adds to D1's API, both ways.

/// The contract of a read on the way in, the state that was read or written on the way out.
pub const BOOKMARK: &str = "x-d1-bookmark";
/// The same for a Worker's D1 binding. Nothing comes back where nothing was sent.
pub const SESSION: &str = "x-cf-d1-session-commit-token";
/// Which database a Worker's D1 binding means: its UUID or its name.
pub const DATABASE: &str = "x-d1-database-id";
/// What the read may miss: `linearizable` or `max-staleness=500ms`, as [`crate::contract::ReadWish`] has it.
pub const READ: &str = "tidemark-read";
/// What the request got, as [`crate::contract::Delivered`] has it.
pub const DELIVERED: &str = "tidemark-delivered";
/// How long the request may take: a duration such as `250ms` or `5s`.
pub const DEADLINE: &str = "tidemark-deadline";
/// What to do when the contract cannot be met in time: `forward`, `stale` or `error`.
pub const ON_MISS: &str = "tidemark-on-miss";
/// The client's name for the request, a UUID: a retry under the same name counts once.
pub const REQUEST_ID: &str = "tidemark-request-id";
/// `exact` asks for lossless values both ways.
pub const VALUES: &str = "tidemark-values";
/// On a request that another node passed on: which. Such a request is never passed on again.
pub const FORWARDED_BY: &str = "tidemark-forwarded-by";
/// On a request that another node passed on, and on the answer to it: [`crate::guard::Guard`].
pub const GUARD: &str = "tidemark-guard";
/// On a failure: its kind, as [`crate::FailureKind::name`] has it.
pub const FAILURE: &str = "tidemark-failure";
/// `true` when the answer of an earlier try of the same request is repeated.
pub const REPEATED: &str = "tidemark-repeated";
/// Who answered: `<region>/<primary|replica>/<node id>`.
pub const SERVED_BY: &str = "tidemark-served-by";
/// On the answer of a node that is ready: which cluster it is of, as [`crate::ClusterId`] has it.
pub const CLUSTER: &str = "tidemark-cluster";
/// On the handshake of a replica's stream: the base URL under which it says that it is reached.
pub const ADVERTISED: &str = "tidemark-advertised";
/// `false` keeps the retrying clients of D1's API from trying again.
pub const SHOULD_RETRY: &str = "x-should-retry";
/// On a refusal by a voter that does not lead: base URL of the one that does.
pub const LEADER: &str = "tidemark-leader";
/// In the request for a source's stream, and in its answer: what the one who sends it understands beyond the first
/// version, in words separated by commas. See [`crate::stream::TOLD_VOTERS`], [`crate::stream::PACKED`] and
/// [`crate::stream::ASKS`].
pub const STREAM: &str = "tidemark-stream";
