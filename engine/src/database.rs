//! A database as readers see it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use tidemark_protocol::render::{AnswerLimit, ResultSink, StatementStatistics};
use tidemark_protocol::{DatabaseId, PAGE_SIZE, Position, Rules, Statement, ValueRef};

use crate::control::Control;
use crate::error::{EngineError, OpenError, ReadError};
use crate::files::{self, MAIN_NEW, POSITIONS, at};
use crate::genesis;
use crate::options::Options;
use crate::owner::Owner;
use crate::readers::{Reader, Readers};
use crate::registry::OpenDirectory;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::sql::{Access, RunError, Sql, Terms};

/// An open database: the shared half and its one owner.
#[derive(Debug)]
pub struct Opened {
    /// For everyone who reads.
    pub database: Arc<Database>,
    /// For the one who writes.
    pub owner: Owner,
}

/// The shared half of an open database.
///
/// The files stay open, and the directory marked as open, until this, the owner and all snapshots are
/// dropped.
#[derive(Debug)]
pub struct Database {
    readers: Readers,
    /// Whether somebody has all of it read: one at a time.
    pub(crate) verifying: AtomicBool,
    shared: Arc<Shared>,
}

impl Database {
    /// Opens the database in `directory`, making it when nothing is there, hashes every page and
    /// identifies the position by the checksum. A byte that changed on disk is noticed here: the
    /// position is then `None` and nothing is served.
    pub fn open(directory: &Path, id: DatabaseId, options: &Options) -> Result<Opened, OpenError> {
        fs::create_dir_all(directory).map_err(at("create", directory))?;
        let path = fs::canonicalize(directory).map_err(at("resolve", directory))?;
        let claim = OpenDirectory::claim(&path).ok_or_else(|| OpenError::AlreadyOpen {
            directory: path.clone(),
        })?;
        prepare(&path)?;
        let shared = Arc::new(Shared::new(id, path, options.clone(), claim));
        let owner = Owner::open(shared.clone())?;
        Ok(Opened {
            database: Arc::new(Self {
                readers: Readers::new(),
                verifying: AtomicBool::new(false),
                shared,
            }),
            owner,
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its identifier.
    pub fn id(&self) -> DatabaseId {
        self.shared.id
    }

    /// The state that readers see; `None` while unidentified.
    pub fn position(&self) -> Option<Position> {
        self.shared.position()
    }

    /// Runs read-only statements on one snapshot, streaming into the sink. Returns the snapshot's
    /// exact position.
    pub fn read<S: ResultSink>(
        &self,
        statements: &[Statement],
        control: &Control,
        sink: &mut S,
    ) -> Result<Position, ReadError> {
        let shared = &self.shared;
        let position = shared.position().ok_or(ReadError::Damaged {
            database: shared.id,
        })?;
        let readers_max = shared.options.readers_max;
        let mut reader = self
            .readers
            .acquire(shared, control.deadline)?
            .ok_or(ReadError::Busy { readers_max })?;
        let (ran, ended) = read_on(&mut reader, shared, statements, control, sink);
        // Statements that touched no page are true at any position.
        let position = reader.position().unwrap_or(position);
        if ended.is_err() || matches!(ran, Err(RunError::Storage(_))) {
            reader.close();
        }
        match ran.and(ended.map_err(RunError::Storage)) {
            Ok(()) => Ok(position),
            Err(error) => {
                sink.reset();
                Err(read_error(error, shared, control))
            }
        }
    }

    /// The raw pages of one committed state.
    pub fn snapshot(&self) -> Result<Snapshot, EngineError> {
        Snapshot::take(&self.shared)
    }

    /// Bytes of the acknowledged state.
    pub fn file_size(&self) -> u64 {
        u64::from(self.shared.pages()) * PAGE_SIZE as u64
    }

    /// Tables of users.
    pub fn table_count(&self) -> Result<u64, ReadError> {
        const COUNT: &str = "SELECT count(*) FROM sqlite_schema \
                             WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        const PATIENCE: Duration = Duration::from_secs(5);
        let statement = Statement {
            sql: COUNT.to_owned(),
            params: Vec::new(),
        };
        let mut count = OneInteger::default();
        self.read(
            &[statement],
            &Control::until(Instant::now() + PATIENCE),
            &mut count,
        )?;
        Ok(u64::try_from(count.0).unwrap_or(0))
    }

    /// Closes reader connections that nobody uses: an idle database then costs its owner's connection
    /// and the page hashes.
    pub fn close_idle_readers(&self) {
        self.readers.close_idle();
    }
}

/// Puts the directory into a state in which SQLite may open the file.
fn prepare(directory: &Path) -> Result<(), OpenError> {
    for left_over in [MAIN_NEW.to_owned(), format!("{POSITIONS}.new")] {
        files::remove(&directory.join(left_over))?;
    }
    let main = files::main_path(directory);
    if !main.try_exists().map_err(at("look for", &main))? {
        // Whatever lies beside a database file that is not there belongs to another.
        files::remove_side_files(directory)?;
        files::remove(&directory.join(POSITIONS))?;
        files::replace(directory, files::MAIN, &genesis::PAGE)?;
        if let Some(parent) = directory.parent() {
            files::sync_directory(parent)?;
        }
    }
    check_header(&main)
}

/// SQLite takes the page size from the file before anything else, and ours is fixed.
fn check_header(main: &Path) -> Result<(), OpenError> {
    use std::io::Read;

    let mut header = [0; 20];
    let mut file = fs::File::open(main).map_err(at("open", main))?;
    let read = file.read_exact(&mut header);
    // Magic, page size, WAL versions.
    if read.is_err() || header != genesis::PAGE[..20] {
        return Err(OpenError::NotADatabase {
            path: main.to_owned(),
            reason: format!("its header is {header:02x?}"),
        });
    }
    Ok(())
}

/// Runs the statements, then ends the transaction: what came of either.
fn read_on<S: ResultSink>(
    reader: &mut Reader,
    shared: &Shared,
    statements: &[Statement],
    control: &Control,
    sink: &mut S,
) -> (Result<(), RunError>, Result<(), EngineError>) {
    reader.forget();
    let Reader { sql, probe } = reader;
    let pages_known = || {
        let located = probe.lock().ok().and_then(|probe| probe.located());
        located.map_or_else(|| shared.pages(), |located| located.pages)
    };
    let is_single = Sql::is_single(statements);
    if !is_single && let Err(error) = sql.begin_read() {
        return (Err(RunError::Storage(error)), Ok(()));
    }
    let terms = Terms {
        access: Access::Read,
        rules: Rules::Request,
        control,
        pages_known: &pages_known,
        between: &|| (),
    };
    let ran = sql.run(statements, terms, sink).map(|_| ());
    let ended = if is_single { Ok(()) } else { sql.roll_back() };
    (ran, ended.and_then(|()| sql.switch_back()))
}

pub(crate) fn read_error(error: RunError, shared: &Shared, control: &Control) -> ReadError {
    match error {
        RunError::NotReadOnly { statement } => ReadError::NotReadOnly { statement },
        RunError::Sql(error) => error.into(),
        RunError::Answer(limit) => limit.into(),
        RunError::Budget => ReadError::Budget {
            steps_max: control.steps_max.unwrap_or_default(),
        },
        RunError::Deadline => ReadError::Deadline,
        // The database became unidentified in between: no snapshot can be had.
        RunError::Storage(_) if shared.position().is_none() => ReadError::Damaged {
            database: shared.id,
        },
        RunError::Storage(error) => error.into(),
    }
}

/// Keeps the one integer of a one-row answer.
#[derive(Default)]
struct OneInteger(i64);

impl ResultSink for OneInteger {
    fn begin_statement(&mut self) {}
    fn columns(&mut self, _names: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn begin_row(&mut self) {}
    fn cell(&mut self, _index: usize, value: ValueRef<'_>) {
        if let ValueRef::Integer(integer) = value {
            self.0 = integer;
        }
    }
    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn end_statement(&mut self, _statistics: &StatementStatistics) -> Result<(), AnswerLimit> {
        Ok(())
    }
    fn reset(&mut self) {
        self.0 = 0;
    }
    fn recorded(&self) -> &[u8] {
        &[]
    }
}
