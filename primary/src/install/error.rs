//! Why a peer's state was not taken over.

use std::io;
use std::time::Duration;

use tidemark_engine::{EngineError, RebuildError};
use tidemark_protocol::stream::StreamError;
use tidemark_protocol::{DatabaseId, Position};

use crate::databases::DatabasesError;

/// Why a peer's state was not taken over. What was there before is there still, and another try goes on
/// from it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The peer is not in the membership that it knows.
    #[error("fetch database {database}: the peer does not say where it is reached")]
    Source {
        /// Which.
        database: DatabaseId,
    },
    /// The connection failed.
    #[error("fetch database {database}: {reason}")]
    Connection {
        /// Which.
        database: DatabaseId,
        /// Why.
        reason: String,
    },
    /// The peer said no.
    #[error("fetch database {database}: the peer answered {status}: {reason}")]
    Refused {
        /// Which.
        database: DatabaseId,
        /// HTTP's word for it.
        status: u16,
        /// Its own.
        reason: String,
    },
    /// Nothing came.
    #[error("fetch database {database}: nothing came for {silence:?}")]
    Silent {
        /// Which.
        database: DatabaseId,
        /// For how long.
        silence: Duration,
    },
    /// What came is no message.
    #[error("image of database {database}")]
    Message {
        /// Which.
        database: DatabaseId,
        /// What is wrong with it.
        #[source]
        source: StreamError,
    },
    /// A message is longer than any of an image.
    #[error("image of database {database} has a message of {got} bytes, at most {max} are allowed")]
    Long {
        /// Which.
        database: DatabaseId,
        /// Bytes it has.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// The image ended in the middle.
    #[error("image of database {database} ends within its {part}")]
    Cut {
        /// Which.
        database: DatabaseId,
        /// Where.
        part: &'static str,
    },
    /// A part came where it does not belong.
    #[error("image of database {database}: unexpected {part}")]
    Unexpected {
        /// Which.
        database: DatabaseId,
        /// Which part.
        part: String,
    },
    /// Pages must ascend.
    #[error("image of database {database} has page {page} where {next} or later is due")]
    Order {
        /// Which.
        database: DatabaseId,
        /// The page sent.
        page: u32,
        /// The earliest page possible.
        next: u32,
    },
    /// The peer left out a page whose hash was not sent to it.
    #[error("image of database {database} leaves out page {page}, which is not here")]
    Missing {
        /// Which.
        database: DatabaseId,
        /// The page.
        page: u32,
    },
    /// A page of the old file reads differently now.
    #[error("page {page} of database {database} changed while an image came in")]
    Changed {
        /// Which.
        database: DatabaseId,
        /// The page.
        page: u32,
    },
    /// More pages than any database may have.
    #[error("image of database {database} has {got} pages, at most {max} are allowed")]
    Pages {
        /// Which.
        database: DatabaseId,
        /// Pages announced.
        got: u32,
        /// The bound.
        max: u32,
    },
    /// The peer's table of requests is none.
    #[error("image of database {database} comes with {bytes} bytes that are no table of requests")]
    Requests {
        /// Which.
        database: DatabaseId,
        /// Their number.
        bytes: u64,
    },
    /// The peer is behind its own manifest.
    #[error("image of database {database} is at {position}, expected {at} or later")]
    Behind {
        /// Which.
        database: DatabaseId,
        /// Where the image is.
        position: Position,
        /// Where the manifest has it.
        at: Position,
    },
    /// A copy that is far enough could not be made durable.
    #[error("database {database} is durable at {durable}, expected {at}")]
    NotDurable {
        /// Which.
        database: DatabaseId,
        /// Where it is durable.
        durable: Position,
        /// Where the manifest has it.
        at: Position,
    },
    /// The old copy cannot be read.
    #[error("read database {database}")]
    Old {
        /// Which.
        database: DatabaseId,
        /// Why.
        #[source]
        source: EngineError,
    },
    /// The new file failed.
    #[error("rebuild database {database}")]
    Rebuild {
        /// Which.
        database: DatabaseId,
        /// Why.
        #[source]
        source: RebuildError,
    },
    /// A file beside it failed.
    #[error("write the table of requests of database {database}")]
    Files {
        /// Which.
        database: DatabaseId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Opening, closing or removing failed.
    #[error(transparent)]
    Databases(#[from] DatabasesError),
    /// The thread that did it is gone.
    #[error("the node is shutting down")]
    Stopped,
}
