//! A served double, and a client that says what it got.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tidemark_gateway::{GatewayConfig, Handles, Identity, Metrics, ServeConfig, router, serve};
use tidemark_net::TcpConnector;
use tidemark_protocol::NodeId;
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::guard::{Guard, body_crc};
use tidemark_protocol::node::Role;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::double::Double;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const DATABASES: &str = "/client/v4/accounts/a1/d1/database";

#[derive(Default)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn bytes16(&self) -> [u8; 16] {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed) + 1).to_be_bytes()
    }
}

/// Every request runs at this moment: 2026-01-01T00:30:00Z.
struct StoppedClock;

impl Clock for StoppedClock {
    fn unix_ms(&self) -> u64 {
        1_767_227_400_000
    }
}

pub(crate) struct Server {
    pub(crate) node: Arc<Double>,
    pub(crate) base: String,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<()>,
    client: reqwest::Client,
}

impl Server {
    pub(crate) async fn start(node: Double) -> Self {
        Self::start_as(node, Role::Primary, |_| {}, ServeConfig::default()).await
    }

    pub(crate) async fn start_with(node: Double, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::start_as(node, Role::Primary, change, ServeConfig::default()).await
    }

    pub(crate) async fn start_as(
        node: Double,
        role: Role,
        change: impl FnOnce(&mut GatewayConfig),
        serving: ServeConfig,
    ) -> Self {
        let node = Arc::new(node);
        let id = if role == Role::Primary { 0xa1 } else { 0xb2 };
        let region = if role == Role::Primary {
            "WEUR"
        } else {
            "APAC"
        };
        let identity = Identity {
            node: NodeId(id),
            region: region.parse().unwrap(),
            role,
        };
        let mut config = GatewayConfig::new(identity);
        change(&mut config);
        let mut registry = Registry::default();
        let handles = Handles {
            random: Arc::new(Counting::default()),
            clock: Arc::new(StoppedClock),
            connector: Arc::new(TcpConnector),
            metrics: Metrics::register(&mut registry),
            registry: Arc::new(registry),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let router = router(Arc::clone(&node), config, handles);
        let ended = tokio::spawn(serve(listener, router, stop.clone(), serving));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            node,
            base,
            stop,
            ended,
            client,
        }
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> Ask {
        Ask(self.client.request(method, format!("{}{path}", self.base)))
    }

    pub(crate) fn get(&self, path: &str) -> Ask {
        self.ask(Method::GET, path)
    }

    pub(crate) fn ask_with(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Ask {
        let Ask(request) = self.ask(method, path);
        Ask(request.body(body))
    }

    pub(crate) fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Ask {
        self.ask_with(Method::POST, path, body)
    }

    /// `POST …/database/shop/query`.
    pub(crate) fn query(&self, body: impl Into<reqwest::Body>) -> Ask {
        self.post(&format!("{DATABASES}/shop/query"), body)
    }
}

pub(crate) struct Ask(reqwest::RequestBuilder);

impl Ask {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn header_bytes(self, name: &str, value: &[u8]) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    /// As another node passes it on.
    pub(crate) fn passed_on(self) -> Self {
        let request = self.0.header("tidemark-forwarded-by", "00000000000000c3");
        let (client, request) = request.build_split();
        let mut request = request.unwrap();
        let body = request.body().and_then(reqwest::Body::as_bytes);
        let body = body_crc([body.unwrap_or_default()]);
        let words = [request.method().as_str(), request.url().path()];
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
        let guard = Guard::of(&words, headers, Some(body)).to_string();
        let guard = guard.parse().unwrap();
        request.headers_mut().insert("tidemark-guard", guard);
        Self(reqwest::RequestBuilder::from_parts(client, request))
    }

    pub(crate) async fn send(self) -> Got {
        let answer = tokio::time::timeout(PATIENCE, self.0.send())
            .await
            .unwrap()
            .unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = tokio::time::timeout(PATIENCE, answer.bytes())
            .await
            .unwrap()
            .unwrap();
        Got {
            status,
            headers,
            body: body.to_vec(),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The `result` of a success.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        let mut json = self.json();
        assert_eq!(
            (self.status, &json["success"]),
            (StatusCode::OK, &Value::Bool(true)),
            "{json}"
        );
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(json["errors"], Value::Array(vec![]));
        assert_eq!(json["messages"], Value::Array(vec![]));
        json["result"].take()
    }

    /// The message of a failure with this status, code and kind, in a whole envelope.
    #[track_caller]
    pub(crate) fn failure(&self, status: u16, code: u32, kind: &str) -> String {
        let json = self.json();
        let error = &json["errors"][0];
        let got = (
            self.status.as_u16(),
            error["code"].as_u64(),
            self.header("tidemark-failure"),
        );
        assert_eq!(got, (status, Some(u64::from(code)), Some(kind)), "{json}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("tidemark-served-by").is_some(), "{self:?}");
        assert_eq!(json["success"], Value::Bool(false));
        assert_eq!(json["result"], Value::Null);
        assert_eq!(json["messages"], Value::Array(vec![]));
        assert_eq!(json["errors"].as_array().unwrap().len(), 1);
        error["message"].as_str().unwrap().to_owned()
    }
}
