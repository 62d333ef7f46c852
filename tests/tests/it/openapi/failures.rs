//! Every failure that is described can be had, and comes as it is described.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tidemark_gateway::{GatewayConfig, Handles, Identity, Limits, Metrics, ServeConfig};
use tidemark_net::TcpConnector;
use tidemark_protocol::env::{Clock, Random};
use tidemark_protocol::node::{
    CreateDatabase, DatabaseInfo, DatabaseList, DatabaseReplicas, EditDatabase, ListDatabases,
    NodeStatus, Role, Verification,
};
use tidemark_protocol::{
    DatabaseId, Execute, Executed, Failure, FailureKind, Node, NodeId, RequestId,
};
use tidemark_tests::{Api, Description, Operation};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "secret";
const DATABASE: &str = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506";

/// A node that has one database and fails at everything in one way.
struct Failing(FailureKind);

impl Failing {
    fn fail<T>(&self) -> Result<T, Failure> {
        let failure = Failure::new(self.0, "as the test wants it");
        let later = [
            FailureKind::Stale,
            FailureKind::Overloaded,
            FailureKind::Unavailable,
            FailureKind::Damaged,
        ];
        if later.contains(&self.0) {
            return Err(failure.retry_after(Duration::from_secs(1)));
        }
        Err(failure)
    }
}

impl Node for Failing {
    async fn execute(&self, _: Execute) -> Result<Executed, Failure> {
        self.fail()
    }

    async fn database(&self, _: &str) -> Result<Option<DatabaseInfo>, Failure> {
        if self.0 == FailureKind::NoDatabase {
            return Ok(None);
        }
        self.fail()
    }

    fn resolve(&self, _: &str) -> Option<DatabaseId> {
        let there = self.0 != FailureKind::NoDatabase;
        there.then(|| DATABASE.parse().expect("a UUID"))
    }

    async fn databases(&self, _: ListDatabases) -> Result<DatabaseList, Failure> {
        self.fail()
    }

    async fn create(&self, _: CreateDatabase) -> Result<DatabaseInfo, Failure> {
        self.fail()
    }

    async fn delete(&self, _: DatabaseId, _: Option<RequestId>) -> Result<(), Failure> {
        self.fail()
    }

    async fn edit(&self, _: DatabaseId, _: EditDatabase) -> Result<DatabaseInfo, Failure> {
        self.fail()
    }

    async fn verify(&self, _: DatabaseId) -> Result<Verification, Failure> {
        self.fail()
    }

    async fn replicas(&self, _: DatabaseId) -> Result<DatabaseReplicas, Failure> {
        self.fail()
    }

    async fn status(&self) -> NodeStatus {
        panic!("as the test wants it")
    }

    fn upstream(&self) -> Option<String> {
        let gone = self.0 == FailureKind::Unavailable;
        gone.then(|| "http://127.0.0.1:9".to_owned())
    }

    fn ready(&self) -> Result<(), Failure> {
        if self.0 == FailureKind::Unavailable {
            return self.fail();
        }
        Ok(())
    }
}

/// Nothing is random and no time passes.
struct Still;

impl Random for Still {
    fn bytes16(&self) -> [u8; 16] {
        [1; 16]
    }
}

impl Clock for Still {
    fn unix_ms(&self) -> u64 {
        0
    }
}

/// Serves a node that fails like this.
async fn serve(kind: FailureKind) -> Api {
    let mut config = GatewayConfig::new(Identity {
        node: NodeId(1),
        region: "WEUR".parse().expect("a region"),
        role: Role::Primary,
    });
    if kind != FailureKind::Forbidden {
        config.tokens = vec![TOKEN.to_owned()];
    }
    if kind == FailureKind::Overloaded {
        config.limits.requests_max = 0;
    }
    if kind == FailureKind::TooLarge {
        config.limits = Limits {
            body_bytes_max: 1,
            ..config.limits
        };
    }
    let mut registry = prometheus_client::registry::Registry::default();
    let handles = Handles {
        random: Arc::new(Still),
        clock: Arc::new(Still),
        connector: Arc::new(TcpConnector),
        metrics: Metrics::register(&mut registry),
        registry: Arc::new(registry),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = tidemark_gateway::router(Arc::new(Failing(kind)), config, handles);
    let stop = CancellationToken::new();
    tokio::spawn(tidemark_gateway::serve(
        listener,
        router,
        stop,
        ServeConfig::default(),
    ));
    Api::new(&format!("http://{address}"))
}

/// The path of an operation on this database, or on one that there is not.
fn path(operation: &Operation, kind: FailureKind) -> String {
    let either = |is, one, other| if kind == is { one } else { other };
    let database = either(FailureKind::NoDatabase, "nope", DATABASE);
    let account = either(FailureKind::BadRequest, "a%20b", "acc");
    let path = operation.path.replace("{database}", database);
    let path = path.replace("{secret}", &"0".repeat(32));
    let path = path.replace("{account}", account);
    if kind == FailureKind::BadRequest && path.ends_with("/database") {
        return format!("{path}?page=none");
    }
    path
}

fn body(operation: &Operation, kind: FailureKind) -> String {
    if kind == FailureKind::BadRequest {
        return "{".to_owned();
    }
    let database = if kind == FailureKind::NoDatabase {
        "../nope"
    } else {
        DATABASE
    };
    let graphql = format!(
        "{{ viewer {{ accounts {{ d1StorageAdaptiveGroups(filter: {{ databaseId: \"{database}\" }}) \
         {{ max {{ databaseSizeBytes }} }} }} }} }}"
    );
    match operation.path.rsplit('/').next() {
        Some("database") => r#"{"name":"shop"}"#.to_owned(),
        Some("graphql") => json!({ "query": graphql }).to_string(),
        Some("import") => r#"{"action":"poll","current_bookmark":"x"}"#.to_owned(),
        Some("export") => r#"{"output_format":"polling"}"#.to_owned(),
        Some("{database}") => r#"{"read_replication":{"mode":"auto"}}"#.to_owned(),
        _ => r#"{"sql":"SELECT 1"}"#.to_owned(),
    }
}

/// Asks so that it fails like this.
async fn provoke(operation: &Operation, kind: FailureKind) -> tidemark_tests::Reply {
    let api = serve(kind).await;
    let bearer = format!("Bearer {TOKEN}");
    let named = if kind == FailureKind::NoDatabase {
        "nope"
    } else {
        DATABASE
    };
    let headers = [
        (
            FailureKind::Forbidden,
            ("origin", "http://elsewhere.example"),
        ),
        (FailureKind::BadRequest, ("tidemark-deadline", "soon")),
        (FailureKind::BadBookmark, ("x-d1-bookmark", "garbage")),
        (FailureKind::Deadline, ("tidemark-deadline", "0ms")),
    ];
    let headers = headers.into_iter().filter(|(of, _)| *of == kind);
    let mut headers: Vec<_> = headers.map(|(_, header)| header).collect();
    headers.push(("x-d1-database-id", named));
    if kind != FailureKind::Unauthenticated {
        headers.push(("authorization", &bearer));
    }
    let (method, path) = (operation.method.clone(), path(operation, kind));
    let body = match method {
        Method::GET => String::new(),
        _ => body(operation, kind),
    };
    let reply = api.send(method, &path, &headers, body).await;
    reply.expect("the node answers")
}

/// Failures that this node cannot have.
const ELSEWHERE: [(&str, &str); 3] = [
    // Of a file on its way: the gateway's own tests have them.
    ("/tidemark/v1/uploads/{secret}", "deadline"),
    ("/tidemark/v1/uploads/{secret}", "too_large"),
    ("/tidemark/v1/uploads/{secret}", "internal"),
];

#[tokio::test]
async fn every_failure_that_is_described_occurs() {
    let description = Description::of_this_build();
    let (mut provoked, mut wrong) = (0, Vec::new());
    for operation in description.operations() {
        let path = operation.path.as_str();
        if path.starts_with(tidemark_protocol::cell::CELL_PATH) {
            continue; // Has no kinds: the tests of whole cells ask there.
        }
        for (status, kinds) in description.answers(operation) {
            if kinds.is_empty() && status != 200 && path != "/ready" {
                wrong.push(format!("{operation:?} {status}: no kinds"));
            }
            for name in kinds {
                if ELSEWHERE.contains(&(path, name.as_str())) {
                    continue;
                }
                let kind = FailureKind::from_name(&name).expect("a kind of failure");
                let of_a_link = (status, kind) == (404, FailureKind::BadRequest);
                let way = if of_a_link {
                    FailureKind::NoDatabase
                } else {
                    kind
                };
                let reply = provoke(operation, way).await;
                let code = u64::from(kind.code());
                let coded = !reply.json["errors"].is_array() || reply.error().0 == code;
                if (reply.status, reply.header("tidemark-failure"), coded)
                    != (status, Some(&*name), true)
                {
                    let got = format!("{} {}", reply.status, reply.text);
                    wrong.push(format!("{operation:?} {status} {name}: {got}"));
                }
                wrong.extend(description.check(&operation.method, path, &reply).err());
                provoked += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(provoked > 100, "{provoked} failures");
}

#[tokio::test]
async fn node_that_is_not_ready_answers_as_described() {
    let api = serve(FailureKind::Unavailable).await;
    let reply = api.get("/ready").await.expect("the node answers");
    assert_eq!(reply.status, 503);
    let checked = Description::of_this_build().check(&Method::GET, "/ready", &reply);
    assert_eq!(checked, Ok(()));
}
