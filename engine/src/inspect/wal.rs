//! The frames of a WAL file, as SQLite's file format has them.
//!
//! | offset | bytes | of the header | | offset | bytes | of a frame |
//! |---|---|---|---|---|---|---|
//! | 0 | 4 | magic; its last bit: checksums are big-endian | | 0 | 4 | page |
//! | 4 | 4 | version | | 4 | 4 | pages after the commit; 0: no commit |
//! | 8 | 4 | page size | | 8 | 8 | salt, that of the header |
//! | 12 | 4 | number of the checkpoint | | 16 | 8 | checksum |
//! | 16 | 8 | salt | | 24 | 4096 | the page |
//! | 24 | 8 | checksum | | | | |
//!
//! Big-endian. The checksum of a frame goes on from that of the frame before, over its first 8 bytes and its page. Frames
//! count as far as salts and checksums fit, up to the last commit; what follows is of the time before the WAL started
//! over, or was never finished.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tidemark_protocol::{PAGE_SIZE, PageNo};

use super::{Finding, hex};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const FRAME_BYTES: usize = FRAME_HEADER_BYTES + PAGE_SIZE;
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// The committed frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    file: Option<File>,
    /// Where the newest image of each page is.
    pub(super) newest: HashMap<PageNo, u64>,
    /// Pages after the last commit, if there is one.
    pub(super) pages: Option<u32>,
    /// Where the last commit ends.
    pub(super) end: u64,
    /// What is wrong behind that.
    pub(super) tail: Option<Finding>,
}

/// A checksum on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sum {
    values: [u32; 2],
    big_endian: bool,
}

impl Sum {
    fn over(mut self, bytes: &[u8]) -> Self {
        for pair in bytes.chunks_exact(8) {
            let word = |from: usize| {
                let bytes = [pair[from], pair[from + 1], pair[from + 2], pair[from + 3]];
                if self.big_endian {
                    u32::from_be_bytes(bytes)
                } else {
                    u32::from_le_bytes(bytes)
                }
            };
            let [a, b] = self.values;
            let a = a.wrapping_add(word(0)).wrapping_add(b);
            let b = b.wrapping_add(word(4)).wrapping_add(a);
            self.values = [a, b];
        }
        self
    }

    fn stored(self, bytes: &[u8]) -> Self {
        let values = [be(&bytes[..4]), be(&bytes[4..8])];
        Self { values, ..self }
    }

    fn text(self) -> String {
        format!("{:08x}{:08x}", self.values[0], self.values[1])
    }
}

fn be(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Frames {
    /// Reads all of a WAL.
    pub(super) fn read(file: &File, path: &Path) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut frames = Self {
            file: Some(file.try_clone()?),
            ..Self::default()
        };
        let mut header = [0; HEADER_BYTES];
        if length == 0 {
            return Ok(frames);
        }
        if length < HEADER_BYTES as u64 {
            let expected = format!("a header of {HEADER_BYTES} bytes");
            let finding = Finding::damage(path, 0, format!("{length} bytes"), expected);
            frames.tail = Some(finding.unfinished());
            return Ok(frames);
        }
        file.read_exact_at(&mut header, 0)?;
        let unseeded = Sum {
            values: [0, 0],
            big_endian: header[3] & 1 == 1,
        };
        let sum = unseeded.over(&header[..24]);
        let stored = sum.stored(&header[24..]);
        let is_ours = be(&header) & !1 == MAGIC
            && be(&header[4..]) == VERSION
            && be(&header[8..]) as usize == PAGE_SIZE;
        if !is_ours || sum != stored {
            let found = format!("header {}, checksum {}", hex(&header[..24]), stored.text());
            let expected = format!("checksum {} of a header of ours", sum.text());
            frames.tail = Some(Finding::damage(path, 0, found, expected));
            return Ok(frames);
        }
        frames.follow(path, length, &header[16..24], sum)?;
        Ok(frames)
    }

    /// Goes through the frames that fit, then looks at what comes behind them.
    fn follow(&mut self, path: &Path, length: u64, salt: &[u8], mut sum: Sum) -> io::Result<()> {
        self.end = HEADER_BYTES as u64;
        let mut offset = self.end;
        let mut frame = vec![0; FRAME_BYTES];
        // Of the transaction that is not committed yet.
        let mut open = Vec::new();
        while self.frame(offset, length, &mut frame)? && &frame[8..16] == salt {
            let next = checked(sum, &frame);
            if next != sum.stored(&frame[16..24]) {
                break;
            }
            sum = next;
            open.push((PageNo(be(&frame)), offset + FRAME_HEADER_BYTES as u64));
            offset += FRAME_BYTES as u64;
            if let pages @ 1.. = be(&frame[4..]) {
                self.newest.extend(open.drain(..));
                self.pages = Some(pages);
                self.end = offset;
            }
        }
        self.tail = self.look_behind(path, length, salt, offset, sum)?;
        Ok(())
    }

    /// What is at `offset`, where the frames stopped to fit.
    fn look_behind(
        &self,
        path: &Path,
        length: u64,
        salt: &[u8],
        offset: u64,
        sum: Sum,
    ) -> io::Result<Option<Finding>> {
        let mut frame = vec![0; FRAME_BYTES];
        if !self.frame(offset, length, &mut frame)? {
            // The file ends here, or in the midst of a frame.
            let left = length - offset;
            let torn = left > 0 || offset > self.end;
            let finding = Finding::damage(
                path,
                self.end,
                format!("{} bytes of a transaction", length - self.end),
                "its end",
            );
            return Ok(torn.then(|| finding.unfinished()));
        }
        let (stored, computed) = (sum.stored(&frame[16..24]), checked(sum, &frame));
        let number = (offset - HEADER_BYTES as u64) / FRAME_BYTES as u64 + 1;
        if &frame[8..16] == salt {
            let found = format!("frame {number} with checksum {}", stored.text());
            let expected = format!("checksum {}", computed.text());
            return Ok(Some(Finding::damage(path, offset, found, expected)));
        }
        // Of a former time, most likely. But nothing of the present one comes behind such a frame.
        let mut later = offset + FRAME_BYTES as u64;
        let mut before = stored;
        while self.frame(later, length, &mut frame)? {
            let is_present = &frame[8..16] == salt;
            let follows = checked(before, &frame) == before.stored(&frame[16..24]);
            if is_present && follows {
                let found = format!("frame {number} with another salt, and frames behind it");
                let expected = format!("salt {}", hex(salt));
                return Ok(Some(Finding::damage(path, offset, found, expected)));
            }
            before = before.stored(&frame[16..24]);
            later += FRAME_BYTES as u64;
        }
        // The last frame alone: its own checksum does not cover the salt.
        if computed == stored {
            self.frame(offset, length, &mut frame)?;
            let found = format!("frame {number} with salt {}", hex(&frame[8..16]));
            let expected = format!("salt {}", hex(salt));
            return Ok(Some(Finding::damage(path, offset, found, expected)));
        }
        // Frames before it that no commit follows.
        let finding = Finding::damage(
            path,
            self.end,
            format!("{} bytes of a transaction", offset - self.end),
            "its end",
        );
        Ok((offset > self.end).then(|| finding.unfinished()))
    }

    /// Reads a frame, if the file has all of it.
    fn frame(&self, offset: u64, length: u64, into: &mut [u8]) -> io::Result<bool> {
        let is_there = offset + FRAME_BYTES as u64 <= length;
        if let (true, Some(file)) = (is_there, &self.file) {
            file.read_exact_at(into, offset)?;
        }
        Ok(is_there)
    }

    /// Reads the page at an offset of [`Frames::newest`].
    pub(super) fn page(&self, offset: u64, into: &mut [u8; PAGE_SIZE]) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.read_exact_at(into, offset)
    }
}

fn checked(before: Sum, frame: &[u8]) -> Sum {
    before.over(&frame[..8]).over(&frame[FRAME_HEADER_BYTES..])
}
