//! Whether bytes still move on a connection: what tells a slow link from a dead one.
//!
//! A transaction is one message and may be large; on a slow link it takes longer than any sensible bound
//! on silence, and heartbeats queue behind it. So silence is counted in bytes, not in messages.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use tidemark_net::Io;

/// Bytes that went through a connection so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

/// Nothing moved for too long.
#[derive(Debug)]
pub(crate) struct Stalled;

impl Progress {
    /// Waits for `future` as long as no `limit` passes without a byte.
    pub(crate) async fn wait<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, Stalled> {
        let mut future = pin!(future);
        let mut seen = self.moved();
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Ok(output),
                () = sleep(limit) => {
                    let moved = self.moved();
                    if moved == seen {
                        return Err(Stalled);
                    }
                    seen = moved;
                }
            }
        }
    }

    /// How many.
    pub(crate) fn moved(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A connection whose bytes are counted, each direction for itself.
pub(crate) struct Counted {
    io: Box<dyn Io>,
    read: Progress,
    written: Progress,
}

impl Counted {
    /// Counts from zero.
    pub(crate) fn new(io: Box<dyn Io>) -> Self {
        Self {
            io,
            read: Progress::default(),
            written: Progress::default(),
        }
    }

    /// What came in.
    pub(crate) fn read(&self) -> Progress {
        self.read.clone()
    }

    /// What went out.
    pub(crate) fn written(&self) -> Progress {
        self.written.clone()
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counted")
            .field("read", &self.read)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        self.read.add(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.written.add(written);
        }
        polled
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn slow_bytes_are_waited_for_and_silence_is_not() {
        let (mut far, near) = duplex(64);
        let mut near = Counted::new(Box::new(near));
        let progress = near.read();
        let sending = tokio::spawn(async move {
            for _ in 0..10 {
                sleep(LIMIT / 7).await;
                far.write_all(b"x").await.unwrap();
            }
            far // open, and silent from here on
        });
        let mut message = [0; 10];
        let got = progress.wait(LIMIT, near.read_exact(&mut message)).await;
        assert!(
            got.unwrap().is_ok(),
            "longer than the limit in all, but never silent for so long"
        );
        let _open = sending.await.unwrap();
        let mut more = [0; 1];
        assert!(
            progress
                .wait(LIMIT, near.read_exact(&mut more))
                .await
                .is_err()
        );
    }
}
