//! Which path leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use tidemark_protocol::d1::ErrorItem;
use tidemark_protocol::{Failure, FailureKind, Node};

use crate::config::{GatewayConfig, Handles};
use crate::envelope;
use crate::gateway::Gateway;
use crate::metrics::Route;
use crate::{accounts, analytics, binding, databases, operations, query, time_travel};

/// Where balancers ask whether to send anybody here.
pub(crate) const READY: &str = "/ready";
/// D1's code for a path that leads nowhere.
const NO_ROUTE: u32 = 7000;
/// D1's code for a method that a path does not have.
const NO_METHOD: u32 = 7001;

/// The routes of a node. Other routers without a fallback of their own may be merged in.
pub fn router<N: Node>(node: Arc<N>, config: GatewayConfig, handles: Handles) -> Router {
    let gateway = Arc::new(Gateway::new(node, config, handles));
    const DATABASES: &str = "/client/v4/accounts/{account}/d1/database";
    let one = format!("{DATABASES}/{{database}}");
    Router::new()
        .route(DATABASES, get(databases::list).post(databases::create))
        .route(
            &one,
            get(databases::get)
                .delete(databases::delete)
                .put(databases::replace)
                .patch(databases::edit),
        )
        .route(
            &format!("{one}/time_travel/bookmark"),
            get(time_travel::bookmark),
        )
        .route(
            &format!("{one}/time_travel/restore"),
            post(time_travel::restore),
        )
        .route("/client/v4/accounts", get(accounts::accounts))
        .route("/client/v4/accounts/{account}", get(accounts::account))
        .route("/client/v4/memberships", get(accounts::memberships))
        .route("/client/v4/user", get(accounts::user))
        .route("/client/v4/user/tokens/verify", get(accounts::token))
        .route("/client/v4/graphql", post(analytics::graphql))
        .route(&format!("{one}/query"), post(query::query))
        .route(&format!("{one}/raw"), post(query::raw))
        .route("/query", post(binding::by_header))
        .route("/execute", post(binding::by_header))
        .route("/d1/{database}/query", post(binding::by_path))
        .route("/d1/{database}/execute", post(binding::by_path))
        .route("/tidemark/v1/status", get(operations::status))
        .route(
            "/tidemark/v1/databases/{database}/verify",
            post(operations::verify),
        )
        .route("/health", get(operations::health))
        .route(READY, get(operations::ready))
        .route("/metrics", get(operations::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(gateway)
}

async fn no_route<N: Node>(State(gateway): State<Arc<Gateway<N>>>) -> Response {
    let error = ErrorItem {
        code: NO_ROUTE,
        message: "No route for that URI".to_owned(),
    };
    refuse(&gateway, StatusCode::NOT_FOUND, &error)
}

async fn no_method<N: Node>(State(gateway): State<Arc<Gateway<N>>>, request: Request) -> Response {
    let message = format!("Method {} not available for that URI.", request.method());
    let error = ErrorItem {
        code: NO_METHOD,
        message,
    };
    refuse(&gateway, StatusCode::METHOD_NOT_ALLOWED, &error)
}

/// Nothing is known of such a request, so it needs no token, and takes no place.
fn refuse<N: Node>(gateway: &Gateway<N>, status: StatusCode, error: &ErrorItem) -> Response {
    let counted = gateway.handles.metrics.begin(Route::Other);
    let failure = Failure::new(FailureKind::BadRequest, error.message.clone());
    let response = gateway.signed(envelope::refusal(status, error, &failure));
    counted.answered(status.as_u16());
    response
}

/// A path whose parts are not text.
pub(crate) fn bad_path(rejection: &PathRejection) -> Failure {
    let text = format!("The request is malformed: {}", rejection.body_text());
    Failure::new(FailureKind::BadRequest, text)
}

/// Whether `account` can be one: any is accepted, there are no accounts here.
pub(crate) fn check_account(account: &str) -> Result<(), Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !account.is_empty() && account.bytes().all(plain) {
        return Ok(());
    }
    let text = "The request is malformed: the account is not of letters, digits, '-' and '_'";
    Err(Failure::new(FailureKind::BadRequest, text))
}
