//! Which path leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{self, MethodRouter};
use tidemark_protocol::d1::ErrorItem;
use tidemark_protocol::{Failure, FailureKind, Node};

use crate::config::{GatewayConfig, Handles};
use crate::dispatch::Dispatch;
use crate::envelope;
use crate::gateway::Gateway;
use crate::metrics::Route;
use crate::transfer::{download, export, import, upload};
use crate::{
    accounts, analytics, binding, cluster, console, databases, openapi, operations, query,
    time_travel,
};

/// Where balancers ask whether to send anybody here.
pub(crate) const READY: &str = "/ready";
/// Where a node says that it lives.
pub(crate) const HEALTH: &str = "/health";
/// D1's code for a path that leads nowhere.
const NO_ROUTE: u32 = 7000;
/// D1's code for a method that a path does not have.
const NO_METHOD: u32 = 7001;

/// One thing that a node can be asked for.
struct Entry<N> {
    method: Method,
    path: &'static str,
    handler: MethodRouter<Arc<Gateway<N>>>,
}

/// The path of the databases, or one below it.
macro_rules! databases {
    ($rest:literal) => {
        concat!("/client/v4/accounts/{account}/d1/database", $rest)
    };
}

/// Every method and path, once: what is routed, and what `openapi.json` must describe.
fn entries<N: Node>() -> Vec<Entry<N>> {
    vec![
        get(databases!(""), databases::list),
        post(databases!(""), databases::create),
        get(databases!("/{database}"), databases::get),
        put(databases!("/{database}"), databases::replace),
        patch(databases!("/{database}"), databases::edit),
        delete(databases!("/{database}"), databases::delete),
        post(databases!("/{database}/query"), query::query),
        post(databases!("/{database}/raw"), query::raw),
        get(
            databases!("/{database}/time_travel/bookmark"),
            time_travel::bookmark,
        ),
        post(
            databases!("/{database}/time_travel/restore"),
            time_travel::restore,
        ),
        post(databases!("/{database}/import"), import::import),
        post(databases!("/{database}/export"), export::export),
        get("/client/v4/accounts", accounts::accounts),
        get("/client/v4/accounts/{account}", accounts::account),
        get("/client/v4/memberships", accounts::memberships),
        get("/client/v4/user", accounts::user),
        get("/client/v4/user/tokens/verify", accounts::token),
        post("/client/v4/graphql", analytics::graphql),
        post("/query", binding::by_header),
        post("/execute", binding::by_header),
        post("/d1/{database}/query", binding::by_path),
        post("/d1/{database}/execute", binding::by_path),
        get("/tidemark/v1/status", operations::status),
        get("/tidemark/v1/cluster", cluster::map),
        post(
            "/tidemark/v1/databases/{database}/verify",
            operations::verify,
        ),
        get(
            "/tidemark/v1/databases/{database}/replicas",
            operations::replicas,
        ),
        put("/tidemark/v1/uploads/{secret}", upload::upload),
        get("/tidemark/v1/downloads/{secret}", download::download),
        get("/tidemark/v1/openapi.json", openapi::description),
        get(HEALTH, operations::health),
        get(READY, operations::ready),
        get("/metrics", operations::metrics),
    ]
}

/// The methods and paths of [`router`], as `openapi.json` has them.
pub fn routes<N: Node>() -> Vec<(Method, &'static str)> {
    let entries = entries::<N>().into_iter();
    entries.map(|entry| (entry.method, entry.path)).collect()
}

/// The routes of a node. Other routers without a fallback of their own may be merged in.
pub fn router<N: Node>(node: Arc<N>, config: GatewayConfig, handles: Handles) -> Dispatch {
    let gateway = Arc::new(Gateway::new(node, config, handles));
    let add = |router: Router<_>, entry: Entry<N>| router.route(entry.path, entry.handler);
    let router = entries()
        .into_iter()
        .fold(Router::new(), add)
        // For people, not for programs: no part of what is described.
        .route("/", routing::get(console::page))
        .route("/console/{file}", routing::get(console::asset))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(Arc::clone(&gateway));
    Dispatch::new(gateway, router)
}

/// A function per method that makes an [`Entry`] of a path and a handler.
macro_rules! methods {
    ($($name:ident $method:ident),*) => {$(
        fn $name<N: Node, H, T>(path: &'static str, handler: H) -> Entry<N>
        where
            H: Handler<T, Arc<Gateway<N>>>,
            T: 'static,
        {
            Entry {
                method: Method::$method,
                path,
                handler: routing::$name(handler),
            }
        }
    )*};
}

methods!(get GET, post POST, put PUT, patch PATCH, delete DELETE);

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
