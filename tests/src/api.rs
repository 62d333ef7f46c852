//! The HTTP face as any client without a library sees it.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tidemark_protocol::node::{NodeStatus, Verification};

use crate::description::Description;

/// The account in the paths. One is as good as another.
const ACCOUNT: &str = "test";
/// Longest wait for an answer. Longer than any deadline that a test asks a node for.
const ANSWER_WAIT: Duration = Duration::from_secs(150);

/// A node's HTTP face.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    http: reqwest::Client,
    /// Whether an answer must be one that the description of the API has.
    described: bool,
}

/// An answer, whatever it is.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, if it is JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
}

/// A query with its headers, before it is sent.
#[derive(Clone, Debug)]
pub struct Query {
    api: Api,
    path: String,
    body: Value,
    headers: Vec<(String, String)>,
}

/// One figure of metrics that were read already, see [`Api::metric`].
pub fn figure(metrics: &str, name: &str) -> anyhow::Result<Option<f64>> {
    let mut lines = metrics.lines();
    let figure = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(figure.map(str::parse).transpose()?)
}

impl Api {
    /// The face of a node of this build at this base URL: an answer that is not as the description of the API
    /// has it is a panic.
    pub(crate) fn of_node(base: &str) -> Self {
        Self {
            described: true,
            ..Self::new(base)
        }
    }

    /// The face at this base URL.
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(ANSWER_WAIT)
            .build()
            .expect("an HTTP client without TLS needs nothing of the system");
        Self {
            base: base.to_owned(),
            http,
            described: false,
        }
    }

    /// The path of a database's operation, or of the collection for an empty `rest`.
    pub fn path(rest: &str) -> String {
        let slash = if rest.is_empty() { "" } else { "/" };
        format!("/client/v4/accounts/{ACCOUNT}/d1/database{slash}{rest}")
    }

    /// Sends anything.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Reply> {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base))
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        let reply = Reply::new(status, headers, text);
        if self.described {
            let checked = Description::of_this_build().check(&method, path, &reply);
            assert_eq!(checked, Ok(()), "an answer is not described");
        }
        Ok(reply)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> reqwest::Result<Reply> {
        self.send(Method::GET, path, &[], "").await
    }

    /// Creates a database; returns its UUID. Panics if it cannot be.
    pub async fn create(&self, name: &str) -> String {
        let body = json!({ "name": name }).to_string();
        let headers = [("content-type", "application/json")];
        let reply = self
            .send(Method::POST, &Self::path(""), &headers, body)
            .await;
        let reply = reply.expect("the node answers");
        assert_eq!(reply.status, 200, "create {name}: {}", reply.text);
        reply.json["result"]["uuid"]
            .as_str()
            .expect("a new database has a UUID")
            .to_owned()
    }

    /// A query of one text of SQL.
    pub fn query(&self, database: &str, sql: &str) -> Query {
        self.query_body(database, json!({ "sql": sql }))
    }

    /// A query with this body.
    pub fn query_body(&self, database: &str, body: Value) -> Query {
        let path = Self::path(&format!("{database}/query"));
        Query {
            api: self.clone(),
            path,
            body,
            headers: Vec::new(),
        }
    }

    /// The node's account of itself.
    pub async fn status(&self) -> anyhow::Result<NodeStatus> {
        let reply = self.get("/tidemark/v1/status").await?;
        Ok(serde_json::from_value(reply.json["result"].clone())?)
    }

    /// One figure of its metrics, by the sample's name without labels; `None` while it is not among them.
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        figure(&self.get("/metrics").await?.text, name)
    }

    /// Recomputes a database's checksum. Panics if it cannot be.
    pub async fn verify(&self, database: &str) -> Verification {
        let path = format!("/tidemark/v1/databases/{database}/verify");
        let reply = self
            .send(Method::POST, &path, &[], "")
            .await
            .expect("the node answers");
        assert_eq!(reply.status, 200, "verify {database}: {}", reply.text);
        serde_json::from_value(reply.json["result"].clone()).expect("a verification")
    }
}

impl Query {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks for a read not before this bookmark, or by a session's first-... word.
    #[must_use]
    pub fn bookmark(self, bookmark: &str) -> Self {
        self.header("x-d1-bookmark", bookmark)
    }

    /// Sends it.
    pub async fn send(self) -> reqwest::Result<Reply> {
        let Self {
            api,
            path,
            body,
            headers,
        } = self;
        let mut sent = vec![("content-type", "application/json")];
        sent.extend(
            headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        api.send(Method::POST, &path, &sent, body.to_string()).await
    }

    /// Sends it. Panics if it fails.
    pub async fn ok(self) -> Reply {
        let body = self.body.to_string();
        let reply = self.send().await.expect("the node answers");
        let body: String = body.chars().take(300).collect();
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!(reply.json["success"], true, "{body}: {}", reply.text);
        reply
    }
}

impl Reply {
    pub(crate) fn new(status: u16, headers: HeaderMap, text: String) -> Self {
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self {
            status,
            headers,
            json,
            text,
        }
    }

    /// The rows of the first statement.
    pub fn rows(&self) -> &Vec<Value> {
        self.json["result"][0]["results"]
            .as_array()
            .expect("a statement's rows")
    }

    /// The `meta` of the first statement.
    pub fn meta(&self) -> &Value {
        &self.json["result"][0]["meta"]
    }

    /// The state that was read or written, as text.
    pub fn bookmark(&self) -> String {
        self.header("x-d1-bookmark")
            .expect("an answer carries a bookmark")
            .to_owned()
    }

    /// A header, if it is there and readable.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Code and message of the first error.
    pub fn error(&self) -> (u64, &str) {
        let error = &self.json["errors"][0];
        (
            error["code"].as_u64().unwrap_or(0),
            error["message"].as_str().unwrap_or(""),
        )
    }
}
