//! What the stream promises to a replica that asks whether it has everything.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tidemark_net::Unpacker;
use tidemark_primary::{Primary, STREAM_PATH};
use tidemark_protocol::headers::STREAM;
use tidemark_protocol::stream::{FollowerMessage, PACKED, SourceMessage, says};
use tidemark_protocol::{DatabaseId, NodeId, PageNo, Term, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::harness::{create, request, run, start};

/// Bytes of a database that no socket holds all at once: its image is on its way for as long as nobody reads.
const ROWS: i64 = 12;
const ROW_BYTES: i64 = 2 << 20;

struct Follower {
    socket: WebSocketStream<TcpStream>,
    unpacker: Unpacker,
    /// Bytes of all that came, as it came.
    received: usize,
}

impl Follower {
    /// `words` say what it understands.
    async fn connect(address: SocketAddr, node: u64, words: &str) -> Self {
        let mut upgrade = format!("ws://{address}{STREAM_PATH}")
            .into_client_request()
            .unwrap();
        let secret = "Bearer secret".parse().unwrap();
        upgrade.headers_mut().insert("authorization", secret);
        let words = words.parse().unwrap();
        upgrade.headers_mut().insert(STREAM, words);
        let socket = TcpStream::connect(address).await.unwrap();
        let shaken = tokio_tungstenite::client_async(upgrade, socket).await;
        let mut follower = Self {
            socket: shaken.unwrap().0,
            unpacker: Unpacker::new().unwrap(),
            received: 0,
        };
        let hello = FollowerMessage::Hello {
            node: NodeId(node),
            term: Term(0),
            region: "OC".parse().unwrap(),
        };
        follower.say(hello).await;
        follower
    }

    async fn say(&mut self, message: FollowerMessage) {
        let message = Message::Binary(message.encode());
        self.socket.send(message).await.unwrap();
    }

    /// Wants a database of which it can name no state.
    async fn follow_from_nothing(&mut self, database: DatabaseId) {
        let position = None;
        self.say(FollowerMessage::Follow { database, position })
            .await;
    }

    /// Says that it has no page of it.
    async fn say_no_hashes(&mut self, database: DatabaseId) {
        self.say(FollowerMessage::Hashes {
            database,
            first: PageNo(1),
            last: true,
            hashes: Vec::new(),
        })
        .await;
    }

    /// What comes, up to what is `last`. Signs of life are left out.
    async fn until(&mut self, last: impl Fn(&SourceMessage) -> bool) -> Vec<SourceMessage> {
        let mut messages = Vec::new();
        let all = async {
            while !messages.last().is_some_and(&last) {
                let Message::Binary(bytes) = self.socket.next().await.unwrap().unwrap() else {
                    continue;
                };
                self.received += bytes.len();
                let mut message = SourceMessage::decode(&bytes).unwrap();
                if let SourceMessage::Packed {
                    message_bytes,
                    packed,
                } = &message
                {
                    let bytes = *message_bytes as usize;
                    let unpacked = self.unpacker.unpack(packed, bytes).unwrap();
                    assert_eq!(unpacked.len(), bytes);
                    message = SourceMessage::decode(&unpacked.into()).unwrap();
                }
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

/// Serves the stream of a primary.
async fn serve(primary: &Arc<Primary>) -> (SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum::serve(listener, primary.routes()).into_future();
    (address, tokio::spawn(server))
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
    let (address, server) = serve(&primary).await;
    let mut follower = Follower::connect(address, 9, "").await;

    follower.follow_from_nothing(db).await;
    let before = follower.ask(1).await;
    let wish = SourceMessage::NeedHashes { database: db };
    assert!(before.contains(&wish), "{before:?}");
    follower.say_no_hashes(db).await;
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

/// An image that is packed on another thread, and transactions that change a row of a page that was sent before.
#[tokio::test(flavor = "multi_thread")]
async fn packed_stream_says_the_same_in_fewer_bytes() {
    const UPDATES: usize = 40;
    let directory = tempfile::tempdir().unwrap();
    let primary = start(directory.path()).await;
    let db = create(&primary, "shop").await;
    let write = async |sql: &str| {
        run(&primary, request(db, sql, &[])).await.unwrap();
    };
    write("CREATE TABLE t(n INTEGER PRIMARY KEY, v)").await;
    let numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000)";
    let fill = &format!("{numbers} INSERT INTO t SELECT n, randomblob(100) FROM n");
    write(fill).await;
    let (address, server) = serve(&primary).await;
    let mut told = Vec::new();
    for (node, words) in [(9, "voters"), (10, "voters, zstd")] {
        let follower = Follower::connect(address, node, words).await;
        assert_eq!(says(words, PACKED), node == 10);
        told.push((follower, Vec::new(), 0));
    }
    for (follower, messages, _) in &mut told {
        follower.follow_from_nothing(db).await;
        follower.say_no_hashes(db).await;
        let end = SourceMessage::ImageEnd { database: db };
        messages.extend(follower.until(|message| *message == end).await);
    }
    for (follower, _, image_bytes) in &mut told {
        *image_bytes = follower.received;
    }
    for n in 0..UPDATES {
        write(&format!("UPDATE t SET v = {n} WHERE n IN (1, 3000, {n})")).await;
    }
    for (follower, messages, image_bytes) in &mut told {
        messages.extend(follower.ask(1).await);
        assert_eq!(transactions(messages, db), UPDATES);
        *image_bytes = follower.received - *image_bytes;
        // These come with the first heartbeat, whenever that is.
        messages.retain(|message| !matches!(message, SourceMessage::Voters { .. }));
    }
    let [(_, plainly, plain_bytes), (_, packed, packed_bytes)] = &told[..] else {
        unreachable!("two followers")
    };
    assert!(plainly == packed, "they were told different things");
    assert!(
        packed_bytes * 5 < *plain_bytes,
        "{packed_bytes} of {plain_bytes}"
    );
    drop(told);
    server.abort();
    primary.stop().await;
}
