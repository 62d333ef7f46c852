//! How the engine fails: one enum per operation over one [`EngineError`] for the machine itself.

use std::io;
use std::path::PathBuf;

use tidemark_protocol::dump::PlanError;
use tidemark_protocol::render::AnswerLimit;
use tidemark_protocol::{DatabaseId, Position, StateChecksum};

/// The machine failed: a file, SQLite's own machinery, or an assumption of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A file operation failed.
    #[error("{doing} {path}", path = path.display())]
    Io {
        /// What was being done, in the present tense.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// SQLite failed at something that is not the statement's fault.
    #[error("sqlite failed to {doing}: {message}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// Its message with the code, as in [`SqlError`].
        message: String,
        /// SQLite's extended result code.
        code: i32,
    },
    /// An earlier failure left the state of the files in doubt. Close and open the database again.
    #[error("database {database} is closed to writes since an earlier failure: {reason}")]
    Poisoned {
        /// Which database.
        database: DatabaseId,
        /// The earlier failure.
        reason: String,
    },
    /// The content of the files is not a known state; it must be replayed or rebuilt first.
    #[error("the content of database {database} is not at a known position")]
    Unidentified {
        /// Which database.
        database: DatabaseId,
    },
}

/// A database could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// This process has it open already.
    #[error("{directory} is already open", directory = directory.display())]
    AlreadyOpen {
        /// The database's directory.
        directory: PathBuf,
    },
    /// The file is no database this engine could ever have written. Rebuild it.
    #[error("{path} is not a database: {reason}", path = path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The machine failed.
    #[error(transparent)]
    Storage(#[from] EngineError),
}

/// SQLite, or the rules of a request, refused a statement. Nothing happened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// In D1's form: `<message>[ at offset <byte>]: <CODE>[ (extended: <CODE>)]`.
    pub message: String,
    /// SQLite's extended code by name, such as `SQLITE_CONSTRAINT_UNIQUE`.
    pub code: &'static str,
    /// Which statement of the request failed, from 0, counting every statement of every text.
    pub statement: usize,
    /// In which text of the request, from 0. `None`: it failed as a whole.
    pub text: Option<usize>,
}

/// A read failed. Nothing happened, and the sink was reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Some statement would write. Give the request to the owner.
    #[error("statement {statement} writes")]
    NotReadOnly {
        /// Which statement, from 0.
        statement: usize,
    },
    /// A statement was refused.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The answer outgrew its bound.
    #[error(transparent)]
    Answer(#[from] AnswerLimit),
    /// It took more steps than the caller allowed.
    #[error("the request took more than the {steps_max} steps allowed")]
    Budget {
        /// The bound.
        steps_max: u64,
    },
    /// The deadline passed.
    #[error("the deadline passed while statements were running")]
    Deadline,
    /// No reader became free by the deadline.
    #[error("all {readers_max} readers were busy until the deadline")]
    Busy {
        /// How many there are.
        readers_max: usize,
    },
    /// The content of the files is not a known state.
    #[error("the copy of database {database} on this node is damaged or incomplete")]
    Damaged {
        /// Which database.
        database: DatabaseId,
    },
    /// The machine failed.
    #[error(transparent)]
    Storage(#[from] EngineError),
}

/// An export ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// It holds what cannot be written as text, or not what was asked for.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The output takes no more.
    #[error("nobody wants the rest of the export")]
    Unwanted,
    /// It could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A write failed. Nothing happened, and the sink was reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// A statement was refused.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The answer outgrew its bound.
    #[error(transparent)]
    Answer(#[from] AnswerLimit),
    /// It took more steps than the caller allowed.
    #[error("the request took more than the {steps_max} steps allowed")]
    Budget {
        /// The bound.
        steps_max: u64,
    },
    /// The deadline passed.
    #[error("the deadline passed while statements were running")]
    Deadline,
    /// The transaction changed more pages than a record can hold.
    #[error("transaction of {bytes} bytes or more exceeds the limit of {max}")]
    TooLarge {
        /// Bytes it had when it was stopped.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Too much awaits acknowledgement. Try later.
    #[error("{bytes} bytes of transactions await acknowledgement, the limit is {max}")]
    Backlog {
        /// Bytes waiting.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The content of the files is not a known state.
    #[error("the copy of database {database} on this node is damaged or incomplete")]
    Damaged {
        /// Which database.
        database: DatabaseId,
    },
    /// The machine failed.
    #[error(transparent)]
    Storage(#[from] EngineError),
}

/// Transactions could not be applied. None of them was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It does not start where the database stands.
    #[error("transaction starts at {base}, database {database} stands at {current}")]
    Base {
        /// Which database.
        database: DatabaseId,
        /// Where the transaction starts.
        base: Position,
        /// Where the database, or the transaction before it, stands.
        current: Position,
    },
    /// Its pages do not give the content it promises: this copy has diverged.
    #[error("transaction to {next} gives checksum {computed} on database {database}")]
    Checksum {
        /// Which database.
        database: DatabaseId,
        /// Where the transaction leads.
        next: Position,
        /// What its pages give on this copy.
        computed: StateChecksum,
    },
    /// It is of another database.
    #[error("transaction belongs to database {got}, this is {expected}")]
    Foreign {
        /// The database in the record.
        got: DatabaseId,
        /// This database.
        expected: DatabaseId,
    },
    /// Transactions of this node await acknowledgement: acknowledge or discard them first.
    #[error("{count} transactions of database {database} await acknowledgement")]
    Pending {
        /// Which database.
        database: DatabaseId,
        /// How many.
        count: usize,
    },
    /// The machine failed, or the content of the files is not a known state.
    #[error(transparent)]
    Storage(#[from] EngineError),
}

/// A rebuild failed. The old files are untouched unless installing had begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The pages written do not give the content that was promised.
    #[error("rebuilt pages give checksum {computed}, expected {target}")]
    Checksum {
        /// What the pages give.
        computed: StateChecksum,
        /// Where the rebuild was to lead.
        target: Position,
    },
    /// A page beyond the end, or page zero.
    #[error("page {page} is not within the {page_count} pages of the rebuild")]
    Page {
        /// The page given.
        page: u32,
        /// Pages announced.
        page_count: u32,
    },
    /// The database is open: close it first.
    #[error("{directory} is open", directory = directory.display())]
    Open {
        /// The database's directory.
        directory: PathBuf,
    },
    /// The machine failed.
    #[error(transparent)]
    Storage(#[from] EngineError),
}
