//! Tidemark's formats: identifiers, positions, bookmarks, SQL values, D1's JSON, the records of the
//! log and the messages of the replica stream.
//!
//! This crate knows nobody: no I/O, no async runtime, no database engine. Every format that leaves a
//! process is defined here, once, and documented as a byte table in `docs/formats.md`.

pub mod bookmark;
pub mod catalogue;
pub mod cell;
pub mod cluster;
pub mod contract;
pub mod d1;
pub mod dump;
pub mod env;
pub mod error;
pub mod guard;
pub mod headers;
pub mod id;
pub mod node;
pub mod position;
pub mod regions;
pub mod render;
pub mod stream;
pub mod trace;
pub mod transaction;
pub mod value;

pub use bookmark::{Bookmark, BookmarkError, BookmarkKey};
pub use catalogue::{Catalogue, CatalogueEntry, CatalogueReader};
pub use contract::{Delivered, Freshness, OnMiss, ReadContract, Why};
pub use error::{Failure, FailureKind};
pub use id::{
    ClusterId, DatabaseId, Incarnation, IncarnationError, NodeId, Region, RequestId, Term,
};
pub use node::{Execute, Executed, Exported, Node, Rules};
pub use position::{Epoch, PAGE_SIZE, PageNo, Position, Seq, StateChecksum};
pub use regions::Regions;
pub use transaction::{Transaction, TransactionBuilder, TransactionHeader};
pub use value::{Statement, Value, ValueRef};
