//! Spans on their way to a collector: OTLP over HTTP, in batches, from a queue that drops what it has no room for.
//!
//! Nothing here waits for the collector: one that is away, or slow, costs spans and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use tidemark_protocol::node::Role;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::config::Config;
use crate::home::Identity;

/// Where a collector takes spans, below its base URL.
const PATH: &str = "/v1/traces";
/// Spans that wait to be sent. What comes beyond is dropped.
const QUEUE_MAX: usize = 8192;
/// Spans sent at a time: a few hundred KiB.
const BATCH_MAX: usize = 1024;
/// How long a span waits for others to travel with.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Longest that a collector may take to take a batch.
const EXPORT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest that the end of the process waits for spans that are left.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(3);

/// The way to a collector.
#[derive(Debug)]
pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// Opens it for a node, within the runtime. None where no collector is configured. From then on nodes and
    /// clients are told in `traceparent` which trace they are in, and tell.
    pub(crate) fn open(
        config: &Config,
        identity: &Identity,
        role: Role,
    ) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &config.otlp_endpoint else {
            return Ok(None);
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(EXPORT_WAIT_MAX)
            .build()
            .context("make a client of the collector")?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}{PATH}", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT_WAIT_MAX)
            .with_http_client(Courier {
                client,
                runtime: Handle::current(),
                lost: AtomicBool::new(false),
            })
            .build()
            .with_context(|| format!("export spans to '{endpoint}'"))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_WAIT)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches);
        let resource = Resource::builder()
            .with_service_name("tidemark")
            .with_attributes([
                KeyValue::new("service.namespace", config.cluster.clone()),
                KeyValue::new("service.instance.id", identity.node.to_string()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("cloud.region", config.region.to_string()),
                KeyValue::new("tidemark.role", format!("{role:?}").to_lowercase()),
            ])
            .build();
        // Whoever began a trace has decided whether it is kept: all its spans, or none.
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.otlp_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(batches.build())
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Some(Self { provider }))
    }

    /// What makes the spans.
    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("tidemark")
    }

    /// Sends what is left, for as long as that may take.
    pub(crate) async fn close(self) {
        let closing = spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_WAIT_MAX));
        match closing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans are lost"),
            Err(error) => tracing::warn!(%error, "the last spans are lost"),
        }
    }
}

/// Carries batches to the collector. The exporter's thread is none of a runtime's: the work is done on ours.
#[derive(Debug)]
struct Courier {
    client: reqwest::Client,
    runtime: Handle,
    /// The last batch did not arrive.
    lost: AtomicBool,
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let status = answer.status();
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            Ok::<_, reqwest::Error>(response)
        });
        let sent = sent.await?;
        let trouble = match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(response.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        // Once for each time that it goes away and comes back.
        if self.lost.swap(trouble.is_some(), Ordering::Relaxed) != trouble.is_some() {
            match trouble {
                Some(trouble) => tracing::warn!(trouble, "spans do not reach the collector"),
                None => tracing::info!("spans reach the collector again"),
            }
        }
        Ok(sent?)
    }
}
