//! Questions in GraphQL.

use tidemark_gateway::fuzzing;

use crate::memory::bounded;

/// Memory for each byte of a question.
const FACTOR: usize = 1024;
/// What variables may bring however short the question is, since each may be used often: 131,072 values of 32 bytes.
const VARIABLES_BYTES: usize = 4 << 20;

/// The bytes are the body; or what its `query` says.
pub fn check(bytes: &[u8]) {
    bounded(bytes.len() + VARIABLES_BYTES / FACTOR, FACTOR, || {
        fuzzing::question(bytes);
        if let Ok(query) = str::from_utf8(bytes) {
            let variables =
                serde_json::json!({ "a": [1, "x"], "f": { "datetimeHour_geq": query } });
            let body = serde_json::json!({ "query": query, "variables": variables });
            fuzzing::question(body.to_string().as_bytes());
        }
    });
}
