//! What goes out to one replica: encoded, packed if it wants that and it pays, and given to the connection.
//!
//! Packing is for the link: where that is fast it would be slower than sending. What comes by the way, a few
//! transactions at a time, is always packed, for bytes between regions are paid for. What comes in bulk, images and the
//! transactions that a replica has missed, is packed as long as the link is found to take less than
//! [`FAST_BYTES_PER_SECOND`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use tidemark_engine::{Threads, on_thread};
use tidemark_net::Packer;
use tidemark_protocol::stream::SourceMessage;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::session::{PATIENCE, SessionError};
use crate::metrics::Metrics;

/// Bytes of a message from which on this task lets others of its thread have their turn: a socket that takes
/// everything at once would keep it for as long as there is something to send.
const YIELD_BYTES: usize = 64 << 10;
/// Bytes of a message from which on it is made on another thread.
const LARGE_BYTES: usize = 1 << 20;
/// The same where it is packed, which takes some ten times as long.
const LARGE_PACKED_BYTES: usize = 64 << 10;
/// Bytes of a message from which on it is packed: a page is large, a heartbeat is not.
const PACKED_BYTES_MIN: usize = 256;

/// Bytes given to the connection in one go from which on it counts as bulk.
const BULK_BYTES: usize = 64 << 10;
/// Bytes of bulk after which it is looked anew how fast the link is.
const LOOK_BYTES: usize = 1 << 20;
/// What a link must take to get bulk unpacked: about what packing gives.
const FAST_BYTES_PER_SECOND: f64 = 200e6;

/// How fast the link takes what is given to it.
#[derive(Debug, Default)]
struct Pace {
    fast: bool,
    /// Bytes of bulk since it was last looked.
    bytes: usize,
    /// Time that the connection took for them.
    waited: Duration,
}

impl Pace {
    fn took(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes;
        self.waited += waited;
        if self.bytes >= LOOK_BYTES {
            self.fast = self.bytes as f64 > FAST_BYTES_PER_SECOND * self.waited.as_secs_f64();
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }
}

/// The way out.
pub(crate) struct Sender {
    sink: SplitSink<WebSocket, Message>,
    /// Not there while a thread has it, or if the replica wants none.
    packer: Option<Packer>,
    pace: Pace,
    /// Bytes of messages since the connection had taken everything.
    fed_bytes: usize,
    threads: Arc<dyn Threads>,
    metrics: Arc<Metrics>,
}

impl Sender {
    /// With `packed` the other side understands [`SourceMessage::Packed`].
    pub(crate) fn new(
        sink: SplitSink<WebSocket, Message>,
        packed: bool,
        threads: Arc<dyn Threads>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SessionError> {
        let packer = packed.then(Packer::new).transpose();
        Ok(Self {
            sink,
            packer: packer.map_err(SessionError::Pack)?,
            pace: Pace::default(),
            fed_bytes: 0,
            threads,
            metrics,
        })
    }

    /// Sends a message, and waits until the connection has taken it.
    pub(crate) async fn send(&mut self, message: SourceMessage) -> Result<(), SessionError> {
        self.feed(message).await?;
        self.flush().await
    }

    /// The same, but it may stay here until the next [`Self::flush`].
    pub(crate) async fn feed(&mut self, message: SourceMessage) -> Result<(), SessionError> {
        let bytes = weight(&message);
        self.fed_bytes += bytes;
        let bulk = self.fed_bytes >= BULK_BYTES;
        let packer = self.packer.take_if(|_| !(bulk && self.pace.fast));
        let large = if packer.is_some() {
            LARGE_PACKED_BYTES
        } else {
            LARGE_BYTES
        };
        let (encoded, packer) = if bytes < large {
            encode(&message, packer)
        } else {
            let made = on_thread(&*self.threads, move || encode(&message, packer)).await;
            made.ok_or(SessionError::Thread)?
        };
        if packer.is_some() {
            self.packer = packer;
        }
        let encoded = encoded.map_err(SessionError::Pack)?;
        let sent = encoded.len();
        self.metrics.sent_bytes.inc_by(sent as u64);
        let begun = Instant::now();
        let sending = self.sink.feed(Message::Binary(encoded));
        finish(timeout(PATIENCE, sending).await)?;
        if bulk {
            self.pace.took(sent, begun.elapsed());
        }
        if bytes >= YIELD_BYTES {
            yield_now().await;
        }
        Ok(())
    }

    /// Waits until the connection has taken everything.
    pub(crate) async fn flush(&mut self) -> Result<(), SessionError> {
        let begun = Instant::now();
        let flushed = finish(timeout(PATIENCE, self.sink.flush()).await);
        if self.fed_bytes >= BULK_BYTES {
            self.pace.took(0, begun.elapsed());
        }
        self.fed_bytes = 0;
        flushed
    }

    /// Says that nothing more comes, if the other side still listens.
    pub(crate) async fn close(&mut self) {
        drop(timeout(Duration::from_secs(1), self.sink.close()).await);
    }
}

/// Bytes of a message, about: of those that may have many.
fn weight(message: &SourceMessage) -> usize {
    if let SourceMessage::Transaction { transaction, .. } = message {
        transaction.encoded().len()
    } else if let SourceMessage::Pages { pages, .. } = message {
        pages.bytes()
    } else {
        0
    }
}

/// The bytes that go out, and the packer back.
fn encode(
    message: &SourceMessage,
    mut packer: Option<Packer>,
) -> (std::io::Result<Bytes>, Option<Packer>) {
    let encoded = message.encode();
    let sent = match &mut packer {
        Some(packer) if encoded.len() >= PACKED_BYTES_MIN => pack(&encoded, packer),
        Some(_) | None => Ok(encoded),
    };
    (sent, packer)
}

fn pack(message: &Bytes, packer: &mut Packer) -> std::io::Result<Bytes> {
    let message_bytes = u32::try_from(message.len()).expect("bounded by PAYLOAD_BYTES_MAX");
    let packed = packer.pack(message)?.into();
    let packed = SourceMessage::Packed {
        message_bytes,
        packed,
    };
    Ok(packed.encode())
}

fn finish(
    result: Result<Result<(), axum::Error>, tokio::time::error::Elapsed>,
) -> Result<(), SessionError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(SessionError::Connection(error.to_string())),
        Err(_) => Err(SessionError::Silent {
            what: "take a message",
            limit: PATIENCE,
        }),
    }
}
