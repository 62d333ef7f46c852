//! A fresh database file from pages in any order of sources.
#![allow(unused_variables, clippy::unimplemented, clippy::needless_pass_by_value)]

use std::path::Path;

use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Position};

use crate::error::RebuildError;

/// A database file under construction beside the old one.
#[derive(Debug)]
pub struct Rebuild {
    _private: (),
}

impl Rebuild {
    /// Starts a file of `page_count` pages that is to hold the state `target`.
    pub fn begin(
        directory: &Path,
        id: DatabaseId,
        target: Position,
        page_count: u32,
    ) -> Result<Self, RebuildError> {
        unimplemented!()
    }

    /// Writes a page, in any order; a page written again replaces the first image.
    pub fn write(
        &mut self,
        page: PageNo,
        image: &[u8; PAGE_SIZE],
    ) -> Result<(), RebuildError> {
        unimplemented!()
    }

    /// Verifies the content and puts it in place of the old. The database must be closed.
    pub fn install(self) -> Result<(), RebuildError> {
        unimplemented!()
    }
}
