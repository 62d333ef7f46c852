//! What operators and their machines ask for.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use tidemark_protocol::{DatabaseId, Node, headers};

use crate::ask::Ask;
use crate::databases::{Primary, ask_primary, looked};
use crate::envelope;
use crate::gateway::{Gateway, check_database, missing};
use crate::metrics::Route;
use crate::router::bad_path;

/// How the catalogue is called where it may be looked at.
const CATALOGUE: &str = "catalogue";
const CLUSTER: HeaderName = HeaderName::from_static(headers::CLUSTER);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// This node's account of itself; never the primary's.
pub(crate) async fn status<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let ask = Ask::read(&head.headers)?;
        let status = looked(&ask, async { Ok(gateway.node.status().await) }).await?;
        Ok(envelope::success(&status, None))
    };
    gateway.answer(Route::Status, &head, work).await
}

/// Checks this node's copy; never the primary's.
pub(crate) async fn verify<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let Path(name) = path.map_err(|rejection| bad_path(&rejection))?;
        let ask = Ask::read(&head.headers)?;
        let database = if name == CATALOGUE {
            DatabaseId::CATALOGUE
        } else {
            check_database(&name)?;
            gateway
                .node
                .resolve(&name)
                .ok_or_else(|| missing(&*gateway.node, &name))?
        };
        let verification = looked(&ask, gateway.node.verify(database)).await?;
        Ok(envelope::success(&verification, None))
    };
    gateway.answer(Route::Verify, &head, work).await
}

/// How far each replica has a database, as the node that leads sees it.
pub(crate) async fn replicas<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let work = async {
        let Path(name) = path.map_err(|rejection| bad_path(&rejection))?;
        check_database(&name)?;
        let ask = Ask::read(&head.headers)?;
        match ask_primary(&gateway, &head, &ask).await? {
            Primary::Said(response) => return Ok(response),
            Primary::Gone(failure) => return Err(failure),
            Primary::Here => {}
        }
        let found = gateway.node.resolve(&name);
        let database = found.ok_or_else(|| missing(&*gateway.node, &name))?;
        let replicas = looked(&ask, gateway.node.replicas(database)).await?;
        Ok(envelope::success(&replicas, None))
    };
    gateway.answer(Route::Status, &head, work).await
}

/// The process lives.
pub(crate) async fn health() -> &'static str {
    "ok"
}

/// The node can serve.
pub(crate) async fn ready<N: Node>(State(gateway): State<Arc<Gateway<N>>>) -> Response {
    match gateway.node.ready() {
        // Signed: whoever was told of a node at this address sees whether it is that one, before it sends a token.
        Ok(()) => {
            let mut response = gateway.signed("ready".into_response());
            if let Some(cluster) = gateway.node.cluster() {
                let value = HeaderValue::try_from(cluster.to_string()).expect("hex digits");
                response.headers_mut().insert(CLUSTER, value);
            }
            response
        }
        Err(failure) => {
            let mut response = envelope::failure(&failure);
            // Load balancers look for this one alone.
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            gateway.signed(response)
        }
    }
}

/// All metrics of the process.
pub(crate) async fn metrics<N: Node>(State(gateway): State<Arc<Gateway<N>>>) -> Response {
    let mut out = String::new();
    text::encode(&mut out, &gateway.handles.registry).expect("a String takes every write");
    ([(CONTENT_TYPE, OPENMETRICS)], out).into_response()
}
