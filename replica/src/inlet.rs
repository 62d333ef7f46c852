//! What comes packed from the source, unpacked.

use std::io;

use bytes::Bytes;
use tidemark_engine::{Threads, on_thread};
use tidemark_net::{UnpackError, Unpacker};
use tidemark_protocol::stream::SourceMessage;

use crate::lost::Lost;

/// Bytes of a message from which on it is unpacked on another thread.
const LARGE_BYTES: usize = 256 << 10;

/// The unpacked side of one connection.
#[derive(Debug, Default)]
pub(crate) struct Inlet {
    /// Made for the first packed message; not there while a thread has it.
    unpacker: Option<Unpacker>,
    unpacked_bytes: u64,
}

impl Inlet {
    /// The message itself, if this is one that came packed; else as it came.
    pub(crate) async fn unpacked(
        &mut self,
        message: SourceMessage,
        threads: &dyn Threads,
    ) -> Result<SourceMessage, Lost> {
        let SourceMessage::Packed {
            message_bytes,
            packed,
        } = message
        else {
            return Ok(message);
        };
        let bytes = message_bytes as usize;
        let mut unpacker = match self.unpacker.take() {
            Some(unpacker) => unpacker,
            None => Unpacker::new().map_err(UnpackError::from)?,
        };
        let unpack = move || (unpacker.unpack(&packed, bytes), unpacker);
        let (message, unpacker) = if bytes < LARGE_BYTES {
            unpack()
        } else {
            let unpacked = on_thread(threads, unpack).await;
            unpacked.ok_or_else(|| {
                let error = io::Error::other("the thread that unpacked it panicked");
                UnpackError::from(error)
            })?
        };
        self.unpacker = Some(unpacker);
        self.unpacked_bytes += u64::from(message_bytes);
        Ok(SourceMessage::decode(&Bytes::from(message?))?)
    }

    /// Bytes of all messages that came packed, as they were before.
    pub(crate) fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }
}
