//! The cell's affairs over HTTP, for whoever knows the cluster secret.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidemark_protocol::cell::{
    CELL_PATH, CellRefusal, CellRefusalCode, JOIN_PATH, REMOVE_PATH, TRANSFER_PATH,
};
use tidemark_protocol::headers::LEADER;
use tokio::time::timeout;

use crate::cell::Primary;
use crate::peer_http::knows_secret;

/// Largest request: ids and a URL.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Time for a request to come in whole.
const REQUEST_WAIT: Duration = Duration::from_secs(5);

/// See [`tidemark_protocol::cell`].
pub(crate) fn routes() -> Router<Arc<Primary>> {
    Router::new()
        .route(CELL_PATH, get(introduce))
        .route(JOIN_PATH, post(join))
        .route(REMOVE_PATH, post(remove))
        .route(TRANSFER_PATH, post(transfer))
}

async fn introduce(State(primary): State<Arc<Primary>>, headers: HeaderMap) -> Response {
    match check(&primary, &headers) {
        Ok(()) => Json(primary.introduction().await).into_response(),
        Err(refusal) => refused(&primary, &refusal),
    }
}

async fn join(State(primary): State<Arc<Primary>>, request: Request) -> Response {
    let asked = Arc::clone(&primary);
    answer(&primary, request, async move |join| asked.admit(join).await).await
}

async fn remove(State(primary): State<Arc<Primary>>, request: Request) -> Response {
    let asked = Arc::clone(&primary);
    let remove = async move |remove| asked.remove_member(remove).await;
    answer(&primary, request, remove).await
}

async fn transfer(State(primary): State<Arc<Primary>>, request: Request) -> Response {
    let asked = Arc::clone(&primary);
    let transfer = async move |transfer| asked.hand_over(transfer).await;
    answer(&primary, request, transfer).await
}

async fn answer<Q: DeserializeOwned, A: Serialize, F: Future<Output = Result<A, CellRefusal>>>(
    primary: &Primary,
    request: Request,
    work: impl FnOnce(Q) -> F,
) -> Response {
    let done = async {
        let (head, body) = request.into_parts();
        check(primary, &head.headers)?;
        let bad = |why: String| CellRefusal::new(CellRefusalCode::BadRequest, why);
        let body = timeout(REQUEST_WAIT, to_bytes(body, REQUEST_BYTES_MAX)).await;
        let body = body
            .map_err(|_| bad(format!("the request did not come within {REQUEST_WAIT:?}")))?
            .map_err(|error| bad(error.to_string()))?;
        let question = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
        work(question).await
    };
    match done.await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refused(primary, &refusal),
    }
}

fn check(primary: &Primary, headers: &HeaderMap) -> Result<(), CellRefusal> {
    if knows_secret(headers, &primary.config.cluster_secret) {
        return Ok(());
    }
    Err(CellRefusal::new(
        CellRefusalCode::Unauthenticated,
        "the cluster secret is missing or wrong",
    ))
}

fn refused(primary: &Primary, refusal: &CellRefusal) -> Response {
    let status = StatusCode::from_u16(refusal.code.status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(refusal).expect("plain fields");
    let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
    if refusal.code == CellRefusalCode::NotLeader
        && let Some(Ok(leader)) = primary
            .other_leader()
            .map(|leader| HeaderValue::try_from(leader.address))
    {
        let name = HeaderName::from_static(LEADER);
        response.headers_mut().insert(name, leader);
    }
    response
}
