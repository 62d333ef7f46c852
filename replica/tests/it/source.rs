//! The source: what a primary does towards a replica, in a form that a test can steer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tidemark_engine::{
    CheckpointMode, Control, Database, Opened, Options, Owner, Stamp, page_hash,
};
use tidemark_net::Packer;
use tidemark_protocol::catalogue::{self, BOOKMARK_KEY, CatalogueReader, PRIMARY_REGION};
use tidemark_protocol::headers::STREAM;
use tidemark_protocol::stream::{
    ASKS, FollowerMessage, PACKED, PAGES_PER_MESSAGE_MAX, PagesBuilder, SourceMessage, says,
};
use tidemark_protocol::{
    Bookmark, BookmarkKey, DatabaseId, NodeId, PAGE_SIZE, PageNo, Position, Seq, Statement, Term,
    Transaction, Value,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_util::sync::CancellationToken;

use crate::world::PATIENCE;

pub const HEARTBEAT: Duration = Duration::from_millis(50);
pub const SECRET: &str = "the cluster's secret";
pub const KEY: BookmarkKey = BookmarkKey::new([7; 16]);

/// A scripted source. Lives until it is dropped; its databases stay with it when it is not serving.
pub struct Source {
    directory: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    serving: Option<(SocketAddr, CancellationToken)>,
}

pub struct State {
    databases: HashMap<DatabaseId, Origin>,
    connections: HashMap<u64, Connection>,
    next_connection: u64,
    pub term: Term,
    /// Whether committed transactions are shipped.
    pub shipping: bool,
    /// Whether it gives signs of life: heartbeats, and answers to questions.
    pub beating: bool,
    /// Whether questions are understood. Answers come behind what is shipped, as from a real source.
    pub asks: bool,
    /// How long everything is on its way to the replica.
    pub latency: Duration,
    /// Pages of an image after which nothing more comes.
    pub image_pages_max: Option<usize>,
    /// Whether images stay on their way: all but their beginnings. Questions are answered meanwhile, as by a real
    /// source.
    pub holding_images: bool,
    /// What the next transaction message becomes on its way.
    pub tamper: Option<Tamper>,
    /// What the next packed message becomes on its way.
    pub spoil: Option<Spoil>,
    /// What was seen.
    pub seen: Seen,
}

/// Damage to a packed message.
#[derive(Clone, Copy, Debug)]
pub enum Spoil {
    /// A byte of what is packed flips, before the envelope gets its checksum.
    Flip,
    /// It is lost, and those behind it refer to it.
    Lose,
    /// It is packed twice.
    Nest,
    /// It says that it has fewer bytes than it has.
    Shorten,
}

/// Damage to a message.
#[derive(Clone, Copy, Debug)]
pub enum Tamper {
    /// A byte flips.
    Flip,
    /// It comes with this term.
    Term(Term),
    /// It is lost.
    Lose,
    /// Its pages are not what its checksum says, though it is well-formed.
    OtherContent,
}

#[derive(Default, Debug)]
pub struct Seen {
    pub hellos: Vec<(NodeId, Term)>,
    pub follows: Vec<(DatabaseId, Option<Position>)>,
    pub unfollows: Vec<DatabaseId>,
    pub hashes: Vec<(DatabaseId, usize)>,
    pub pages_sent: usize,
    pub applied: HashMap<DatabaseId, Position>,
    pub echoes: usize,
    /// Questions that were answered.
    pub answered: usize,
}

struct Origin {
    owner: Owner,
    database: Arc<Database>,
    history: Vec<Transaction>,
}

struct Connection {
    out: mpsc::UnboundedSender<(Instant, Bytes)>,
    /// The newest question.
    asked: Option<u64>,
    /// Per database followed: the next transaction of the history to ship.
    following: HashMap<DatabaseId, usize>,
    hashes: HashMap<DatabaseId, Vec<u64>>,
    /// What is left of images, and the next transaction to ship behind it.
    held: Vec<(DatabaseId, Vec<Bytes>, usize)>,
    end: CancellationToken,
}

impl Connection {
    fn send(&self, bytes: Bytes) {
        let _ = self.out.send((Instant::now(), bytes)); // the connection may have ended
    }
}

impl Source {
    /// A source whose catalogue lists nothing.
    pub fn new() -> Self {
        let source = Self {
            directory: tempfile::tempdir().unwrap(),
            state: Arc::new(Mutex::new(State {
                databases: HashMap::new(),
                connections: HashMap::new(),
                next_connection: 0,
                term: Term(1),
                shipping: true,
                beating: true,
                asks: true,
                latency: Duration::ZERO,
                image_pages_max: None,
                holding_images: false,
                tamper: None,
                spoil: None,
                seen: Seen::default(),
            })),
            serving: None,
        };
        source.open(DatabaseId::CATALOGUE);
        source.write(DatabaseId::CATALOGUE, catalogue::SCHEMA, vec![]);
        let setting = "INSERT INTO settings VALUES (?, ?)";
        let key = vec![Value::Text(BOOKMARK_KEY.into()), Value::Blob(vec![7; 16])];
        source.write(DatabaseId::CATALOGUE, setting, key);
        let region = vec![
            Value::Text(PRIMARY_REGION.into()),
            Value::Text("WEUR".into()),
        ];
        source.write(DatabaseId::CATALOGUE, setting, region);
        source
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.serving.as_ref().expect("serving").0)
    }

    /// Listens, on the same port as before if it listened before.
    pub async fn serve(&mut self) {
        let address = self
            .serving
            .take()
            .map_or("127.0.0.1:0".parse().unwrap(), |(old, stop)| {
                stop.cancel();
                old
            });
        let started = Instant::now();
        let listener = loop {
            // The one before may not have let go of the port yet.
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&self.state), stop.clone()));
        self.serving = Some((address, stop));
    }

    /// Listens no more and ends all connections.
    pub fn silence(&mut self) {
        if let Some((_, stop)) = &self.serving {
            stop.cancel();
        }
        self.hang_up();
    }

    /// Ends all connections.
    pub fn hang_up(&self) {
        let mut state = self.state();
        for (_, connection) in state.connections.drain() {
            connection.end.cancel();
        }
    }

    /// Makes a database that the catalogue does not list.
    pub fn open(&self, id: DatabaseId) {
        let directory = self.directory_of(id);
        std::fs::create_dir_all(&directory).unwrap();
        let Opened { database, owner } =
            Database::open(&directory, id, &Options::default()).unwrap();
        let origin = Origin {
            owner,
            database,
            history: Vec::new(),
        };
        self.state().databases.insert(id, origin);
    }

    pub fn directory_of(&self, id: DatabaseId) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    /// Makes a database and lists it.
    pub fn create(&self, id: DatabaseId, name: &str) {
        self.open(id);
        self.list(id, name);
    }

    /// Lists a database in the catalogue.
    pub fn list(&self, id: DatabaseId, name: &str) {
        let row = "INSERT INTO databases VALUES (?, ?, '2026-01-01T00:00:00.000Z', NULL, NULL, 1)";
        let params = vec![Value::Text(id.to_string()), Value::Text(name.into())];
        self.write(DatabaseId::CATALOGUE, row, params);
    }

    /// Deletes a database from the catalogue.
    pub fn delete(&self, id: DatabaseId) {
        let sql = "DELETE FROM databases WHERE uuid = ?";
        self.write(
            DatabaseId::CATALOGUE,
            sql,
            vec![Value::Text(id.to_string())],
        );
    }

    /// Commits and ships one transaction. Returns the position it leads to.
    pub fn write(&self, id: DatabaseId, sql: &str, params: Vec<Value>) -> Position {
        let mut state = self.state();
        let origin = state.databases.get_mut(&id).expect("the database exists");
        let statement = Statement {
            sql: sql.to_owned(),
            params,
        };
        let stamp = Stamp {
            request: None,
            proposed_at_ms: 0,
            after: Seq::ZERO,
        };
        let control = Control::until(Instant::now() + Duration::from_secs(10));
        let mut sink = CatalogueReader::default();
        let transaction = origin
            .owner
            .execute(&[statement], &stamp, &control, &mut sink)
            .expect("the statement runs")
            .expect("the statement writes");
        let next = transaction.header().next;
        origin.owner.acknowledge(next.seq).unwrap();
        origin.history.push(transaction);
        state.ship();
        next
    }

    pub fn position(&self, id: DatabaseId) -> Position {
        self.state().databases[&id]
            .owner
            .position()
            .expect("identified")
    }

    pub fn bookmark(&self, id: DatabaseId) -> Bookmark {
        Bookmark::issue(&KEY, id, self.position(id))
    }

    pub fn page_count(&self, id: DatabaseId) -> usize {
        self.state().databases[&id]
            .database
            .snapshot()
            .unwrap()
            .page_count() as usize
    }

    /// Ships what was held back.
    pub fn resume(&self) {
        let mut state = self.state();
        state.shipping = true;
        state.ship();
    }

    /// Ships one held back transaction of each database.
    pub fn trickle(&self) {
        self.state().ship_up_to(1);
    }

    /// Sends what is left of images that were held.
    pub fn release_images(&self) {
        let mut state = self.state();
        state.holding_images = false;
        for connection in state.connections.values_mut() {
            for (id, rest, next) in std::mem::take(&mut connection.held) {
                rest.into_iter()
                    .for_each(|message| connection.send(message));
                connection.following.insert(id, next);
            }
        }
        state.ship();
    }

    /// Holds transactions back.
    pub fn pause(&self) {
        self.state().shipping = false;
    }

    /// Forgets all transactions: copies that are behind can only be continued from their pages.
    pub fn forget(&self) {
        let mut state = self.state();
        for origin in state.databases.values_mut() {
            origin.history.clear();
        }
    }

    /// The database file with everything in it.
    pub fn file(&self, id: DatabaseId) -> Vec<u8> {
        let mut state = self.state();
        let origin = state.databases.get_mut(&id).unwrap();
        origin.owner.checkpoint(CheckpointMode::Truncate).unwrap();
        std::fs::read(self.directory_of(id).join("main.db")).unwrap()
    }

    pub fn send(&self, message: &SourceMessage) {
        for connection in self.state().connections.values() {
            connection.send(message.encode());
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.silence();
    }
}

impl State {
    /// Ships what the connections have not got yet.
    fn ship(&mut self) {
        if !self.shipping {
            return;
        }
        self.ship_up_to(usize::MAX);
        if !self.beating {
            return;
        }
        let term = self.term;
        for connection in self.connections.values_mut() {
            if let Some(stamp) = connection.asked.take() {
                connection.send(SourceMessage::Current { stamp, term }.encode());
                self.seen.answered += 1;
            }
        }
    }

    /// Ships at most so many transactions of each database.
    fn ship_up_to(&mut self, count: usize) {
        let State {
            databases,
            connections,
            term,
            tamper,
            ..
        } = self;
        for connection in connections.values_mut() {
            for (id, next) in &mut connection.following {
                let history = &databases[id].history;
                let end = history.len().min(next.saturating_add(count));
                for transaction in &history[*next..end] {
                    if let Some(bytes) = message(*term, transaction, tamper.take()) {
                        let _ = connection.out.send((Instant::now(), bytes));
                    }
                }
                *next = end;
            }
        }
    }

    fn handle(&mut self, number: u64, message: FollowerMessage) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        match message {
            FollowerMessage::Hello { node, term, .. } => self.seen.hellos.push((node, term)),
            FollowerMessage::Follow { database, position } => {
                self.seen.follows.push((database, position));
                let Some(origin) = self.databases.get(&database) else {
                    connection.send(SourceMessage::Dropped { database }.encode());
                    return;
                };
                match next_after(origin, position) {
                    Some(next) => {
                        connection.following.insert(database, next);
                    }
                    None => {
                        connection.send(SourceMessage::NeedHashes { database }.encode());
                    }
                }
                self.ship();
            }
            FollowerMessage::Unfollow { database } => {
                self.seen.unfollows.push(database);
                connection.following.remove(&database);
            }
            FollowerMessage::Hashes {
                database,
                first,
                last,
                hashes,
            } => {
                let all = connection.hashes.entry(database).or_default();
                assert_eq!(first.0 as usize, all.len() + 1);
                all.extend(hashes);
                if last {
                    let hashes = connection.hashes.remove(&database).unwrap();
                    self.seen.hashes.push((database, hashes.len()));
                    self.send_image(number, database, &hashes);
                }
            }
            FollowerMessage::Applied { confirmations } => self.seen.applied.extend(confirmations),
            FollowerMessage::Echo { .. } => self.seen.echoes += 1,
            FollowerMessage::Ask { stamp } => {
                assert!(self.asks, "asked without being told that it may");
                connection.asked = Some(stamp);
                self.ship();
            }
        }
    }

    fn send_image(&mut self, number: u64, database: DatabaseId, hashes: &[u64]) {
        let connection = self.connections.get_mut(&number).unwrap();
        let origin = &self.databases[&database];
        let mut snapshot = origin.database.snapshot().unwrap();
        let position = snapshot.position();
        let page_count = snapshot.page_count();
        let begin = SourceMessage::ImageBegin {
            database,
            term: self.term,
            position,
            page_count,
        };
        connection.send(begin.encode());
        let mut held = self.holding_images.then(Vec::new);
        let mut send = |message: SourceMessage| match &mut held {
            Some(held) => held.push(message.encode()),
            None => connection.send(message.encode()),
        };
        let mut pages = PagesBuilder::default();
        let mut sent = 0;
        for number in 1..=page_count {
            let mut image = [0; PAGE_SIZE];
            snapshot.page(PageNo(number), &mut image).unwrap();
            let hash = page_hash(PageNo(number), &image);
            if hashes.get(number as usize - 1) == Some(&hash) {
                continue;
            }
            pages.push(PageNo(number), &image);
            sent += 1;
            if pages.len() == PAGES_PER_MESSAGE_MAX.min(4) {
                send(SourceMessage::Pages {
                    database,
                    pages: pages.take(),
                });
            }
            if self.image_pages_max.is_some_and(|max| sent >= max) {
                self.seen.pages_sent += sent;
                return;
            }
        }
        if !pages.is_empty() {
            send(SourceMessage::Pages {
                database,
                pages: pages.take(),
            });
        }
        send(SourceMessage::ImageEnd { database });
        self.seen.pages_sent += sent;
        let next = next_after(origin, Some(position)).expect("the newest state");
        match held {
            Some(held) => connection.held.push((database, held, next)),
            None => drop(connection.following.insert(database, next)),
        }
        self.ship();
    }
}

/// Where the history goes on after a position, if it does.
fn next_after(origin: &Origin, position: Option<Position>) -> Option<usize> {
    let position = position?;
    if origin.owner.position() == Some(position) {
        return Some(origin.history.len());
    }
    origin
        .history
        .iter()
        .position(|transaction| transaction.header().base == position)
}

fn message(term: Term, transaction: &Transaction, tamper: Option<Tamper>) -> Option<Bytes> {
    let message = |term, transaction: &Transaction| {
        SourceMessage::Transaction {
            term,
            transaction: transaction.clone(),
        }
        .encode()
    };
    Some(match tamper {
        None => message(term, transaction),
        Some(Tamper::Lose) => return None,
        Some(Tamper::Term(term)) => message(term, transaction),
        Some(Tamper::Flip) => {
            let mut bytes = message(term, transaction).to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes.into()
        }
        Some(Tamper::OtherContent) => {
            let mut builder = tidemark_protocol::TransactionBuilder::new();
            for (page, image) in transaction.pages() {
                let mut image = *image;
                image[PAGE_SIZE - 1] ^= 1;
                builder.push(page, &image);
            }
            message(term, &builder.finish(*transaction.header(), &[]).unwrap())
        }
    })
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = stop.cancelled() => return,
        };
        tokio::spawn(connection(stream, Arc::clone(&state)));
    }
}

/// Messages from so many bytes on go out packed, to a replica that wants it.
const PACKED_BYTES_MIN: usize = 256;

fn packed(packer: &mut Packer, message: &Bytes, spoil: Option<Spoil>) -> Option<Bytes> {
    let mut pack = |message: &Bytes, fewer: u32| {
        let message_bytes = u32::try_from(message.len()).unwrap() - fewer;
        let mut packed = packer.pack(message).unwrap();
        if let Some(Spoil::Flip) = spoil {
            let middle = packed.len() / 2;
            packed[middle] ^= 1;
        }
        let packed = packed.into();
        SourceMessage::Packed {
            message_bytes,
            packed,
        }
        .encode()
    };
    match spoil {
        None | Some(Spoil::Flip) => Some(pack(message, 0)),
        Some(Spoil::Lose) => {
            pack(message, 0);
            None
        }
        Some(Spoil::Nest) => {
            let inner = pack(message, 0);
            Some(pack(&inner, 0))
        }
        Some(Spoil::Shorten) => Some(pack(message, 1)),
    }
}

async fn connection(stream: tokio::net::TcpStream, state: Arc<Mutex<State>>) {
    let asks = state.lock().unwrap().asks;
    let mut packer = None;
    #[allow(clippy::result_large_err)]
    let check = |request: &Request, mut response: Response| {
        if asks {
            let understood = HeaderValue::from_static(ASKS);
            response.headers_mut().insert(STREAM, understood);
        }
        assert_eq!(request.uri().path(), "/tidemark/v1/stream");
        let words = request.headers()[STREAM].to_str().unwrap();
        packer = says(words, PACKED).then(|| Packer::new().unwrap());
        let authorization = request.headers()["authorization"].to_str().unwrap();
        assert_eq!(authorization, format!("Bearer {SECRET}"));
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else {
        return;
    };
    let Some(Ok(Message::Binary(hello))) = socket.next().await else {
        return;
    };
    let hello = FollowerMessage::decode(&hello).unwrap();
    let (out, mut outgoing) = mpsc::unbounded_channel();
    let end = CancellationToken::new();
    let number = {
        let mut state = state.lock().unwrap();
        state.next_connection += 1;
        let number = state.next_connection;
        let welcome = SourceMessage::Welcome {
            node: NodeId(1),
            term: state.term,
            region: "WEUR".parse().unwrap(),
            heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).unwrap(),
        };
        let connection = Connection {
            out,
            asked: None,
            following: HashMap::new(),
            hashes: HashMap::new(),
            held: Vec::new(),
            end: end.clone(),
        };
        connection.send(welcome.encode());
        state.connections.insert(number, connection);
        state.handle(number, hello);
        number
    };
    let mut beat = tokio::time::interval(HEARTBEAT);
    let mut leaving: Option<(Instant, Bytes)> = None;
    loop {
        let due = leaving.as_ref().map(|(since, _)| {
            let latency = state.lock().unwrap().latency;
            (*since + latency).into()
        });
        tokio::select! {
            first = outgoing.recv(), if leaving.is_none() => {
                let Some(first) = first else { return };
                leaving = Some(first);
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                let (_, mut bytes) = leaving.take().expect("it is due");
                if let Some(packer) = packer.as_mut().filter(|_| bytes.len() >= PACKED_BYTES_MIN) {
                    let spoil = state.lock().unwrap().spoil.take();
                    let Some(packed) = packed(packer, &bytes, spoil) else { continue };
                    bytes = packed;
                }
                if socket.send(Message::Binary(bytes)).await.is_err() { return }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let message = FollowerMessage::decode(&bytes).unwrap();
                    state.lock().unwrap().handle(number, message);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            _ = beat.tick() => {
                let state = state.lock().unwrap();
                let message = SourceMessage::Heartbeat { stamp: 1, term: state.term };
                if let Some(connection) = state.connections.get(&number).filter(|_| state.beating) {
                    connection.send(message.encode());
                }
            }
            () = end.cancelled() => return,
        }
    }
    state.lock().unwrap().connections.remove(&number);
}

/// Copies the files of a node as they lie there, as a crash would leave them.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
