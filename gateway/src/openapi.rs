//! The description of the API, for programs that make clients and tests of it.
//!
//! `openapi.json` is written by hand and served as it is. The tests hold it against the code: every route, every
//! header's name, the answers to whatever goes well or wrong.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::envelope::JSON;

/// OpenAPI 3.1: all that a node can be asked for, except what the nodes of a cluster say to each other.
pub const DESCRIPTION: &str = include_str!("../openapi.json");

/// Open to everybody, like the code that it describes.
pub(crate) async fn description() -> impl IntoResponse {
    ([(CONTENT_TYPE, JSON)], DESCRIPTION)
}
