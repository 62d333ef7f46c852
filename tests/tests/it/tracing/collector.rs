//! A collector of spans, as small as can be: OTLP over HTTP, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A span that arrived.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// Its trace, hexadecimal.
    pub(super) trace: String,
    pub(super) id: String,
    /// Empty where it begins a trace.
    pub(super) parent: String,
    pub(super) name: String,
    /// What it says, as text.
    pub(super) fields: BTreeMap<String, String>,
    pub(super) events: Vec<String>,
    /// What its node says of itself.
    pub(super) resource: BTreeMap<String, String>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

pub(super) struct Collector {
    url: String,
    spans: Spans,
    serving: JoinHandle<()>,
}

impl Collector {
    pub(super) async fn start() -> Self {
        let spans = Spans::default();
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&spans));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("an address");
        let serving = async { axum::serve(listener, router).await.expect("serve") };
        Self {
            url: format!("http://{address}"),
            spans,
            serving: tokio::spawn(serving),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How many spans have arrived.
    pub(super) fn all(&self) -> usize {
        self.spans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The spans of a trace that have arrived.
    pub(super) fn of(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let spans = spans.iter().filter(|span| span.trace == trace);
        spans.cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(
    State(spans): State<Spans>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut arrived = spans.lock().unwrap_or_else(PoisonError::into_inner);
    for of_node in request.resource_spans {
        let resource = of_node.resource.expect("a resource").attributes;
        let scopes = of_node.scope_spans.into_iter();
        arrived.extend(
            scopes
                .flat_map(|scope| scope.spans)
                .map(|span| read(&resource, span)),
        );
    }
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

fn read(resource: &[KeyValue], span: otlp::Span) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(
        span.end_time_unix_nano >= span.start_time_unix_nano,
        "{span:?}"
    );
    Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        fields: texts(&span.attributes),
        events: span.events.into_iter().map(|event| event.name).collect(),
        resource: texts(resource),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |one: &KeyValue| {
        let value = one.value.as_ref().and_then(|value| value.value.as_ref());
        let value = value.expect("a value");
        let text = if let Value::StringValue(text) = value {
            text.clone()
        } else if let Value::IntValue(number) = value {
            number.to_string()
        } else if let Value::BoolValue(yes) = value {
            yes.to_string()
        } else {
            format!("{value:?}")
        };
        (one.key.clone(), text)
    };
    attributes.iter().map(text).collect()
}
