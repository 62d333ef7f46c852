//! What all handlers share, and the frame around each of them.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use futures_util::FutureExt;
use tidemark_protocol::{DatabaseId, Failure, FailureKind, Node, d1, headers};
use tracing::{Instrument, error, warn};

use crate::auth::Tokens;
use crate::config::{GatewayConfig, Handles};
use crate::envelope;
use crate::forward::Forwarder;
use crate::limits::Gate;
use crate::metrics::Route;
use crate::statistics::Statistics;
use crate::trace;
use crate::transfer::Transfers;

const SERVED_BY: HeaderName = HeaderName::from_static(headers::SERVED_BY);

/// Failures that are no fault of the client and no passing shortage.
pub(crate) const FAULTS: [FailureKind; 3] = [
    FailureKind::Unknown,
    FailureKind::Internal,
    FailureKind::Damaged,
];

/// The HTTP face of `node`.
pub(crate) struct Gateway<N> {
    pub(crate) node: Arc<N>,
    pub(crate) gate: Gate,
    pub(crate) forwarder: Forwarder,
    pub(crate) handles: Handles,
    pub(crate) statistics: Statistics,
    pub(crate) transfers: Arc<Transfers>,
    tokens: Tokens,
    served_by: HeaderValue,
    /// Where it says that it is reached, if that was said.
    pub(crate) url: Option<String>,
}

impl<N: Node> Gateway<N> {
    pub(crate) fn new(node: Arc<N>, config: GatewayConfig, handles: Handles) -> Self {
        let GatewayConfig {
            identity,
            tokens,
            urls,
            limits,
            spool,
        } = config;
        let served_by = HeaderValue::try_from(identity.to_string())
            .expect("regions and identifiers are plain ASCII");
        Self {
            node,
            gate: Gate::new(limits),
            forwarder: Forwarder::new(identity.node, handles.clone()),
            tokens: Tokens::new(tokens, &urls),
            served_by,
            url: urls.into_iter().next(),
            handles,
            statistics: Statistics::default(),
            transfers: Transfers::new(spool),
        }
    }

    /// Does `work` for a request with this head: checks the token, takes a place, and makes an
    /// envelope of whatever goes wrong.
    ///
    /// Trap: the futures of handlers are large, and an `async fn` that takes one holds it twice. So `work` is boxed
    /// here, before anything is awaited.
    pub(crate) fn answer(
        &self,
        route: Route,
        head: &Parts,
        work: impl Future<Output = Result<Response, Failure>>,
    ) -> impl Future<Output = Response> {
        self.answer_as(envelope::failure, route, head, work)
    }

    /// The same, with `refuse` to make an answer of what goes wrong.
    pub(crate) fn answer_as(
        &self,
        refuse: fn(&Failure) -> Response,
        route: Route,
        head: &Parts,
        work: impl Future<Output = Result<Response, Failure>>,
    ) -> impl Future<Output = Response> {
        let admitted = self.tokens.check(head);
        self.frame(refuse, route, head, admitted, Box::pin(work))
    }

    /// The same for whoever has a link, which is as good as a token for what it leads to.
    pub(crate) fn answer_link(
        &self,
        route: Route,
        head: &Parts,
        work: impl Future<Output = Result<Response, Failure>>,
    ) -> impl Future<Output = Response> {
        self.frame(envelope::failure, route, head, Ok(()), Box::pin(work))
    }

    async fn frame(
        &self,
        refuse: fn(&Failure) -> Response,
        route: Route,
        head: &Parts,
        admitted: Result<(), Failure>,
        // Boxed also because handlers around a node's futures nest deeper than the compiler is ready to follow.
        work: Pin<Box<impl Future<Output = Result<Response, Failure>>>>,
    ) -> Response {
        let counted = self.handles.metrics.begin(route);
        let span = trace::request(route, head, admitted.is_ok());
        let admitted = async {
            admitted?;
            let _place = self.gate.enter()?;
            work.await
        };
        // The state behind `self` is atomics and semaphores: a panic leaves none of it half-changed.
        let outcome = AssertUnwindSafe(admitted).catch_unwind();
        let outcome = match outcome.instrument(span.clone()).await {
            Ok(outcome) => outcome,
            Err(panic) => {
                error!(?route, panic = panic_text(&*panic), "handler panicked");
                Err(Failure::new(FailureKind::Internal, "internal error"))
            }
        };
        let response = outcome.unwrap_or_else(|failure| {
            trace::failed(&span, &failure);
            note(route, &head.headers, &failure);
            refuse(&failure)
        });
        let response = self.signed(response);
        let status = response.status().as_u16();
        trace::answered(&span, status);
        counted.answered(status);
        response
    }

    /// The response with the name of this node, unless it came from another.
    pub(crate) fn signed(&self, mut response: Response) -> Response {
        response
            .headers_mut()
            .entry(SERVED_BY)
            .or_insert_with(|| self.served_by.clone());
        response
    }
}

/// Logs failures that are no fault of the client and no passing shortage.
fn note(route: Route, head: &HeaderMap, failure: &Failure) {
    if FAULTS.contains(&failure.kind) {
        let request = head
            .get(headers::REQUEST_ID)
            .and_then(|value| value.to_str().ok());
        warn!(?route, request, kind = failure.kind.name(), %failure, "request failed");
    }
}

/// What was said as the panic began.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// Checks the text of a path that stands for a database, before it goes anywhere: a UUID or a name.
/// The catalogue is none: whoever writes it breaks the cluster, whoever reads it has its secrets.
pub(crate) fn check_database(name_or_id: &str) -> Result<(), Failure> {
    match name_or_id.parse::<DatabaseId>() {
        Ok(DatabaseId::CATALOGUE) => Err(no_database(name_or_id)),
        Ok(_) => Ok(()),
        Err(_) => d1::check_name(name_or_id).map_err(|_| no_database(name_or_id)),
    }
}

pub(crate) fn no_database(name_or_id: &str) -> Failure {
    let shown: String = name_or_id.chars().take(d1::NAME_BYTES_MAX).collect();
    Failure::new(
        FailureKind::NoDatabase,
        format!("The database {shown} could not be found"),
    )
}

/// Why a database that this node could not resolve is not served. A node that is not ready does not know
/// what there is, and must not say that something is not: clients would believe it.
pub(crate) fn missing<N: Node>(node: &N, name_or_id: &str) -> Failure {
    match node.ready() {
        Err(not_ready) => not_ready,
        // It became ready after it was asked.
        Ok(()) if node.resolve(name_or_id).is_some() => {
            Failure::new(FailureKind::Unavailable, "the node is only just ready")
        }
        Ok(()) => no_database(name_or_id),
    }
}
