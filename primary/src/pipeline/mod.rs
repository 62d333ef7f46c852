//! The commit pipeline: how one write goes through a primary.
//!
//! 1. [`Line::write`] queues the request on its database's strand, within its deadline.
//! 2. [`Writer::execute`] runs the statements on top of the newest state, acknowledged or not. The
//!    overlay WAL yields the changed pages as an encoded transaction: base, next, pages, answer.
//! 3. The transaction is proposed under the term in which it was made, and the writer goes on with the
//!    next request: no write waits for the one before it. If that is there already, and short, both are
//!    proposed together ([`held`]).
//! 4. Consensus makes it durable on a majority and hands it to [`crate::machine`], which checks
//!    `base == committed` and gives it to the database's line, which has [`room`] for so much. Replicas get it
//!    at the same moment.
//! 5. [`Writer::commit`] flushes all that has been committed meanwhile to the real WAL, in one go: from
//!    then on readers see it.
//! 6. Only then the answers leave: the output gate.
//!
//! ```text
//! acknowledged <= committed <= proposed = tip        (per database, on the node that leads)
//! ```
//!
//! What a failure means: before step 3 nothing happened; from step 3 on the outcome is unknown until
//! the log says otherwise. A refused proposal takes everything behind it along, because all of it was
//! built on the refused state; the writer then waits for what was proposed before, discards the rest
//! and starts again from what is committed.

mod held;
mod line;
mod remembered;
mod room;
mod spans;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub(crate) use line::{Line, Written, shut_down};
#[cfg(feature = "fuzzing")]
pub(crate) use remembered::again as requests_again;
pub(crate) use remembered::{Remembered, TABLE_BYTES_MAX, adopt as adopt_fetched, keep_fetched};
pub(crate) use room::Room;
pub(crate) use writer::{PipelineContext, not_leading};
