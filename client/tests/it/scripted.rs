//! A server that answers by script and remembers what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use tidemark_client::{Client, ClientBuilder};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// What the server does with one request.
pub(crate) enum Act {
    /// Answers.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Answers once the gate opens.
    AnswerAfter(Arc<Notify>, Box<Act>),
    /// Drops the connection without a word.
    Hang,
    /// Sends a good head and half a body.
    Half,
    /// Sends a good head with this bookmark, half a body, and then nothing more.
    Stall(String),
    /// Never answers.
    Silence,
}

impl Act {
    /// A success: one statement with `rows`, each a JSON array, under `columns`.
    pub(crate) fn rows(bookmark: &str, columns: &[&str], rows: &[&str]) -> Self {
        let columns = serde_json::to_string(columns).unwrap();
        let body = format!(
            r#"{{"result":[{{"results":{{"columns":{columns},"rows":[{}]}},"success":true,
            "meta":{{"served_by":"tidemark","served_by_region":"WEUR","served_by_primary":true,
            "duration":1.5,"changes":1,"last_row_id":7,"changed_db":true,"size_after":4096,
            "rows_read":2,"rows_written":1,"timings":{{"sql_duration_ms":1.5}}}}}}],
            "success":true,"errors":[],"messages":[]}}"#,
            rows.join(",")
        );
        Self::Answer {
            status: 200,
            headers: Vec::new(),
            body,
        }
        .with("x-d1-bookmark", bookmark)
        .with("tidemark-served-by", "WEUR/primary/0000000000000001")
    }

    /// A failure as a node words it.
    pub(crate) fn failure(status: u16, kind: &str, code: u32, message: &str) -> Self {
        let body = format!(
            r#"{{"result":null,"success":false,"messages":[],
            "errors":[{{"code":{code},"message":"{message}"}}]}}"#
        );
        Self::Answer {
            status,
            headers: Vec::new(),
            body,
        }
        .with("tidemark-failure", kind)
    }

    /// A page of something that is no node.
    pub(crate) fn foreign(status: u16, body: &str) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.to_owned(),
        }
    }

    /// The same, with a header more.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A running server. It answers 400 once its script is over.
pub(crate) struct Scripted {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<Asked>>,
    /// How often a sign of life was asked for.
    asked_for_life: watch::Sender<usize>,
    signature: Mutex<Signature>,
    map: Mutex<Option<String>>,
    looked_at: AtomicUsize,
    maps_told: AtomicUsize,
    saw_a_token: AtomicBool,
}

/// What it says of itself when it is asked whether it is ready, and how late.
#[derive(Clone, Default)]
struct Signature {
    served_by: String,
    cluster: String,
    late: Duration,
}

impl Scripted {
    pub(crate) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(script.into_iter().collect()),
            ..Shared::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/health", get(live))
            .route("/ready", get(ready))
            .route("/tidemark/v1/cluster", get(map))
            .fallback(serve)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client with short waits, so that tests of retries are quick.
    pub(crate) fn client(&self) -> Client {
        quick(Client::builder(self.url())).build().unwrap()
    }

    /// What it says of itself to whoever looks, and how late.
    pub(crate) fn sign(&self, served_by: &str, cluster: &str, late: Duration) {
        *self.shared.signature.lock().unwrap() = Signature {
            served_by: served_by.to_owned(),
            cluster: cluster.to_owned(),
            late,
        };
    }

    /// The map that it tells. Before, it has none.
    pub(crate) fn tell(&self, map: String) {
        *self.shared.map.lock().unwrap() = Some(map);
    }

    /// How often somebody looked whether it is ready.
    pub(crate) fn looked_at(&self) -> usize {
        self.shared.looked_at.load(Ordering::Relaxed)
    }

    /// How often somebody asked for the map.
    pub(crate) fn maps_told(&self) -> usize {
        self.shared.maps_told.load(Ordering::Relaxed)
    }

    /// Whether anybody who only looked has sent a token.
    pub(crate) fn saw_a_token(&self) -> bool {
        self.shared.saw_a_token.load(Ordering::Relaxed)
    }

    /// Everything that was asked so far, in order of arrival.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn until_asked(&self, count: usize) {
        let arrived = async {
            while self.shared.asked.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), arrived)
            .await
            .unwrap();
    }

    /// Waits until a sign of life was asked for so often.
    pub(crate) async fn until_asked_for_life(&self, count: usize) {
        let mut asked = self.shared.asked_for_life.subscribe();
        let often = asked.wait_for(|asked| *asked >= count);
        let often = tokio::time::timeout(Duration::from_secs(30), often).await;
        drop(often.unwrap().unwrap());
    }
}

async fn live(State(shared): State<Arc<Shared>>) -> &'static str {
    shared.asked_for_life.send_modify(|count| *count += 1);
    "ok"
}

async fn ready(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    shared.looked_at.fetch_add(1, Ordering::Relaxed);
    if headers.contains_key("authorization") {
        shared.saw_a_token.store(true, Ordering::Relaxed);
    }
    let Signature {
        served_by,
        cluster,
        late,
    } = shared.signature.lock().unwrap().clone();
    tokio::time::sleep(late).await;
    Response::builder()
        .header("tidemark-served-by", served_by)
        .header("tidemark-cluster", cluster)
        .body(Body::from("ready"))
        .unwrap()
}

async fn map(State(shared): State<Arc<Shared>>) -> Response {
    shared.maps_told.fetch_add(1, Ordering::Relaxed);
    let map = shared.map.lock().unwrap().clone();
    let status = if map.is_some() { 200 } else { 404 };
    Response::builder()
        .status(status)
        .body(Body::from(map.unwrap_or_default()))
        .unwrap()
}

pub(crate) fn quick(builder: ClientBuilder) -> ClientBuilder {
    builder
        .token("secret")
        .backoff(Duration::from_millis(1), Duration::from_millis(5))
}

/// URL of a machine that takes connections and never says a word: its process is stopped, or its power gone.
pub(crate) async fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// URL of a port where nobody listens.
pub(crate) async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let act = {
        // Both at once, so that the nth request gets the nth act.
        let mut asked = shared.asked.lock().unwrap();
        asked.push(Asked {
            method,
            uri,
            headers,
            body,
        });
        shared.script.lock().unwrap().pop_front()
    };
    perform(act.unwrap_or_else(|| Act::failure(400, "bad_request", 7400, "script is over"))).await
}

async fn perform(act: Act) -> Response {
    match act {
        Act::Answer {
            status,
            headers,
            body,
        } => {
            let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
        Act::AnswerAfter(gate, act) => {
            gate.notified().await;
            Box::pin(perform(*act)).await
        }
        // Ends the connection's task, and with it the connection, without the panic hook's noise.
        Act::Hang => std::panic::resume_unwind(Box::new("the script says so")),
        Act::Half => {
            let broken = io::Error::from(io::ErrorKind::ConnectionReset);
            let half = stream::iter([Ok(Bytes::from_static(b"{\"result\":[")), Err(broken)]);
            Response::new(Body::from_stream(half))
        }
        Act::Stall(bookmark) => {
            let half = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{\"result\":["))]);
            Response::builder()
                .header("x-d1-bookmark", bookmark)
                .body(Body::from_stream(half.chain(stream::pending())))
                .unwrap()
        }
        Act::Silence => std::future::pending::<Result<Response, Infallible>>()
            .await
            .unwrap(),
    }
}
