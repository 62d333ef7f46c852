//! One replica's connection: its requests in, what it is behind of out.
//!
//! A single task owns the connection. It loops: take what the replica says, or news of a commit, or a
//! heartbeat's turn, or a piece of an image; then send what each database with news has to send.
//!
//! ```text
//! confirmed <= sent <= newest in memory             (per database)
//! ```
//!
//! A replica that asks whether it has everything is answered in three steps ([`Question`]): consensus confirms by
//! the lease that this node leads, after which whatever was committed before is in memory and marked as news;
//! what of that is not sent yet is sent; then the answer goes out. One question at a time: the next one that is
//! looked at is the newest. Databases of which an image is awaited are left out: the replica takes no answer for
//! them to a question that it put before the image had ended.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::{SplitSink, SplitStream};
use tidemark_engine::wait_on;
use tidemark_protocol::stream::{
    FollowerMessage, SourceMessage, StreamError, VOTER_URL_BYTES_MAX, VOTERS_PER_MESSAGE_MAX,
};
use tidemark_protocol::{DatabaseId, NodeId, Position, Region, Regions, Term};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::followers::{Follower, Followers};
use super::image::{self, HashesError, HashesInProgress};
use super::listed::Listed;
use super::recent::{After, Recent};
use super::sender::Sender;
use crate::cell::Environment;
use crate::consensus::Consensus;
use crate::databases::Databases;
use crate::metrics::Metrics;

/// Bytes sent of one database before another gets its turn.
const TURN_BYTES_MAX: usize = 1 << 20;
/// Messages of an image made ahead of the connection.
const IMAGE_MESSAGES_AHEAD: usize = 4;
/// Messages of a replica read ahead of being handled.
const MESSAGES_AHEAD: usize = 64;
/// Time for the first message, and for any one message to leave: the largest, on a slow link.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Time for consensus to confirm the lease.
const CONFIRM_WAIT: Duration = Duration::from_secs(1);
/// Heartbeats without an echo after which the replica is taken for gone.
const ECHOES_MISSED_MAX: u32 = 20;

/// What all sessions of a node share.
#[derive(Debug)]
pub(crate) struct ShipContext {
    pub(crate) node: NodeId,
    pub(crate) region: Region,
    pub(crate) databases: Arc<Databases>,
    pub(crate) regions: Regions,
    /// The databases of the catalogue, with the jurisdictions that they must not leave.
    pub(crate) listed: Listed,
    pub(crate) recent: Arc<Recent>,
    pub(crate) followers: Arc<Followers>,
    /// The term in which this node serves as leader.
    pub(crate) serving: watch::Receiver<Option<Term>>,
    pub(crate) consensus: Consensus,
    pub(crate) environment: Environment,
    pub(crate) heartbeat: Duration,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("the connection broke: {0}")]
    Connection(String),
    #[error("the replica closed the connection")]
    Closed,
    #[error("the replica sent something unreadable")]
    Message(#[from] StreamError),
    #[error("the replica sent a frame that is no binary message")]
    Frame,
    #[error("the replica began with {got}, expected a hello")]
    NoHello { got: String },
    #[error("the replica has seen term {theirs}, this node ships under {ours}")]
    OldTerm { theirs: Term, ours: Term },
    #[error("this node leads no more")]
    SteppedDown,
    #[error("the replica did not {what} within {limit:?}")]
    Silent { what: &'static str, limit: Duration },
    #[error("the thread that made a message panicked")]
    Thread,
    #[error("a message could not be packed")]
    Pack(#[source] std::io::Error),
    #[error(transparent)]
    Hashes(#[from] HashesError),
}

/// What a replica says about itself when it asks for the stream.
#[derive(Debug)]
pub(crate) struct Request {
    /// Where it says that it is reached.
    pub(crate) url: Option<String>,
    /// Whether it wants to know who votes.
    pub(crate) told_voters: bool,
    /// Whether larger messages are to come packed.
    pub(crate) packed: bool,
}

/// Serves one replica until either side has enough.
pub(crate) async fn serve(context: Arc<ShipContext>, request: Request, socket: WebSocket) {
    let (sink, stream) = socket.split();
    let (messages, inbox) = mpsc::channel(MESSAGES_AHEAD);
    // Reading has a task of its own, so that a large send never keeps echoes from being read.
    let reading = tokio::spawn(read(stream, messages));
    let result = Session::begin(&context, request, sink, inbox).await;
    let (node, error) = match result {
        Ok(session) => (Some(session.follower.node()), session.run().await),
        Err(error) => (None, error),
    };
    reading.abort();
    if !context.stop.is_cancelled() {
        tracing::info!(replica = ?node, %error, "replica stream ended");
    }
}

async fn read(
    mut stream: SplitStream<WebSocket>,
    to: mpsc::Sender<Result<FollowerMessage, SessionError>>,
) {
    while let Some(message) = stream.next().await {
        let result = match message {
            Ok(Message::Binary(bytes)) => FollowerMessage::decode(&bytes).map_err(Into::into),
            Ok(Message::Close(_)) => Err(SessionError::Closed),
            // No replica sends one: it may be a message whose kind was damaged.
            Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_)) => Err(SessionError::Frame),
            Err(error) => Err(SessionError::Connection(error.to_string())),
        };
        let ended = result.is_err();
        if to.send(result).await.is_err() || ended {
            return;
        }
    }
}

/// How far one database has been sent.
#[derive(Debug)]
enum Sent {
    /// Everything up to here.
    UpTo(Position),
    /// Nothing that counts: the replica's page hashes are awaited, or its image is on the way.
    Image,
}

/// How far the answer to a replica's question is.
enum Question {
    /// Consensus is asked whether this node leads.
    Confirming(u64, Pin<Box<dyn Future<Output = bool> + Send>>),
    /// These are to be sent up to here first.
    Sending(u64, HashMap<DatabaseId, Position>),
}

struct Session<'a> {
    context: &'a Arc<ShipContext>,
    sender: Sender,
    inbox: mpsc::Receiver<Result<FollowerMessage, SessionError>>,
    follower: Arc<Follower>,
    term: Term,
    sent: HashMap<DatabaseId, Sent>,
    hashes: HashesInProgress,
    /// Images to be made, one at a time.
    images: VecDeque<(DatabaseId, Vec<u64>)>,
    /// The image being made, in pieces.
    image: Option<(DatabaseId, mpsc::Receiver<SourceMessage>)>,
    /// Where the image on the way leads.
    image_position: Option<Position>,
    /// The newest question that is not looked at yet.
    asked: Option<u64>,
    question: Option<Question>,
    /// The voters that the replica was told of, if it wants to know.
    told: Option<Vec<(NodeId, String)>>,
    /// Heartbeats sent since the last echo.
    unechoed: u32,
    /// What the stamps of heartbeats count from.
    started: Instant,
}

impl<'a> Session<'a> {
    async fn begin(
        context: &'a Arc<ShipContext>,
        request: Request,
        sink: SplitSink<WebSocket, Message>,
        mut inbox: mpsc::Receiver<Result<FollowerMessage, SessionError>>,
    ) -> Result<Self, SessionError> {
        let hello = timeout(PATIENCE, inbox.recv())
            .await
            .map_err(|_| SessionError::Silent {
                what: "say hello",
                limit: PATIENCE,
            })?
            .ok_or(SessionError::Closed)??;
        let FollowerMessage::Hello {
            node,
            term: theirs,
            region,
        } = hello
        else {
            return Err(SessionError::NoHello {
                got: format!("{hello:?}"),
            });
        };
        let term = (*context.serving.borrow()).ok_or(SessionError::SteppedDown)?;
        if theirs > term {
            return Err(SessionError::OldTerm { theirs, ours: term });
        }
        tracing::info!(replica = %node, %region, packed = request.packed, "replica connected");
        let threads = Arc::clone(&context.environment.threads);
        let metrics = Arc::clone(&context.metrics);
        let mut session = Self {
            context,
            sender: Sender::new(sink, request.packed, threads, metrics)?,
            inbox,
            follower: context.followers.connect(node, region, request.url),
            term,
            sent: HashMap::new(),
            hashes: HashesInProgress::default(),
            images: VecDeque::new(),
            image: None,
            image_position: None,
            asked: None,
            question: None,
            told: request.told_voters.then(Vec::new),
            unechoed: 0,
            started: Instant::now(),
        };
        let heartbeat_ms = u32::try_from(context.heartbeat.as_millis()).unwrap_or(u32::MAX);
        session
            .sender
            .send(SourceMessage::Welcome {
                node: context.node,
                term,
                region: context.region.clone(),
                heartbeat_ms,
            })
            .await?;
        Ok(session)
    }

    async fn run(mut self) -> SessionError {
        self.context.metrics.followers.inc();
        let error = match self.work().await {
            Ok(never) => never,
            Err(error) => error,
        };
        self.context.metrics.followers.dec();
        self.sender.close().await;
        error
    }

    async fn work(&mut self) -> Result<SessionError, SessionError> {
        let started = self.started;
        let follower = Arc::clone(&self.follower);
        let mut serving = self.context.serving.clone();
        let mut heartbeat = interval(self.context.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.context.stop.cancelled() => return Ok(SessionError::SteppedDown),
                message = self.inbox.recv() => {
                    self.on_message(message.ok_or(SessionError::Closed)??).await?;
                }
                piece = next_piece(&mut self.image) => self.on_image_piece(piece).await?,
                () = follower.news() => {}
                leads = confirmed(&mut self.question) => self.on_confirmed(leads),
                _ = heartbeat.tick() => {
                    let stamp = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.sender.send(SourceMessage::Heartbeat { stamp, term: self.term }).await?;
                    self.tell_voters().await?;
                    // Counted, not timed: while a large message leaves, none is sent and none missed.
                    self.unechoed += 1;
                    if self.unechoed > ECHOES_MISSED_MAX {
                        let limit = self.context.heartbeat * ECHOES_MISSED_MAX;
                        return Err(SessionError::Silent { what: "echo a heartbeat", limit });
                    }
                }
                changed = serving.changed() => {
                    if changed.is_err() || *serving.borrow_and_update() != Some(self.term) {
                        return Ok(SessionError::SteppedDown);
                    }
                }
            }
            self.send_news().await?;
            self.answer_question().await?;
        }
    }

    /// Says who votes, if the follower wants to know it and does not know it yet.
    async fn tell_voters(&mut self) -> Result<(), SessionError> {
        let Some(told) = &mut self.told else {
            return Ok(());
        };
        let members = self.context.consensus.members().members;
        let voters = members.into_iter().filter(|member| member.voter);
        // A node that began alone may have none.
        let reached =
            voters.filter(|voter| (1..=VOTER_URL_BYTES_MAX).contains(&voter.address.len()));
        let voters: Vec<_> = reached
            .map(|voter| (voter.node, voter.address))
            .take(VOTERS_PER_MESSAGE_MAX)
            .collect();
        if voters != *told {
            told.clone_from(&voters);
            self.sender.send(SourceMessage::Voters { voters }).await?;
        }
        Ok(())
    }

    /// It is known whether this node led when it looked.
    fn on_confirmed(&mut self, leads: bool) {
        let Some(Question::Confirming(stamp, _)) = self.question.take() else {
            return;
        };
        if !leads {
            return; // the replica asks again
        }
        let missing = self.follower.fresh().into_iter().filter_map(|database| {
            let newest = self.context.recent.newest(database)?;
            Some((database, newest))
        });
        self.question = Some(Question::Sending(stamp, missing.collect()));
    }

    /// Says that everything was sent, if it was, and looks at the next question.
    async fn answer_question(&mut self) -> Result<(), SessionError> {
        if let Some(Question::Sending(stamp, missing)) = &mut self.question {
            // Of what is sent as an image the answer says nothing, as the replica knows from the announcement.
            missing.retain(|database, newest| {
                matches!(self.sent.get(database), Some(Sent::UpTo(at)) if !at.reached(newest))
            });
            if missing.is_empty() {
                let (stamp, term) = (*stamp, self.term);
                self.question = None;
                self.sender
                    .send(SourceMessage::Current { stamp, term })
                    .await?;
            }
        }
        if self.question.is_none()
            && let Some(stamp) = self.asked.take()
        {
            let (consensus, term) = (self.context.consensus.clone(), self.term);
            let confirm = async move {
                let confirmed = consensus.confirm_by_lease(CONFIRM_WAIT).await;
                confirmed.is_ok() && consensus.fence().holds(term)
            };
            self.question = Some(Question::Confirming(stamp, Box::pin(confirm)));
        }
        Ok(())
    }

    async fn on_message(&mut self, message: FollowerMessage) -> Result<(), SessionError> {
        match message {
            FollowerMessage::Hello { .. } => {}
            FollowerMessage::Follow { database, position } => {
                self.on_follow(database, position).await?;
            }
            FollowerMessage::Unfollow { database } => {
                self.sent.remove(&database);
                self.images.retain(|(waiting, _)| *waiting != database);
                self.hashes.forget(database);
                self.follower.unfollow(database);
            }
            FollowerMessage::Hashes {
                database,
                first,
                last,
                hashes,
            } => {
                if let Some(hashes) = self.hashes.add(database, first, last, hashes)? {
                    self.images.push_back((database, hashes));
                    self.next_image();
                }
            }
            FollowerMessage::Applied { confirmations } => {
                for (database, position) in confirmations {
                    self.follower.confirmed(database, position);
                }
            }
            FollowerMessage::Ask { stamp } => self.asked = Some(stamp),
            FollowerMessage::Echo { stamp } => {
                self.unechoed = 0;
                let sent = Duration::from_micros(stamp);
                // A stamp that was never given says nothing.
                if let Some(round_trip) = self.started.elapsed().checked_sub(sent) {
                    self.follower.echoed(round_trip);
                }
            }
        }
        Ok(())
    }

    async fn on_follow(
        &mut self,
        database: DatabaseId,
        position: Option<Position>,
    ) -> Result<(), SessionError> {
        let ShipContext {
            databases,
            regions,
            listed,
            ..
        } = &**self.context;
        let may_leave = listed.may_lie_in(database, self.follower.region(), regions);
        if !databases.has(database) || !may_leave {
            return self.sender.send(SourceMessage::Dropped { database }).await;
        }
        match position {
            Some(position) => {
                self.sent.insert(database, Sent::UpTo(position));
            }
            None => {
                self.sent.insert(database, Sent::Image);
                self.sender
                    .send(SourceMessage::NeedHashes { database })
                    .await?;
            }
        }
        // From here on commits mark it; what came before is found by the position.
        self.follower.follow(database, position);
        Ok(())
    }

    /// Sends what the databases with news have to send, a turn each, until there is none.
    async fn send_news(&mut self) -> Result<(), SessionError> {
        let (fresh, dropped) = self.follower.take_news();
        for database in dropped {
            self.sent.remove(&database);
            self.sender
                .send(SourceMessage::Dropped { database })
                .await?;
        }
        let mut again = HashSet::new();
        for database in fresh {
            if self.send_turn(database).await? {
                again.insert(database);
            }
        }
        for database in again {
            self.follower.mark(database);
        }
        Ok(())
    }

    /// True if there is more.
    async fn send_turn(&mut self, database: DatabaseId) -> Result<bool, SessionError> {
        let Some(Sent::UpTo(position)) = self.sent.get(&database) else {
            return Ok(false);
        };
        match self
            .context
            .recent
            .after(database, *position, TURN_BYTES_MAX)
        {
            After::UpToDate => Ok(false),
            After::Gap => {
                self.sent.insert(database, Sent::Image);
                self.sender
                    .send(SourceMessage::NeedHashes { database })
                    .await?;
                Ok(false)
            }
            After::Transactions(transactions) => {
                for transaction in transactions {
                    let next = transaction.header().next;
                    let bytes = transaction.encoded().len() as u64;
                    let term = self.term;
                    let message = SourceMessage::Transaction { term, transaction };
                    self.sender.feed(message).await?;
                    self.follower.sent(database, next);
                    self.sent.insert(database, Sent::UpTo(next));
                    self.context.metrics.shipped.inc();
                    self.context.metrics.shipped_bytes.inc_by(bytes);
                }
                self.sender.flush().await?;
                Ok(true)
            }
        }
    }

    /// Begins the next image, if none is on the way.
    fn next_image(&mut self) {
        while self.image.is_none() {
            let Some((database, hashes)) = self.images.pop_front() else {
                return;
            };
            if !self.context.databases.has(database) {
                continue;
            }
            let (pieces, receiver) = mpsc::channel(IMAGE_MESSAGES_AHEAD);
            self.image = Some((database, receiver));
            self.context.metrics.images.inc();
            let (context, term) = (Arc::clone(self.context), self.term);
            // Opening it may take long: a task of its own. Heartbeats tell a replica that the work goes on.
            tokio::spawn(async move {
                // Whatever it fails of, the stream of pieces ends without an end: the replica asks again.
                let Some(line) = context.databases.wake(database).await else {
                    return;
                };
                let source = Arc::clone(line.database());
                let threads = Arc::clone(&context.environment.threads);
                context.environment.threads.run(Box::new(move || {
                    let deliver = |piece: Option<SourceMessage>| {
                        piece.is_none_or(|piece| wait_on(&*threads, pieces.send(piece)).is_ok())
                    };
                    if let Err(error) = image::send(&source, term, &hashes, deliver) {
                        tracing::error!(%database, %error, "cannot read a state to send");
                    }
                }));
            });
        }
    }

    async fn on_image_piece(&mut self, piece: Option<SourceMessage>) -> Result<(), SessionError> {
        let Some(piece) = piece else {
            let made = self.image.take().map(|(database, _)| database);
            let unfinished = made.filter(|id| matches!(self.sent.get(id), Some(Sent::Image)));
            if let Some(database) = unfinished {
                // Others go on. The replica asks again for what its catalogue still lists.
                tracing::warn!(%database, "no whole state could be read for a replica");
                self.sent.remove(&database);
                self.follower.unfollow(database);
                self.sender
                    .send(SourceMessage::Dropped { database })
                    .await?;
            }
            self.next_image();
            return Ok(());
        };
        // Before it is sent, which takes it: if that fails, the session ends.
        if let SourceMessage::ImageBegin { position, .. } = &piece {
            self.image_position = Some(*position);
        } else if let SourceMessage::ImageEnd { database } = &piece {
            let position = self
                .image_position
                .take()
                .expect("an image begins before it ends");
            if let Some(sent) = self.sent.get_mut(database) {
                *sent = Sent::UpTo(position);
                self.follower.mark(*database);
            }
        }
        self.sender.send(piece).await
    }
}

/// What consensus says to the question that it was asked.
async fn confirmed(question: &mut Option<Question>) -> bool {
    match question {
        Some(Question::Confirming(_, confirm)) => confirm.await,
        Some(Question::Sending(..)) | None => std::future::pending().await,
    }
}

async fn next_piece(
    image: &mut Option<(DatabaseId, mpsc::Receiver<SourceMessage>)>,
) -> Option<SourceMessage> {
    match image {
        Some((_, pieces)) => pieces.recv().await,
        None => std::future::pending().await,
    }
}
