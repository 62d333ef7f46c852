//! The API over the simulated network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tidemark_checker::Entry;
use tidemark_net::{Connector, HttpClient, HttpOptions};
use tidemark_protocol::{Bookmark, FailureKind, RequestId, headers};

use crate::node::url;
use crate::world::net::SimConnector;

/// How long a node may take.
const DEADLINE: &str = "3s";
/// How long a client waits for its answer.
const PATIENCE: Duration = Duration::from_secs(4);
const CONNECT_WAIT: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Any account is as good as another.
const DATABASES: &str = "/client/v4/accounts/simulated/d1/database";

/// Asks nodes. Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Door(HttpClient<Full<Bytes>>);

/// A request.
pub(super) struct Ask {
    path: String,
    body: Value,
    headers: Vec<(&'static str, String)>,
}

/// A successful answer.
pub(super) struct Answer {
    headers: HeaderMap,
    pub(super) json: Value,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No connection came about.
    Nobody,
    /// There was no answer, or half of one.
    Silence,
    /// The node says so.
    Failed(FailureKind, String),
    /// An answer that none gives.
    Strange(String),
}

impl Door {
    pub(super) fn new() -> Self {
        let connector: Arc<dyn Connector> = Arc::new(SimConnector);
        let options = HttpOptions {
            connect_wait: CONNECT_WAIT,
            idle_max: Duration::from_secs(10),
            idle_count_max: 4,
        };
        Self(HttpClient::new(connector, options))
    }

    pub(super) async fn ask(&self, host: &str, ask: Ask) -> Result<Answer, Refusal> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{}", url(host), ask.path))
            .header("content-type", "application/json")
            .header(headers::DEADLINE, DEADLINE);
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from(ask.body.to_string()));
        let request = request.body(body).expect("plain text");
        let answer = self.0.exchange(request, PATIENCE, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|error| {
            if error.is_connect() {
                Refusal::Nobody
            } else {
                Refusal::Silence
            }
        })?;
        let (head, body) = answer.into_parts();
        let kind = head.headers.get(headers::FAILURE);
        let kind = kind.and_then(|kind| {
            let mut kinds = FailureKind::ALL.into_iter();
            kinds.find(|known| kind == known.name())
        });
        let text = String::from_utf8_lossy(&body);
        match kind {
            Some(kind) => Err(Refusal::Failed(kind, text.into_owned())),
            None if head.status == StatusCode::OK => {
                let json = serde_json::from_slice(&body);
                let json = json.map_err(|error| Refusal::Strange(format!("{error}: {text}")))?;
                let headers = head.headers;
                Ok(Answer { headers, json })
            }
            None => Err(Refusal::Strange(format!("{}: {text}", head.status))),
        }
    }
}

impl Ask {
    pub(super) fn query(database: &str, sql: &str) -> Self {
        Self {
            path: format!("{DATABASES}/{database}/query"),
            body: json!({ "sql": sql }),
            headers: Vec::new(),
        }
    }

    pub(super) fn create(name: &str) -> Self {
        Self {
            path: DATABASES.to_owned(),
            body: json!({ "name": name }),
            headers: Vec::new(),
        }
    }

    pub(super) fn verify(database: &str) -> Self {
        Self {
            path: format!("/tidemark/v1/databases/{database}/verify"),
            body: json!({}),
            headers: Vec::new(),
        }
    }

    /// Binds one value.
    pub(super) fn value(mut self, value: u64) -> Self {
        self.body["params"] = json!([value]);
        self
    }

    pub(super) fn named(self, request: RequestId) -> Self {
        self.header(headers::REQUEST_ID, &request.to_string())
    }

    pub(super) fn bookmark(self, bookmark: &str) -> Self {
        self.header(headers::BOOKMARK, bookmark)
    }

    pub(super) fn linearizable(self) -> Self {
        self.header(headers::READ, "linearizable")
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Answer {
    /// The state that was read or written.
    pub(super) fn bookmark(&self) -> Result<Bookmark, String> {
        let text = self.header(headers::BOOKMARK)?;
        text.parse().map_err(|error| format!("{text}: {error}"))
    }

    /// The node that gave it.
    pub(super) fn node(&self) -> Result<String, String> {
        let served_by = self.header(headers::SERVED_BY)?;
        let node = served_by.rsplit('/').next();
        Ok(node.unwrap_or_default().to_owned())
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.header(headers::REPEATED)
            .is_ok_and(|repeated| repeated == "true")
    }

    /// The rows, each a place and a value.
    pub(super) fn rows(&self) -> Result<Vec<Entry>, String> {
        let rows = self.json["result"][0]["results"].as_array();
        let rows = rows.ok_or_else(|| format!("no rows: {}", self.json))?;
        let entry = |row: &Value| {
            let (place, value) = (row["place"].as_u64(), row["value"].as_u64());
            let entry = place
                .zip(value)
                .map(|(place, value)| Entry { place, value });
            entry.ok_or_else(|| format!("no entry: {row}"))
        };
        rows.iter().map(entry).collect()
    }

    fn header(&self, name: &str) -> Result<&str, String> {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| format!("an answer without {name}: {}", self.json))
    }
}
