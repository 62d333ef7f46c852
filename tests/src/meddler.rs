//! A way between a replica and its source that does what TCP never does: messages of the replica stream come
//! twice, late once more, or in another order.
//!
//! 1. A connection is accepted, and one to the target is made in its stead.
//! 2. What the replica says passes unchanged, and so does what a forwarded request is answered.
//! 3. A connection that becomes a WebSocket carries one message per frame; those from the source are taken
//!    apart and [`Meddling`] is done to them. Each arrives whole: that a damaged one is refused is another test.
//!
//! Connections can also be broken ([`Meddler::sever`]), or be held so that newer ones overtake them
//! ([`Meddler::hold`]).

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Most bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most bytes of a frame: more than the stream's largest message.
const FRAME_BYTES_MAX: usize = 512 << 20;
/// Bytes read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// Messages that may come once more.
const REMEMBERED_MAX: usize = 16;
/// Frames of data in the WebSocket protocol, whole.
const WHOLE_BINARY: u8 = 0x82;

/// What is done to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meddling {
    /// It comes after the next one.
    Swap,
    /// It comes twice.
    Double,
    /// One that came before comes once more, after it.
    Replay,
}

/// How many messages came otherwise than they were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meddled {
    /// After the next one.
    pub swapped: u64,
    /// Twice.
    pub doubled: u64,
    /// Once more, later.
    pub replayed: u64,
}

/// A running way. Dropping it closes its connections and its listener.
#[derive(Debug)]
pub struct Meddler {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    seed: u64,
    orders: watch::Sender<Orders>,
    accepted: AtomicU64,
    streams: AtomicU64,
    swapped: AtomicU64,
    doubled: AtomicU64,
    replayed: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Orders {
    /// Connections with a number below this are broken.
    severed_below: u64,
    /// Connections with a number below this let nothing pass.
    held_below: u64,
    /// Chance of each message to be meddled with.
    chance: f64,
}

impl Meddler {
    /// Passes everything on to `target`, unchanged at first. `seed` makes the choices.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            seed,
            orders: watch::Sender::default(),
            accepted: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            swapped: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on each message of a stream is meddled with by this chance.
    pub fn meddle(&self, chance: f64) {
        self.shared
            .orders
            .send_modify(|orders| orders.chance = chance);
    }

    /// Breaks every connection there is.
    pub fn sever(&self) {
        let next = self.shared.accepted.load(Ordering::Relaxed);
        self.shared
            .orders
            .send_modify(|orders| orders.severed_below = next);
    }

    /// Every connection there is lets nothing pass until [`Meddler::release`]; newer ones do.
    pub fn hold(&self) {
        let next = self.shared.accepted.load(Ordering::Relaxed);
        self.shared
            .orders
            .send_modify(|orders| orders.held_below = next);
    }

    /// What was held passes, late.
    pub fn release(&self) {
        self.shared
            .orders
            .send_modify(|orders| orders.held_below = 0);
    }

    /// How many streams came about so far.
    pub fn streams(&self) -> u64 {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// What was done to messages so far.
    pub fn meddled(&self) -> Meddled {
        let Shared {
            swapped,
            doubled,
            replayed,
            ..
        } = &*self.shared;
        Meddled {
            swapped: swapped.load(Ordering::Relaxed),
            doubled: doubled.load(Ordering::Relaxed),
            replayed: replayed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts until it is aborted; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (from, _) = accepted.expect("a test opens few files");
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let connection = Connection {
            number,
            orders: shared.orders.subscribe(),
            shared: Arc::clone(&shared),
        };
        connections.spawn(connection.run(from));
    }
}

#[derive(Clone)]
struct Connection {
    number: u64,
    orders: watch::Receiver<Orders>,
    shared: Arc<Shared>,
}

impl Connection {
    /// Carries both directions until either ends: half-open connections are nothing that nodes use.
    async fn run(self, from: TcpStream) {
        let mut orders = self.orders.clone();
        let severed = orders.wait_for(|orders| self.number < orders.severed_below);
        let carried = async {
            let to = TcpStream::connect(self.shared.target).await?;
            from.set_nodelay(true)?;
            to.set_nodelay(true)?;
            let (from_read, from_write) = from.into_split();
            let (to_read, to_write) = to.into_split();
            tokio::select! {
                ended = self.clone().plain(from_read, to_write) => ended,
                ended = self.clone().answers(to_read, from_write) => ended,
            }
        };
        // How a connection ends is for its two ends to judge.
        tokio::select! {
            _ = severed => {}
            _ = carried => {}
        }
    }

    /// Waits while the connection is held.
    async fn pass(&mut self) {
        let number = self.number;
        // An error means that the way is gone, and this task with it.
        let _ = self
            .orders
            .wait_for(|orders| number >= orders.held_below)
            .await;
    }

    async fn plain(
        mut self,
        mut source: OwnedReadHalf,
        mut sink: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = source.read(&mut chunk).await?;
            self.pass().await;
            if count == 0 {
                return sink.shutdown().await;
            }
            sink.write_all(&chunk[..count]).await?;
        }
    }

    /// What the source says: answers, or after the first of them the messages of a stream.
    async fn answers(
        mut self,
        mut source: OwnedReadHalf,
        mut sink: OwnedWriteHalf,
    ) -> io::Result<()> {
        let mut head = Vec::new();
        let body = loop {
            if source.read_buf(&mut head).await? == 0 {
                return sink.shutdown().await;
            }
            let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None if head.len() > HEAD_BYTES_MAX => break head.len(),
                None => {}
            }
        };
        self.pass().await;
        if !head.starts_with(b"HTTP/1.1 101 ") {
            sink.write_all(&head).await?;
            return self.plain(source, sink).await;
        }
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        let first = head.split_off(body);
        sink.write_all(&head).await?;
        self.stream(first, source, sink).await
    }

    async fn stream(
        mut self,
        mut buffer: Vec<u8>,
        mut source: OwnedReadHalf,
        mut sink: OwnedWriteHalf,
    ) -> io::Result<()> {
        let seed = self.shared.seed ^ self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = fastrand::Rng::with_seed(seed);
        // One that is to come after the next.
        let mut kept = None;
        let mut passed = VecDeque::new();
        loop {
            while let Some(frame) = next_frame(&mut buffer)? {
                let chance = self.orders.borrow().chance;
                let whole = frame.first() == Some(&WHOLE_BINARY);
                let meddling = (whole && kept.is_none() && random.f64() < chance)
                    .then(|| random.choice([Meddling::Swap, Meddling::Double, Meddling::Replay]))
                    .flatten();
                if whole {
                    passed.truncate(REMEMBERED_MAX - 1);
                    passed.push_front(frame.clone());
                }
                let shared = Arc::clone(&self.shared);
                let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
                let mut out = vec![frame];
                match meddling {
                    None => out.extend(kept.take()),
                    Some(Meddling::Swap) => {
                        count(&shared.swapped);
                        kept = out.pop();
                    }
                    Some(Meddling::Double) => {
                        count(&shared.doubled);
                        out.extend(passed.front().cloned());
                    }
                    Some(Meddling::Replay) => {
                        count(&shared.replayed);
                        out.extend(random.choice(passed.iter()).cloned());
                    }
                }
                self.pass().await;
                for frame in out {
                    sink.write_all(&frame).await?;
                }
            }
            if source.read_buf(&mut buffer).await? == 0 {
                self.pass().await;
                return sink.shutdown().await;
            }
        }
    }
}

/// Takes the first frame out of `buffer`, if all of it is there.
fn next_frame(buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let Some(head) = buffer.get(..2) else {
        return Ok(None);
    };
    let (masked, short) = (head[1] & 0x80 != 0, head[1] & 0x7f);
    // Bytes of the length, beyond the first two bytes.
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(length) = buffer.get(2..2 + extended) else {
        return Ok(None);
    };
    let length = match extended {
        0 => u64::from(short),
        _ => length
            .iter()
            .fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if masked || length > FRAME_BYTES_MAX {
        let text = format!("a frame of {length} bytes, masked: {masked}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let whole = 2 + extended + length;
    if buffer.len() < whole {
        return Ok(None);
    }
    let rest = buffer.split_off(whole);
    Ok(Some(std::mem::replace(buffer, rest)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![WHOLE_BINARY];
        match payload.len() {
            short @ ..126 => frame.push(u8::try_from(short).unwrap()),
            long @ ..65536 => {
                frame.push(126);
                frame.extend(u16::try_from(long).unwrap().to_be_bytes());
            }
            longer => {
                frame.push(127);
                frame.extend((longer as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_of_every_length_are_found_in_what_comes_in_pieces() {
        let frames = [0, 125, 126, 65535, 65536].map(|length| frame(&vec![7; length]));
        let bytes = frames.concat();
        for piece in [1, 1000, bytes.len()] {
            let mut buffer = Vec::new();
            let mut found = Vec::new();
            for part in bytes.chunks(piece) {
                buffer.extend_from_slice(part);
                while let Some(frame) = next_frame(&mut buffer).unwrap() {
                    found.push(frame);
                }
            }
            assert!(found == frames, "in pieces of {piece} bytes");
            assert!(buffer.is_empty());
        }
    }
}
