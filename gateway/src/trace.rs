//! The span of a request, and its place in a trace that a client or another node began (W3C `traceparent`).
//!
//! Where nobody asks for spans, each of these costs a comparison, and headers go on as they came.

use axum::http::HeaderMap;
use axum::http::request::Parts;
use opentelemetry::{Context, global};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use tidemark_protocol::trace::TARGET;
use tidemark_protocol::{DatabaseId, Failure, RequestId, Why, headers};
use tracing::field::{Empty, display};
use tracing::{Level, Span, debug_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::metrics::Route;

/// The span around the work on a request. `admitted`: it is of somebody who may say which trace it belongs to, and
/// that this trace is kept.
pub(crate) fn request(route: Route, head: &Parts, admitted: bool) -> Span {
    let span = debug_span!(
        target: TARGET,
        "request",
        otel.name = route.name(),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %head.method,
        http.response.status_code = Empty,
        request = text(&head.headers, headers::REQUEST_ID),
        peer = text(&head.headers, headers::FORWARDED_BY),
        db = Empty,
        forwarded = Empty,
        failure = Empty,
    );
    if admitted && !span.is_disabled() {
        let came = HeaderExtractor(&head.headers);
        let parent = global::get_text_map_propagator(|known| {
            known.extract_with_context(&Context::new(), &came)
        });
        // Nobody exports it where only the log asks for spans.
        let _ = span.set_parent(parent);
    }
    span
}

/// What became of it.
pub(crate) fn answered(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// Why it failed.
pub(crate) fn failed(span: &Span, failure: &Failure) {
    span.record("failure", failure.kind.name());
}

/// Its database is known now. From within its span.
pub(crate) fn database(database: DatabaseId) {
    if asked_for() {
        Span::current().record("db", display(database));
    }
}

/// It is handed on, and why. From within its span.
pub(crate) fn handed_on(why: Why) {
    if asked_for() {
        Span::current().record("forwarded", why.name());
    }
}

/// The span around handing a request on to the node at this URL.
pub(crate) fn forward(peer: &str, request: Option<RequestId>) -> Span {
    debug_span!(
        target: TARGET,
        "forward",
        otel.kind = "client",
        otel.status_code = Empty,
        http.response.status_code = Empty,
        peer,
        request = request.map(display),
    )
}

/// Has the node that gets these headers go on with the trace of `span`.
pub(crate) fn goes_on(span: &Span, out: &mut HeaderMap) {
    if !span.is_disabled() {
        let context = span.context();
        let mut out = HeaderInjector(out);
        global::get_text_map_propagator(|known| known.inject_context(&context, &mut out));
    }
}

/// Whether anybody wants to know: without that the thread's current span is not even looked for.
fn asked_for() -> bool {
    tracing::enabled!(target: TARGET, Level::DEBUG)
}

fn text<'h>(from: &'h HeaderMap, name: &str) -> Option<&'h str> {
    from.get(name).and_then(|value| value.to_str().ok())
}
