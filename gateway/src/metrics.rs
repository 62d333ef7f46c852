//! What the HTTP face counts.

mod durations;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use self::durations::Durations;

/// What was asked for: the label `route`, and never a path, which would be unbounded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Route {
    Query,
    Raw,
    Binding,
    Create,
    List,
    Get,
    Delete,
    Edit,
    TimeTravel,
    Import,
    Export,
    Upload,
    Download,
    Account,
    Analytics,
    Status,
    Verify,
    Other,
}

impl Route {
    const ALL: [Route; 18] = [
        Self::Query,
        Self::Raw,
        Self::Binding,
        Self::Create,
        Self::List,
        Self::Get,
        Self::Delete,
        Self::Edit,
        Self::TimeTravel,
        Self::Import,
        Self::Export,
        Self::Upload,
        Self::Download,
        Self::Account,
        Self::Analytics,
        Self::Status,
        Self::Verify,
        Self::Other,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Raw => "raw",
            Self::Binding => "binding",
            Self::Create => "create",
            Self::List => "list",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::Edit => "edit",
            Self::TimeTravel => "time_travel",
            Self::Import => "import",
            Self::Export => "export",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Account => "account",
            Self::Analytics => "analytics",
            Self::Status => "status",
            Self::Verify => "verify",
            Self::Other => "other",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Served {
    route: &'static str,
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Routed {
    route: &'static str,
}

/// Status under which requests are counted whose client went away before the answer.
const CLIENT_GONE: u16 = 499;
/// The usual one.
const OK: u16 = 200;

/// The metrics of the HTTP face. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Served, Counter>,
    /// Those of `requests` with status 200, once there was one. Like the next, one per [`Route::ALL`], in that
    /// order: no look-up on the way of a request, nor a lock that all databases share.
    succeeded: Arc<[OnceLock<Counter>; Route::ALL.len()]>,
    durations: [Durations; Route::ALL.len()],
    in_flight: Gauge,
    forwarded: Counter,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::default();
        let family = Family::<Routed, Durations>::default();
        let durations = Route::ALL.map(|route| {
            family.get_or_create_owned(&Routed {
                route: route.name(),
            })
        });
        let in_flight = Gauge::default();
        let forwarded = Counter::default();
        registry.register(
            "tidemark_http_requests",
            "Requests answered, by what was asked and HTTP status; 499: the client went away",
            requests.clone(),
        );
        registry.register(
            "tidemark_http_request_duration_seconds",
            "Time from the head of a request to the head of its answer",
            family,
        );
        registry.register(
            "tidemark_http_requests_in_flight",
            "Requests being worked on",
            in_flight.clone(),
        );
        registry.register(
            "tidemark_http_forwarded",
            "Requests passed on to another node",
            forwarded.clone(),
        );
        Self {
            requests,
            succeeded: Arc::default(),
            durations,
            in_flight,
            forwarded,
        }
    }

    /// Counts a request in; the guard counts it out.
    pub(crate) fn begin(&self, route: Route) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight {
            metrics: self,
            route,
            started: Instant::now(),
            status: CLIENT_GONE,
        }
    }

    pub(crate) fn forwarded(&self) {
        self.forwarded.inc();
    }
}

/// One request being worked on. Dropped without a status when its client goes away.
pub(crate) struct InFlight<'m> {
    metrics: &'m Metrics,
    route: Route,
    started: Instant,
    status: u16,
}

impl InFlight<'_> {
    /// The answer is there.
    pub(crate) fn answered(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Self {
            metrics,
            route,
            started,
            status,
        } = self;
        metrics.in_flight.dec();
        metrics.durations[*route as usize].observe(started.elapsed());
        let served = Served {
            route: route.name(),
            status: *status,
        };
        if *status == OK {
            let count = || metrics.requests.get_or_create_owned(&served);
            metrics.succeeded[*route as usize].get_or_init(count).inc();
        } else {
            metrics.requests.get_or_create(&served).inc();
        }
    }
}
