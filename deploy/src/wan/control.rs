//! The HTTP face of a [`Wan`].
//!
//! | request | answer |
//! |---|---|
//! | `GET /links` | all links |
//! | `GET /links/NAME` | one |
//! | `PATCH /links/NAME` | changes what the body names: `{"delay_ms": 400, "cut": "to-target"}` |
//! | `PUT /links/NAME` | as the file has it, but for what the body names; `{}` heals and restores |
//! | `PATCH /regions/REGION`, `PUT` | the same for all links of a region; `cut` is `in`, `out`, `both`, `none` |
//! | `GET /health`, `/ready` | 200 while the process lives |

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemark_protocol::Region;

use super::{Change, ChangeError, LinkState, Wan};

/// Bytes of a change at most.
const BODY_BYTES_MAX: usize = 4 << 10;

/// The routes.
pub fn control(wan: Arc<Wan>) -> Router {
    Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/ready", get(|| async { "ready" }))
        .route("/links", get(links))
        .route("/links/{name}", get(link).put(put_link).patch(patch_link))
        .route(
            "/regions/{region}",
            axum::routing::put(put_region).patch(patch_region),
        )
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(wan)
}

type Answer<T> = Result<Json<T>, ChangeError>;

async fn links(State(wan): State<Arc<Wan>>) -> Json<Vec<LinkState>> {
    Json(wan.states())
}

async fn link(State(wan): State<Arc<Wan>>, Path(name): Path<String>) -> Answer<LinkState> {
    wan.state(&name).map(Json)
}

async fn put_link(
    State(wan): State<Arc<Wan>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<LinkState> {
    wan.change(&name, &read(&body)?, true).map(Json)
}

async fn patch_link(
    State(wan): State<Arc<Wan>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<LinkState> {
    wan.change(&name, &read(&body)?, false).map(Json)
}

async fn put_region(
    State(wan): State<Arc<Wan>>,
    Path(region): Path<String>,
    body: Bytes,
) -> Answer<Vec<LinkState>> {
    let region: Region = region.parse()?;
    wan.change_region(&region, &read(&body)?, true).map(Json)
}

async fn patch_region(
    State(wan): State<Arc<Wan>>,
    Path(region): Path<String>,
    body: Bytes,
) -> Answer<Vec<LinkState>> {
    let region: Region = region.parse()?;
    wan.change_region(&region, &read(&body)?, false).map(Json)
}

fn read<C: DeserializeOwned>(body: &[u8]) -> Result<Change<C>, ChangeError> {
    let body = if body.is_empty() { b"{}" } else { body };
    Ok(serde_json::from_slice(body)?)
}

#[derive(Serialize)]
struct Refusal {
    error: String,
}

impl IntoResponse for ChangeError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoLink { .. } | Self::NoRegion { .. } => StatusCode::NOT_FOUND,
            Self::Region(_) | Self::Body(_) | Self::OutOfRange { .. } => StatusCode::BAD_REQUEST,
        };
        let error = match std::error::Error::source(&self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        };
        (status, Json(Refusal { error })).into_response()
    }
}
