//! Compression of the messages of one connection, with zstd (RFC 8878).
//!
//! All messages that one [`Packer`] packs are one zstd frame that never ends, flushed behind each: a message may
//! refer back to what was packed before it, within [`WINDOW_LOG`]. So a page that is sent again after a row of it has
//! changed costs little more than the row, and neither side looks up what the page was before.
//!
//! The other side's [`Unpacker`] has to be given all of them, once each and in order. One that is missing, doubled or
//! damaged makes those behind it unreadable, or other than they were: whoever sends them gives each a checksum
//! inside what is packed.

use std::io;

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// How far a message may refer back, as a power of two in bytes: the pages that a thousand recent transactions have
/// changed. Each side keeps as much in memory.
const WINDOW_LOG: u32 = 22;
/// Entries of the table in which matches are looked up, as a power of two: the level's own has so few that it
/// forgets a page long before the window does. More cost more than they find.
const HASH_LOG: u32 = 17;
/// The fastest of the levels that use no tricks: what repeats is found by all of them.
const LEVEL: i32 = 1;
/// Bytes by which an output grows at once, at least.
const GROWTH_BYTES: usize = 4 << 10;

/// Packs the messages of one connection.
pub struct Packer(Encoder<'static>);

/// Unpacks what the other side's [`Packer`] made.
pub struct Unpacker(Decoder<'static>);

/// What came is nothing that a [`Packer`] made, or not the next of it.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// zstd cannot read it.
    #[error("it cannot be unpacked")]
    Unreadable(#[from] io::Error),
    /// It has more bytes than a message may have.
    #[error("it unpacks to more than the {max} bytes that a message may have")]
    TooLarge {
        /// What it may have.
        max: usize,
    },
}

impl Packer {
    /// The beginning of a connection. Fails without memory.
    pub fn new() -> io::Result<Self> {
        let mut encoder = Encoder::new(LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        encoder.set_parameter(CParameter::HashLog(HASH_LOG))?;
        Ok(Self(encoder))
    }

    /// The next message, packed: up to half a percent larger if nothing in it repeats. Its time grows with its
    /// length, some milliseconds for each megabyte.
    pub fn pack(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut packed = Vec::new();
        let mut input = InBuffer::around(message);
        while input.pos() < message.len() {
            let mut output = room(&mut packed);
            self.0.run(&mut input, &mut output)?;
        }
        loop {
            let mut output = room(&mut packed);
            if self.0.flush(&mut output)? == 0 {
                return Ok(packed);
            }
        }
    }
}

impl Unpacker {
    /// The beginning of a connection. Fails without memory.
    pub fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Self(decoder))
    }

    /// The message of at most `max` bytes that was packed. Takes no memory for what is only claimed.
    pub fn unpack(&mut self, packed: &[u8], max: usize) -> Result<Vec<u8>, UnpackError> {
        let mut message = Vec::new();
        let mut input = InBuffer::around(packed);
        loop {
            let mut output = room(&mut message);
            self.0.run(&mut input, &mut output)?;
            let full = output.pos() == output.capacity();
            if message.len() > max {
                return Err(UnpackError::TooLarge { max });
            }
            // With room left, everything that the input gives has come out.
            if input.pos() == packed.len() && !full {
                return Ok(message);
            }
        }
    }
}

/// The end of a vector, with room to write: doubled whenever it is full.
fn room(vector: &mut Vec<u8>) -> OutBuffer<'_, Vec<u8>> {
    if vector.capacity() == vector.len() {
        vector.reserve(vector.len().max(GROWTH_BYTES));
    }
    let end = vector.len();
    OutBuffer::around_pos(vector, end)
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Packer")
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Unpacker")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MAX: usize = 4 << 20;

    /// Bytes in which nothing repeats, from a seed.
    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| random.u8(..))
            .take(bytes)
            .collect()
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new().unwrap());
        for (seed, bytes) in [1, 0, 100, 4096, MAX, 7, 300_000].into_iter().enumerate() {
            let message = noise(seed as u64, bytes);
            let packed = packer.pack(&message).unwrap();
            assert!(packed.len() <= bytes + bytes / 200 + 64, "{bytes} bytes");
            assert_eq!(unpacker.unpack(&packed, MAX).unwrap(), message);
        }
    }

    #[test]
    fn a_page_that_comes_again_changed_a_little_costs_little() {
        let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new().unwrap());
        let mut pages: Vec<_> = (0..16).map(|seed| noise(seed, 4096)).collect();
        for round in 0..10 {
            for page in &mut pages {
                page[100 + round] ^= 1;
                let packed = packer.pack(page).unwrap();
                assert!(round == 0 || packed.len() < 64, "{} bytes", packed.len());
                assert_eq!(unpacker.unpack(&packed, MAX).unwrap(), *page);
            }
        }
    }

    #[test]
    fn more_than_a_message_may_have_is_refused_without_being_unpacked_whole() {
        let packed = Packer::new().unwrap().pack(&vec![0; 64 << 20]).unwrap();
        assert!(packed.len() < 16 << 10);
        let refused = Unpacker::new().unwrap().unpack(&packed, 1000);
        assert!(matches!(refused, Err(UnpackError::TooLarge { max: 1000 })));
    }

    #[test]
    fn what_is_no_packed_message_is_refused() {
        let refused = Unpacker::new().unwrap().unpack(b"not zstd at all", MAX);
        assert!(matches!(refused, Err(UnpackError::Unreadable(_))));
    }
}
