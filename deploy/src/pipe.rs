//! One direction of one connection: bytes go in at one end and come out later at the other.
//!
//! The end of the stream takes the same way as the bytes, so a peer learns of a closed connection
//! after the delay, and not before the way is open again. Memory is bounded by [`HELD_BYTES_MAX`]:
//! with so much under way the source is not read, and TCP makes it wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::link::Lane;

/// Most bytes under way per direction of a connection: 180 Mbit/s at a round trip of 180 ms.
const HELD_BYTES_MAX: usize = 4 << 20;
/// Most bytes read at once: what a chunk's arrival is computed for.
const CHUNK_BYTES: usize = 16 << 10;
/// Most chunks under way, however small.
const HELD_CHUNKS_MAX: usize = 16 << 10;

/// Bytes, or at the end none, and when they come out.
struct Chunk {
    bytes: Bytes,
    arrival: Instant,
}

/// Moves bytes from `source` to `sink` until the source ends, or the sink takes no more (an error).
/// Nothing is sent before `established`.
pub(crate) async fn pipe(
    source: impl AsyncRead + Unpin,
    sink: impl AsyncWrite + Unpin,
    lane: &Lane,
    established: Instant,
    delivered: &AtomicU64,
) -> std::io::Result<()> {
    let room = Arc::new(Semaphore::new(HELD_BYTES_MAX));
    let (chunks, held) = mpsc::channel(HELD_CHUNKS_MAX);
    let take = take(source, lane, established, chunks, &room);
    let give = give(sink, lane, held, &room, delivered);
    let ((), given) = tokio::join!(take, give);
    given
}

async fn take(
    mut source: impl AsyncRead + Unpin,
    lane: &Lane,
    established: Instant,
    chunks: mpsc::Sender<Chunk>,
    room: &Semaphore,
) {
    let mut last = established;
    loop {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        let ended = tokio::select! {
            () = chunks.closed() => return,
            // A source that breaks ends like one that closes: what it sent before still arrives.
            read = source.read_buf(&mut buffer) => !matches!(read, Ok(1..)),
        };
        lane.damage().strike(&mut buffer);
        let sent = Instant::now().max(established);
        last = lane.arrival(sent, buffer.len()).max(last);
        let size = u32::try_from(buffer.len()).expect("at most CHUNK_BYTES were read");
        let Ok(permit) = room.acquire_many(size).await else {
            return;
        };
        permit.forget(); // given back by `give`, when the bytes have left
        let chunk = Chunk {
            bytes: buffer.freeze(),
            arrival: last,
        };
        if chunks.send(chunk).await.is_err() || ended {
            return;
        }
    }
}

async fn give(
    mut sink: impl AsyncWrite + Unpin,
    lane: &Lane,
    mut held: mpsc::Receiver<Chunk>,
    room: &Semaphore,
    delivered: &AtomicU64,
) -> std::io::Result<()> {
    let mut cut = lane.cut();
    while let Some(Chunk { mut bytes, arrival }) = held.recv().await {
        if arrival > Instant::now() {
            // Not otherwise: the timer rounds up to a millisecond.
            sleep_until(arrival).await;
        }
        let size = bytes.len();
        while bytes.has_remaining() {
            wait_open(&mut cut).await;
            tokio::select! {
                biased;
                _ = cut.changed() => {} // cut, perhaps: look again
                written = sink.write_buf(&mut bytes) => {
                    delivered.fetch_add(written? as u64, Ordering::Relaxed);
                }
            }
        }
        room.add_permits(size);
    }
    wait_open(&mut cut).await;
    sink.shutdown().await
}

async fn wait_open(cut: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the relay is gone, and this task with it.
    let _ = cut.wait_for(|cut| !cut).await;
}
