//! Pages of an image, as they lie in a message.

use bytes::{BufMut, Bytes, BytesMut};

use super::StreamError;
use crate::position::{PAGE_SIZE, PageNo};

/// Some pages with their numbers, as they lie in a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Pages(pub(super) Bytes);

/// Collects [`Pages`].
#[derive(Debug, Default)]
pub struct PagesBuilder(BytesMut);

pub(super) const ENTRY_BYTES: usize = 4 + PAGE_SIZE;

impl PagesBuilder {
    /// Adds one.
    pub fn push(&mut self, page: PageNo, image: &[u8; PAGE_SIZE]) {
        self.0.put_u32_le(page.0);
        self.0.put_slice(image);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len() / ENTRY_BYTES
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes what was collected, leaving none.
    pub fn take(&mut self) -> Pages {
        Pages(self.0.split().freeze())
    }
}

impl Pages {
    /// The pages in the order they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = (PageNo, &[u8; PAGE_SIZE])> {
        self.0.chunks_exact(ENTRY_BYTES).map(|entry| {
            let (number, image) = entry.split_at(4);
            (
                PageNo(u32::from_le_bytes(number.try_into().expect("four bytes"))),
                image.try_into().expect("PAGE_SIZE bytes"),
            )
        })
    }

    /// Bytes that they take, numbers included.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Whether the page numbers ascend from 1.
    pub(super) fn validate(&self) -> Result<(), StreamError> {
        let mut previous = 0;
        for (PageNo(page), _) in self.iter() {
            if page <= previous {
                return Err(StreamError::Page { page, previous });
            }
            previous = page;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(page, _)| page))
            .finish()
    }
}
