//! What the API answers is what its description says, and the other way round.

mod answers;
mod examples;
mod failures;
mod schemathesis;
