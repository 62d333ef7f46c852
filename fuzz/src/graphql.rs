//! Questions in GraphQL.

use tidemark_gateway::fuzzing;

use crate::memory::bounded;

/// The bytes are the body; or what its `query` says.
pub fn check(bytes: &[u8]) {
    bounded(bytes.len(), 1024, || {
        fuzzing::question(bytes);
        if let Ok(query) = str::from_utf8(bytes) {
            let variables =
                serde_json::json!({ "a": [1, "x"], "f": { "datetimeHour_geq": query } });
            let body = serde_json::json!({ "query": query, "variables": variables });
            fuzzing::question(body.to_string().as_bytes());
        }
    });
}
