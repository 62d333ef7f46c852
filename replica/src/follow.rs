//! The connection to the source: made, kept, and made again for ever.
//!
//! 1. Connect to one of the [`Sources`](crate::sources::Sources), WebSocket handshake, `Hello`, `Welcome`. A source of an older term is left at once; a
//!    newer term is written down before anything else of it is looked at.
//! 2. Every copy learns of the connection and says where it stands.
//! 3. What arrives is decoded, checked for its term, and put into the inbox of its database. Bytes that
//!    wait there are bounded over all databases: at the bound the socket is read no further, and TCP
//!    holds the source back.
//! 4. What the copies have to say goes out from the [`Outbox`].
//! 5. Any fault ends the connection; nothing that came in whole before it is lost.
//!
//! The term fences: once a newer leadership was seen, nothing of an older one is applied, not even after
//! a restart.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tidemark_protocol::headers::ADVERTISED;
use tidemark_protocol::stream::{
    ASKS, ENVELOPE_BYTES, FollowerMessage, PACKED, PAYLOAD_BYTES_MAX, SourceMessage, TOLD_VOTERS,
    says,
};
use tidemark_protocol::{DatabaseId, PAGE_SIZE, Term, headers};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Environment;
use crate::copy::Item;
use crate::core::Core;
use crate::inlet::Inlet;
use crate::lost::Lost;
use crate::node::SUCCESSOR_WAIT;
use crate::outbox::Outbox;
use crate::progress::{Counted, Progress};
use crate::soundings::ASK_EVERY;

/// Shortest and longest time between heartbeats that a source may announce.
const HEARTBEAT_BOUNDS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
/// Heartbeats that may fail to come before the connection is given up.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// Bytes read after which this task lets others of its thread have their turn: a source that is ahead would keep it
/// for as long as there is something to read.
const YIELD_BYTES: u64 = 256 << 10;

/// Longest pause while there are several nodes to look at: one of them leads as soon as they agree.
const SEARCH_PAUSE_MAX: Duration = Duration::from_millis(300);
/// The same as long as a successor is expected.
const SUCCESSOR_PAUSE_MAX: Duration = Duration::from_millis(100);

type Socket = WebSocketStream<Counted>;

/// Keeps the connection to the source.
pub(crate) struct Follower {
    core: Arc<Core>,
    environment: Environment,
    connections: u64,
}

/// What the source said of itself.
struct Welcomed {
    socket: Socket,
    outbox: Arc<Outbox>,
    silence_max: Duration,
    read: Progress,
    written: Progress,
}

impl Follower {
    pub(crate) fn new(core: Arc<Core>, environment: Environment) -> Self {
        Self {
            core,
            environment,
            connections: 0,
        }
    }

    /// Follows until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let core = Arc::clone(&self.core);
        let config = &core.config;
        let mut backoff = Backoff::new(config.backoff_min);
        while !stop.is_cancelled() {
            let lost = tokio::select! {
                lost = self.connection(&mut backoff) => lost,
                () = stop.cancelled() => return,
            };
            self.core.metrics().disconnect(lost.reason());
            let several = self.core.sources.several();
            let pause_max = if several {
                config.backoff_max.min(SEARCH_PAUSE_MAX)
            } else {
                config.backoff_max
            };
            let mut pause = backoff.pause(pause_max, &*self.environment.random);
            if several && self.core.alone_for() < SUCCESSOR_WAIT {
                pause = pause.min(SUCCESSOR_PAUSE_MAX);
            }
            let reason = with_causes(&lost);
            tracing::warn!(
                upstream = self.core.sources.now().url,
                reason,
                ?pause,
                "no stream"
            );
            self.core.sources.turn(lost.leader());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One connection, from the first byte to its end.
    async fn connection(&mut self, backoff: &mut Backoff) -> Lost {
        self.connections += 1;
        let Welcomed {
            socket,
            outbox,
            silence_max,
            read,
            written,
        } = match self.welcome().await {
            Ok(welcomed) => welcomed,
            Err(lost) => return lost,
        };
        let _down = Down {
            core: &self.core,
            outbox: &outbox,
        };
        let (sink, stream) = socket.split();
        // Dropping either half in the middle is safe: the connection ends with it.
        tokio::select! {
            lost = self.read(stream, &outbox, (silence_max, read), backoff) => lost,
            lost = write(sink, &outbox, silence_max, &written) => lost,
            complaint = outbox.broken() => Lost::Protocol { complaint },
            never = self.ask() => match never {},
        }
    }

    /// Asks the source time and again whether everything is here.
    async fn ask(&self) -> Infallible {
        loop {
            self.core.site.soundings.ask();
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn welcome(&self) -> Result<Welcomed, Lost> {
        let core = &self.core;
        let wait = core.config.connect_wait;
        let slow = |doing| move |_| Lost::Slow { doing, wait };

        let source = core.sources.now().upstream;
        let connecting = self.environment.connector.connect(&source.address);
        let io = timeout(wait, connecting)
            .await
            .map_err(slow("connecting"))?;
        let io = Counted::new(io.map_err(Lost::Connect)?);
        let (read, written) = (io.read(), io.written());

        let mut request = source.stream_url.as_str().into_client_request()?;
        let bearer = format!("Bearer {}", core.config.cluster_secret);
        let bearer = HeaderValue::from_str(&bearer).map_err(tungstenite::http::Error::from);
        let bearer = bearer.map_err(tungstenite::Error::from)?;
        request.headers_mut().insert("authorization", bearer);
        if let Some(url) = &core.config.advertise {
            let url = HeaderValue::from_str(url).map_err(tungstenite::http::Error::from);
            let url = url.map_err(tungstenite::Error::from)?;
            request.headers_mut().insert(ADVERTISED, url);
        }
        let words: &[&str] = if core.config.compress {
            &[TOLD_VOTERS, PACKED]
        } else {
            &[TOLD_VOTERS]
        };
        let words = HeaderValue::try_from(words.join(", ")).expect("words are ASCII");
        request.headers_mut().insert(headers::STREAM, words);
        let message_bytes_max = Some(ENVELOPE_BYTES + PAYLOAD_BYTES_MAX);
        let limits = WebSocketConfig::default()
            .max_message_size(message_bytes_max)
            .max_frame_size(message_bytes_max);
        let handshake = tokio_tungstenite::client_async_with_config(request, io, Some(limits));
        let (mut socket, answer) = timeout(wait, handshake)
            .await
            .map_err(slow("the handshake"))??;

        let asks = answer.headers().get(headers::STREAM);
        let asks = asks.and_then(|understood| understood.to_str().ok());
        let asks = asks.is_some_and(|understood| says(understood, ASKS));

        let hello = FollowerMessage::Hello {
            node: core.config.node,
            term: core.terms.newest(),
            region: core.config.region.clone(),
        };
        socket.send(Message::Binary(hello.encode())).await?;
        let first = timeout(wait, receive(&mut socket))
            .await
            .map_err(slow("the welcome"))??;
        let SourceMessage::Welcome {
            node,
            term,
            region,
            heartbeat_ms,
        } = first
        else {
            return Err(Lost::Protocol {
                complaint: "no welcome came first".to_owned(),
            });
        };
        self.see(term).await?;

        let heartbeat = Duration::from_millis(u64::from(heartbeat_ms));
        let heartbeat = heartbeat.clamp(HEARTBEAT_BOUNDS.0, HEARTBEAT_BOUNDS.1);
        let silence_max = heartbeat * HEARTBEATS_MISSED_MAX + core.config.silence_slack;
        tracing::info!(source = %node, %term, %region, ?heartbeat, "the stream is up");
        let outbox = Arc::new(Outbox::new(self.connections));
        core.heartbeat.heard();
        core.connected(&outbox, region);
        if asks {
            core.site.soundings.begin(&outbox);
        }
        Ok(Welcomed {
            socket,
            outbox,
            silence_max,
            read,
            written,
        })
    }

    /// Takes note of a term: an older one than seen before is refused, a newer one made durable.
    async fn see(&self, term: Term) -> Result<(), Lost> {
        let newest = self.core.terms.newest();
        if term < newest && !takes_old_terms() {
            self.core.metrics().old_terms.inc();
            return Err(Lost::OldTerm { got: term, newest });
        }
        if term <= newest {
            return Ok(());
        }
        let core = Arc::clone(&self.core);
        let written = self.core.on_thread(move || core.terms.raise(term)).await;
        let lost_thread = || Err(std::io::Error::other("the thread that wrote it panicked"));
        written.unwrap_or_else(lost_thread).map_err(Lost::Term)?;
        tracing::info!(old = %newest, new = %term, "the term rose");
        Ok(())
    }

    async fn read(
        &self,
        mut stream: SplitStream<Socket>,
        outbox: &Arc<Outbox>,
        (silence_max, read): (Duration, Progress),
        backoff: &mut Backoff,
    ) -> Lost {
        let mut inlet = Inlet::default();
        let mut yielded_at = 0;
        loop {
            // The time that a full queue takes does not count as silence, nor does a large message.
            let received = match read.wait(silence_max, receive(&mut stream)).await {
                Ok(Ok(message)) => self.dispatch(message, &mut inlet, outbox, backoff).await,
                Ok(Err(lost)) => Err(lost),
                Err(_) => Err(Lost::Silent {
                    silence: silence_max,
                }),
            };
            if let Err(lost) = received {
                return lost;
            }
            let moved = read.moved() + inlet.unpacked_bytes();
            if moved - yielded_at >= YIELD_BYTES {
                yielded_at = moved;
                tokio::task::yield_now().await;
            }
        }
    }

    async fn dispatch(
        &self,
        message: SourceMessage,
        inlet: &mut Inlet,
        outbox: &Arc<Outbox>,
        backoff: &mut Backoff,
    ) -> Result<(), Lost> {
        let message = inlet.unpacked(message, &*self.environment.threads).await?;
        match message {
            SourceMessage::Transaction { term, transaction } => {
                self.see(term).await?;
                let database = transaction.header().database;
                let share = self.share(transaction.encoded().len()).await;
                self.feed(database, Item::Transaction(transaction, share));
            }
            SourceMessage::NeedHashes { database } => self.need_hashes(database, outbox),
            SourceMessage::ImageBegin {
                database,
                term,
                position,
                page_count,
            } => {
                self.see(term).await?;
                self.feed(database, Item::ImageBegin(position, page_count));
            }
            SourceMessage::Pages { database, pages } => {
                let share = self.share(pages.iter().count() * PAGE_SIZE).await;
                self.feed(database, Item::Pages(pages, share));
            }
            SourceMessage::ImageEnd { database } => self.feed(database, Item::ImageEnd),
            SourceMessage::Dropped { database } => self.feed(database, Item::Dropped),
            SourceMessage::Heartbeat { stamp, term } => {
                self.see(term).await?;
                self.core.heartbeat.heard();
                outbox.echo(stamp);
                backoff.reset(); // it has lived for a while
            }
            SourceMessage::Current { stamp, term } => {
                self.see(term).await?;
                self.core.site.soundings.answered(stamp);
            }
            SourceMessage::Voters { voters } => self.core.sources.told(&voters),
            SourceMessage::Welcome { .. } => {
                return Err(Lost::Protocol {
                    complaint: "a second welcome".to_owned(),
                });
            }
            SourceMessage::Packed { .. } => {
                return Err(Lost::Protocol {
                    complaint: "a packed message in a packed one".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn feed(&self, database: DatabaseId, item: Item) {
        // One that was dropped here, and not yet there, has no copy any more.
        if let Some(copy) = self.core.copy(database) {
            copy.feed(item);
        }
    }

    /// Waits for a place among the databases that resynchronise. The source sends nothing of this
    /// database meanwhile, so nothing is overtaken.
    fn need_hashes(&self, database: DatabaseId, outbox: &Arc<Outbox>) {
        let Some(copy) = self.core.copy(database) else {
            return;
        };
        copy.interrupted();
        let places = Arc::clone(&self.core.site.resyncs);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            copy.feed(Item::NeedHashes(outbox.number(), place));
            return;
        }
        let outbox = Arc::clone(outbox);
        tokio::spawn(async move {
            tokio::select! {
                place = places.acquire_owned() => {
                    let Ok(place) = place else { return };
                    copy.feed(Item::NeedHashes(outbox.number(), place));
                }
                () = outbox.ended() => {}
            }
        });
    }

    /// Waits until so many bytes may queue.
    async fn share(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = bytes.min(self.core.config.queue_bytes_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let semaphore = Arc::clone(&self.core.site.queue_bytes);
        let permit = semaphore.acquire_many_owned(bytes).await;
        permit.expect("the semaphore is never closed")
    }
}

/// Tells the copies when the connection is over, however it ends.
struct Down<'a> {
    core: &'a Core,
    outbox: &'a Outbox,
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        self.outbox.end();
        self.core.site.soundings.end();
        self.core.disconnected(self.outbox);
    }
}

/// The next message of the source. No source sends frames of other kinds: one may be a message whose kind was damaged,
/// and a message that is passed over would be missed for as long as the connection lasts.
async fn receive(
    socket: &mut (impl StreamExt<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> Result<SourceMessage, Lost> {
    match socket.next().await {
        Some(Ok(Message::Binary(bytes))) => Ok(SourceMessage::decode(&bytes)?),
        Some(Ok(Message::Close(_))) | None => Err(Lost::Closed),
        Some(Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {
            Err(Lost::Protocol {
                complaint: "a frame that is no binary message".to_owned(),
            })
        }
        Some(Err(error)) => Err(error.into()),
    }
}

/// Sends what the outbox holds, as it fills.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    outbox: &Outbox,
    wait: Duration,
    written: &Progress,
) -> Lost {
    loop {
        outbox.filled().await;
        let sending = async {
            while let Some(message) = outbox.next() {
                sink.feed(Message::Binary(message.encode())).await?;
            }
            sink.flush().await
        };
        match written.wait(wait, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => {
                return Lost::Slow {
                    doing: "sending",
                    wait,
                };
            }
        }
    }
}

/// Never, but where a test wants to see that it is noticed.
fn takes_old_terms() -> bool {
    fail::fail_point!("sabotage::term", |_| true);
    false
}

/// An error with its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
