//! SQLite's write-ahead log: a header of 32 bytes, then frames of a header of 24 bytes and a page, big-endian.
//! Header and frames carry a running checksum; a commit's frame says how many pages there are then.

use std::collections::BTreeMap;

use tidemark_protocol::PAGE_SIZE;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const FRAME_BYTES: usize = FRAME_HEADER_BYTES + PAGE_SIZE;
/// Bytes of the header, and of a frame's, that are summed.
const HEADER_SUMMED: usize = 24;
const FRAME_SUMMED: usize = 8;

/// Makes every checksum and the salt of every frame right.
pub(super) fn seal(wal: &mut [u8]) {
    let Some((header, frames)) = wal.split_at_mut_checked(HEADER_BYTES) else {
        return;
    };
    // The lowest bit of the magic says in which order the words of what is summed are read.
    let big = header[3] & 1 == 1;
    let mut sum = Sum { big, words: [0; 2] };
    sum.add(&header[..HEADER_SUMMED]);
    header[HEADER_SUMMED..].copy_from_slice(&sum.bytes());
    let salt: [u8; 8] = header[16..24].try_into().expect("eight bytes");
    for frame in frames.chunks_exact_mut(FRAME_BYTES) {
        frame[8..16].copy_from_slice(&salt);
        sum.add(&frame[..FRAME_SUMMED]);
        sum.add(&frame[FRAME_HEADER_BYTES..]);
        frame[16..24].copy_from_slice(&sum.bytes());
    }
}

/// Puts the committed pages of a sealed log over those of the file.
pub(super) fn lay_over(pages: &mut BTreeMap<u32, [u8; PAGE_SIZE]>, wal: &[u8]) {
    let Some((header, frames)) = wal.split_at_checked(HEADER_BYTES) else {
        return;
    };
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let is_log = word(&header[..4]) & !1 == 0x377f_0682
        && word(&header[4..8]) == 3_007_000
        && word(&header[8..12]) as usize == PAGE_SIZE;
    if !is_log {
        return;
    }
    let mut pending = Vec::new();
    for frame in frames.chunks_exact(FRAME_BYTES) {
        let (page, size) = (word(&frame[..4]), word(&frame[4..8]));
        if page == 0 {
            return; // no valid frame: what follows does not count
        }
        let image: [u8; PAGE_SIZE] = frame[FRAME_HEADER_BYTES..].try_into().expect("a page");
        pending.push((page, image));
        if size > 0 {
            pages.extend(pending.drain(..));
            pages.retain(|page, _| *page <= size);
        }
    }
}

/// SQLite's running checksum.
struct Sum {
    big: bool,
    words: [u32; 2],
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            let read = if self.big {
                u32::from_be_bytes
            } else {
                u32::from_le_bytes
            };
            let [first, second] = &mut self.words;
            *first = first.wrapping_add(read([a, b, c, d])).wrapping_add(*second);
            *second = second.wrapping_add(read([e, f, g, h])).wrapping_add(*first);
        }
    }

    fn bytes(&self) -> [u8; 8] {
        let [first, second] = self.words.map(u32::to_be_bytes);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&first);
        bytes[4..].copy_from_slice(&second);
        bytes
    }
}
