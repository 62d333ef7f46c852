//! What the stream promises to a replica that asks whether it has everything.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tidemark_primary::STREAM_PATH;
use tidemark_protocol::stream::{FollowerMessage, SourceMessage};
use tidemark_protocol::{DatabaseId, NodeId, PageNo, Term, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{create, request, run, start};

/// Bytes of a database that no socket holds all at once: its image is on its way for as long as nobody reads.
const ROWS: i64 = 12;
const ROW_BYTES: i64 = 2 << 20;

struct Follower(WebSocketStream<TcpStream>);

impl Follower {
    async fn connect(address: SocketAddr) -> Self {
        let mut upgrade = format!("ws://{address}{STREAM_PATH}")
            .into_client_request()
            .unwrap();
        let secret = "Bearer secret".parse().unwrap();
        upgrade.headers_mut().insert("authorization", secret);
        let socket = TcpStream::connect(address).await.unwrap();
        let shaken = tokio_tungstenite::client_async(upgrade, socket).await;
        let mut follower = Self(shaken.unwrap().0);
        let hello = FollowerMessage::Hello {
            node: NodeId(9),
            term: Term(0),
            region: "OC".parse().unwrap(),
        };
        follower.say(hello).await;
        follower
    }

    async fn say(&mut self, message: FollowerMessage) {
        let message = Message::Binary(message.encode());
        self.0.send(message).await.unwrap();
    }

    /// What comes, up to what is `last`. Signs of life are left out.
    async fn until(&mut self, last: impl Fn(&SourceMessage) -> bool) -> Vec<SourceMessage> {
        let mut messages = Vec::new();
        let all = async {
            while !messages.last().is_some_and(&last) {
                let Message::Binary(bytes) = self.0.next().await.unwrap().unwrap() else {
                    continue;
                };
                let message = SourceMessage::decode(&bytes).unwrap();
                if let SourceMessage::Heartbeat { stamp, .. } = message {
                    self.say(FollowerMessage::Echo { stamp }).await;
                } else {
                    messages.push(message);
                }
            }
        };
        let all = tokio::time::timeout(Duration::from_secs(20), all).await;
        all.expect("not within 20 s");
        messages
    }

    /// Asks, and gives what comes before the answer.
    async fn ask(&mut self, stamp: u64) -> Vec<SourceMessage> {
        self.say(FollowerMessage::Ask { stamp }).await;
        let answers = |message: &SourceMessage| matches!(message, SourceMessage::Current { stamp: of, .. } if *of == stamp);
        let mut before = self.until(answers).await;
        before.pop();
        before
    }
}

fn transactions(messages: &[SourceMessage], of: DatabaseId) -> usize {
    let of = |message: &&SourceMessage| matches!(message, SourceMessage::Transaction { transaction, .. } if transaction.header().database == of);
    messages.iter().filter(of).count()
}

/// The answer vouches for what comes as transactions. Of an image it says nothing before its end, and behind that
/// all that was committed while it was on its way.
#[tokio::test(flavor = "multi_thread")]
async fn answer_to_a_question_comes_behind_what_was_committed_but_not_behind_images() {
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "shop").await;
    let write = async |sql: &str, params: &[Value]| {
        run(&primary, request(db, sql, params)).await.unwrap();
    };
    write("CREATE TABLE t(v)", &[]).await;
    for _ in 0..ROWS {
        let bytes = Value::Integer(ROW_BYTES);
        write("INSERT INTO t VALUES (zeroblob(?))", &[bytes]).await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum::serve(listener, primary.routes()).into_future();
    let server = tokio::spawn(server);
    let mut follower = Follower::connect(address).await;

    follower
        .say(FollowerMessage::Follow {
            database: db,
            position: None,
        })
        .await;
    let before = follower.ask(1).await;
    let wish = SourceMessage::NeedHashes { database: db };
    assert!(before.contains(&wish), "{before:?}");
    follower
        .say(FollowerMessage::Hashes {
            database: db,
            first: PageNo(1),
            last: true,
            hashes: Vec::new(),
        })
        .await;
    let begins = |message: &SourceMessage| matches!(message, SourceMessage::ImageBegin { .. });
    follower.until(begins).await;
    write("INSERT INTO t VALUES (1)", &[]).await;
    let between = follower.ask(2).await;
    assert_eq!(transactions(&between, db), 0);
    let end = SourceMessage::ImageEnd { database: db };
    assert!(!between.contains(&end), "the image was held up too briefly");
    let rest = follower.until(|message| *message == end).await;
    assert_eq!(transactions(&rest, db), 0);
    let behind = follower.ask(3).await;
    assert_eq!(transactions(&behind, db), 1, "committed meanwhile");
    write("INSERT INTO t VALUES (2)", &[]).await;
    let news = follower.ask(4).await;
    assert_eq!(transactions(&news, db), 1);

    drop(follower);
    server.abort();
    primary.stop().await;
}
