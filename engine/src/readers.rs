//! The pool of reader connections.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidemark_protocol::Position;

use crate::error::EngineError;
use crate::ffi::{Connection, Setup};
use crate::files;
use crate::idle::open_files;
use crate::options::Options;
use crate::probe::Probe;
use crate::shared::{Located, Shared};
use crate::sql::Sql;

/// A connection that only reads, and the WAL that knows where it stands.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) sql: Sql,
    pub(crate) probe: Arc<Mutex<Probe>>,
}

impl Reader {
    /// Opens one.
    pub(crate) fn open(shared: &Arc<Shared>) -> Result<Self, EngineError> {
        let options = &shared.options;
        let probe = Arc::new(Mutex::new(Probe::new(shared.clone())));
        let setup = Setup {
            exclusive: options.exclusive,
            limits: &options.limits,
            // Readers wait for nobody but, at the first read, for recovery.
            busy_timeout: Duration::from_secs(1),
        };
        let main = files::main_path(&shared.path);
        let connection = Connection::open(&main, probe.clone(), &setup).map_err(|code| {
            let message = code.name().to_owned();
            EngineError::Sqlite {
                doing: "open a reader",
                message,
                code: code.0,
            }
        })?;
        let mut sql = Sql::new(connection, options.statements_cached);
        sql.set_cache(options.cache_kib)?;
        sql.set_read_only()?;
        Ok(Self { sql, probe })
    }

    /// The snapshot it has, or had last.
    pub(crate) fn located(&self) -> Option<Located> {
        self.probe.lock().ok().and_then(|probe| probe.located())
    }

    /// Forgets which snapshot it had.
    pub(crate) fn forget(&self) {
        if let Ok(mut probe) = self.probe.lock() {
            probe.forget();
        }
    }

    /// Position of the snapshot it has, or had last.
    pub(crate) fn position(&self) -> Option<Position> {
        self.located().map(|located| located.position)
    }
}

/// As many as a database may have now.
fn readers_max(options: &Options) -> usize {
    if open_files() > options.files_max {
        return 1;
    }
    options.readers_max.max(1)
}

/// Readers at rest, and how many there are.
#[derive(Debug)]
pub(crate) struct Readers {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<Reader>,
    open: usize,
    /// Threads that wait for one. A wake of nobody would be a system call all the same, in every read.
    waiting: usize,
}

/// A reader on loan. Goes back to the pool when dropped, unless it broke.
#[derive(Debug)]
pub(crate) struct Lease<'pool> {
    readers: &'pool Readers,
    reader: Option<Reader>,
}

impl Lease<'_> {
    /// Closes the reader instead of giving it back.
    pub(crate) fn close(mut self) {
        self.reader = None;
    }
}

impl Deref for Lease<'_> {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        self.reader.as_ref().expect("present until dropped")
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Reader {
        self.reader.as_mut().expect("present until dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let reader = self.reader.take().filter(|_| !std::thread::panicking());
        let mut state = self.readers.state();
        // One that broke was closed by now, without the lock.
        match reader {
            Some(reader) => state.idle.push(reader),
            None => state.open -= 1,
        }
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.readers.freed.notify_one();
        }
    }
}

impl Readers {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                idle: Vec::new(),
                open: 0,
                waiting: 0,
            }),
            freed: Condvar::new(),
        }
    }

    /// Takes a reader, opening one or waiting for one. `None`: all were busy until the deadline.
    pub(crate) fn acquire(
        &self,
        shared: &Arc<Shared>,
        deadline: Instant,
    ) -> Result<Option<Lease<'_>>, EngineError> {
        let mut state = self.state();
        loop {
            // The one used last: its cache is warm.
            if let Some(reader) = state.idle.pop() {
                return Ok(Some(Lease {
                    readers: self,
                    reader: Some(reader),
                }));
            }
            if state.open < readers_max(&shared.options) {
                state.open += 1;
                drop(state);
                // Counts the reader out again if it cannot be opened.
                let mut lease = Lease {
                    readers: self,
                    reader: None,
                };
                lease.reader = Some(Reader::open(shared)?);
                return Ok(Some(lease));
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(None);
            }
            state.waiting += 1;
            (state, _) = self
                .freed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Closes all that are at rest.
    pub(crate) fn close_idle(&self) {
        let idle = {
            let mut state = self.state();
            let idle = std::mem::take(&mut state.idle);
            state.open -= idle.len();
            idle
        };
        drop(idle);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the fields consistent, whatever panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
