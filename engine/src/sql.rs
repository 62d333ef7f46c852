//! Running a request's statements on one connection, for owner and readers alike.
//!
//! [`Sql`] is a connection with its prepared statements. [`Sql::run`] takes the statements of one
//! request, compiles each with SQLite's own splitter, streams rows into the sink, and leaves the
//! connection as it found it: values unbound, PRAGMA switches back, bounds lifted. Transactions are the
//! caller's affair.
//!
//! A request that begins with `PRAGMA foreign_keys=off` runs without them, as a migration that makes a table
//! anew has to: [`Sql::heed_head`] compiles that statement before the transaction begins, because inside of one
//! SQLite ignores it, and [`Sql::run`] ends with a check of all foreign keys instead.
//!
//! Rules of a request (D1's): a text may hold several statements, but only its last may have
//! parameters, and then exactly as many as values are given; a text without any statement is an error,
//! also among others: its values would be lost, and results would no longer stand where their texts do.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

use tidemark_protocol::render::{AnswerLimit, ResultSink, StatementStatistics};
use tidemark_protocol::{PAGE_SIZE, Rules, Statement, Value, ValueRef};
use xxhash_rust::xxh3::xxh3_64;

use crate::blank::skip_blank;
use crate::caches::Untold;
use crate::control::Control;
use crate::error::{EngineError, SqlError};
use crate::ffi::{Code, Connection, Prepared, Step, Stopped};
use crate::window::Window;

/// Texts longer than this are compiled each time.
const CACHED_TEXT_BYTES_MAX: usize = 16 << 10;

/// How a head begins that may turn foreign keys off.
const PRAGMA: &[u8] = b"PRAGMA";
/// D1's words for a text of blank space and comments.
const NO_STATEMENT: &str = "No SQL statements detected.";
const WRONG_COUNT: &str = "Wrong number of parameter bindings for SQL query.";

/// What puts back every switch that a PRAGMA of a client can turn.
const SWITCHES_BACK: [&CStr; 7] = [
    c"PRAGMA foreign_keys=1",
    c"PRAGMA defer_foreign_keys=0",
    c"PRAGMA case_sensitive_like=0",
    c"PRAGMA ignore_check_constraints=0",
    c"PRAGMA legacy_alter_table=0",
    c"PRAGMA recursive_triggers=0",
    c"PRAGMA reverse_unordered_selects=0",
];

/// Whether statements may write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// A statement that would write stops the request, also one that finds nothing to change here.
    Read,
    /// All may.
    Write,
}

/// How statements run, and what they need to know of the database.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) access: Access,
    pub(crate) rules: Rules,
    pub(crate) control: &'a Control,
    /// Pages of the database before the first write, from one who knows without asking SQLite.
    pub(crate) pages_known: &'a dyn Fn() -> u32,
    /// Called before each statement, when none runs.
    pub(crate) between: &'a dyn Fn(),
}

/// Why a request stopped.
#[derive(Debug)]
pub(crate) enum RunError {
    NotReadOnly { statement: usize },
    Sql(SqlError),
    Answer(AnswerLimit),
    Budget,
    Deadline,
    Storage(EngineError),
}

impl RunError {
    fn in_text(mut self, index: usize) -> Self {
        if let Self::Sql(error) = &mut self {
            error.text = Some(index);
        }
        self
    }
}

impl From<AnswerLimit> for RunError {
    fn from(limit: AnswerLimit) -> Self {
        Self::Answer(limit)
    }
}

/// A connection with its prepared statements.
#[derive(Debug)]
pub(crate) struct Sql {
    // Statements before the connection: they are dropped first.
    cached: StatementCache,
    begin_read: Option<Prepared>,
    begin_write: Option<Prepared>,
    commit: Option<Prepared>,
    rollback: Option<Prepared>,
    page_count: Option<Prepared>,
    schema_version: Option<Prepared>,
    /// A PRAGMA was compiled: switches may be turned.
    switched: bool,
    untold: Untold,
    connection: Connection,
}

/// A request on its way through the connection.
struct Run<'a> {
    terms: Terms<'a>,
    /// Statements begun so far, over all texts.
    statement: usize,
    /// Where in its text the statement in hand begins.
    start: usize,
    /// Whether the text in hand is the last.
    in_last_text: bool,
    /// Pages of the database since.
    pages: Option<u32>,
    /// The last statement, if its end is left to the caller.
    unended: Option<Unended>,
}

/// Statements that ran.
#[derive(Debug)]
pub(crate) struct Ran {
    /// How many.
    pub(crate) count: usize,
    /// The last of them, if it writes: the sink has yet to hear of its end.
    pub(crate) unended: Option<Unended>,
}

/// The last statement of a request that writes. How many pages the database has then, the commit tells for nothing;
/// to ask SQLite costs as much as the statement, for a PRAGMA is compiled each time it runs.
#[derive(Debug)]
pub(crate) struct Unended {
    /// But for what depends on the pages.
    statistics: StatementStatistics,
    pages_before: u32,
}

impl Unended {
    /// Tells the sink of its end.
    pub(crate) fn end<S: ResultSink>(self, pages: u32, sink: &mut S) -> Result<(), AnswerLimit> {
        let Self {
            mut statistics,
            pages_before,
        } = self;
        statistics.changed_db |= pages != pages_before;
        statistics.size_after = u64::from(pages) * PAGE_SIZE as u64;
        sink.end_statement(&statistics)
    }
}

impl Run<'_> {
    fn pages(&self) -> u32 {
        self.pages.unwrap_or_else(self.terms.pages_known)
    }
}

impl Sql {
    pub(crate) fn new(connection: Connection, statements_cached: usize) -> Self {
        Self {
            cached: StatementCache::new(statements_cached),
            begin_read: None,
            begin_write: None,
            commit: None,
            rollback: None,
            page_count: None,
            schema_version: None,
            switched: false,
            untold: Untold::default(),
            connection,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Bounds the page cache.
    pub(crate) fn set_cache(&mut self, cache_kib: u32) -> Result<(), EngineError> {
        let pragma = CString::new(format!("PRAGMA cache_size=-{cache_kib}"))
            .expect("a number has no zero byte");
        self.connection
            .run_internal(&pragma)
            .map_err(|code| engine_error(&self.connection, code, "set the cache size"))
    }

    /// Makes SQLite itself refuse writes, below everything else that does.
    pub(crate) fn set_read_only(&mut self) -> Result<(), EngineError> {
        self.connection
            .run_internal(c"PRAGMA query_only=1")
            .map_err(|code| engine_error(&self.connection, code, "set a reader read-only"))
    }

    /// Opens a transaction that takes its snapshot with the first statement that reads.
    pub(crate) fn begin_read(&mut self) -> Result<(), EngineError> {
        let Self {
            connection,
            begin_read,
            ..
        } = self;
        run_own(connection, begin_read, c"BEGIN", "begin a read transaction")
    }

    /// Opens a transaction that may write.
    pub(crate) fn begin_write(&mut self) -> Result<(), EngineError> {
        let Self {
            connection,
            begin_write,
            ..
        } = self;
        run_own(
            connection,
            begin_write,
            c"BEGIN IMMEDIATE",
            "begin a write transaction",
        )
    }

    /// Commits. A constraint that was deferred to the end is the statement's failure.
    pub(crate) fn commit(&mut self, statement: usize) -> Result<(), RunError> {
        let Self {
            connection, commit, ..
        } = self;
        let result = with_own(connection, commit, c"COMMIT", Prepared::run_to_end);
        result.map_err(|code| failure(&self.connection, code, None, statement, "commit"))
    }

    /// Rolls back whatever is open. An open transaction that cannot be rolled back is fatal.
    pub(crate) fn roll_back(&mut self) -> Result<(), EngineError> {
        if self.connection.is_autocommit() {
            return Ok(()); // SQLite did so itself
        }
        let Self {
            connection,
            rollback,
            ..
        } = self;
        run_own(connection, rollback, c"ROLLBACK", "roll back")
    }

    /// Pages of the database as this connection sees it, changes in hand included.
    fn page_count(&mut self) -> Result<u32, EngineError> {
        let Self {
            connection,
            page_count,
            ..
        } = self;
        let pages = integer(connection, page_count, c"PRAGMA page_count", "count pages")?;
        Ok(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    fn schema_version(&mut self) -> Result<u64, EngineError> {
        let Self {
            connection,
            schema_version,
            ..
        } = self;
        integer(
            connection,
            schema_version,
            c"PRAGMA schema_version",
            "read the schema's version",
        )
    }

    /// Whether the request is one statement that needs no transaction around it to see one state.
    pub(crate) fn is_single(statements: &[Statement]) -> bool {
        // A semicolon may be inside of a literal: then a transaction is opened for nothing.
        matches!(statements, [one] if !one.sql.trim_end_matches([';', ' ', '\n']).contains(';'))
    }

    /// Whether it is as [`Sql::roll_back`] and [`Sql::switch_back`] leave it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.connection.is_autocommit() && !self.switched
    }

    /// Turns foreign keys off if that is what the request begins with. To be called outside a transaction.
    pub(crate) fn heed_head(&mut self, statements: &[Statement]) {
        let Some(first) = statements.first() else {
            return;
        };
        let head = skip_blank(&first.sql);
        let word = head.as_bytes().get(..PRAGMA.len());
        if !word.is_some_and(|word| word.eq_ignore_ascii_case(PRAGMA)) {
            return;
        }
        let start = first.sql.len() - head.len();
        let mut window = Window::new(&first.sql, self.connection.statement_bytes_max());
        if let Ok(head) = window.at(start) {
            // SQLite turns its switches when it compiles. Whatever is wrong with the statement will be said
            // when it is its turn.
            drop(self.compile(head, false, start, 0));
        }
    }

    /// Looks for a row that refers to none.
    fn check_foreign_keys(&self, statement: usize) -> Result<(), RunError> {
        let connection = &self.connection;
        let failed = |code| failure(connection, code, None, statement, "check foreign keys");
        // Compiled each time: it is made for the tables that there are.
        let compiled =
            connection.internally(|| connection.prepare(c"PRAGMA foreign_key_check", false));
        let (Some(mut check), _) = compiled.map_err(failed)? else {
            return Ok(());
        };
        if check.step().map_err(failed)? == Step::Done {
            return Ok(());
        }
        let mut text = |column| match check.column(column) {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Integer(rowid) => format!("row {rowid}"),
            // Of a table without them.
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => "a row".to_owned(),
        };
        let (table, row, parent) = (text(0), text(1), text(2));
        let code = Code(Code::CONSTRAINT_FOREIGNKEY);
        let message = with_codes("FOREIGN KEY constraint failed".to_owned(), code);
        Err(RunError::Sql(SqlError {
            message: format!(
                "{message}: {row} of table \"{table}\" refers to no row of \"{parent}\""
            ),
            code: code.name(),
            statement,
            text: None,
        }))
    }

    /// Runs the statements of one request. Call [`Sql::switch_back`] once the transaction around it has ended.
    pub(crate) fn run<S: ResultSink>(
        &mut self,
        statements: &[Statement],
        terms: Terms<'_>,
        sink: &mut S,
    ) -> Result<Ran, RunError> {
        let Control {
            deadline,
            steps_max,
        } = *terms.control;
        self.connection.bound(deadline, steps_max);
        self.connection.set_rules(terms.rules);
        let mut run = Run {
            terms,
            statement: 0,
            start: 0,
            in_last_text: false,
            pages: None,
            unended: None,
        };
        let result = statements
            .iter()
            .enumerate()
            .try_for_each(|(index, text)| {
                run.in_last_text = index + 1 == statements.len();
                let result = self.run_text(text, &mut run, sink);
                result.map_err(|error| error.in_text(index))
            })
            .and_then(|()| match run.statement {
                0 => Err(RunError::Sql(own_words(NO_STATEMENT, 0))),
                count => Ok(count),
            })
            .and_then(|count| {
                let unchecked = terms.access == Access::Write
                    && self.switched
                    && !self.connection.enforces_foreign_keys();
                if unchecked {
                    self.check_foreign_keys(count - 1)?;
                }
                Ok(count)
            });
        let result = result.map(|count| Ran {
            count,
            unended: run.unended,
        });
        self.connection.unbound();
        if result.is_err() {
            sink.reset();
        }
        result
    }

    /// Puts back the switches that PRAGMAs of the request turned. Not before its transaction has ended:
    /// `defer_foreign_keys` must hold until the commit.
    pub(crate) fn switch_back(&mut self) -> Result<(), EngineError> {
        if !self.switched {
            return Ok(());
        }
        for switch in SWITCHES_BACK {
            self.connection
                .run_internal(switch)
                .map_err(|code| engine_error(&self.connection, code, "turn a switch back"))?;
        }
        self.switched = false;
        Ok(())
    }

    fn run_text<S: ResultSink>(
        &mut self,
        text: &Statement,
        run: &mut Run<'_>,
        sink: &mut S,
    ) -> Result<(), RunError> {
        sink.begin_text();
        let prepared = self.cached.take(&text.sql);
        if self.untold.count(prepared.is_some()) {
            self.untold.tell(self.connection.take_page_uses());
        }
        if let Some(mut prepared) = prepared {
            run.start = text.sql.len() - skip_blank(&text.sql).len();
            let is_last = run.in_last_text;
            let result = self.run_one(&mut prepared, &text.params, is_last, run, sink);
            self.cached.put(&text.sql, prepared);
            return result;
        }
        let before = run.statement;
        let first = skip_blank(&text.sql);
        if first.is_empty() {
            // Only the request as a whole must have a statement; values need one to go to.
            return match text.params.is_empty() {
                true => Ok(()),
                false => Err(RunError::Sql(own_words(WRONG_COUNT, run.statement))),
            };
        }
        let is_whole = |rest: &str| skip_blank(rest).is_empty();
        let mut start = text.sql.len() - first.len();
        let mut window = Window::new(&text.sql, self.connection.statement_bytes_max());
        loop {
            let sql = &text.sql[start..];
            run.start = start;
            let kept = sql.len() <= CACHED_TEXT_BYTES_MAX;
            let (prepared, used) = loop {
                let Ok(shown) = window.at(start) else {
                    let message = "unrecognized token: \"\\0\": SQLITE_ERROR";
                    return Err(RunError::Sql(own_words(message, run.statement)));
                };
                let compiled = self.compile(shown, kept, start, run.statement);
                let ends_inside = matches!(&compiled, Ok((_, used)) if *used < shown.count_bytes());
                // Perhaps it is only cut off.
                if ends_inside || !window.grow() {
                    break compiled?;
                }
            };
            let after = sql.get(used..).unwrap_or_default();
            let is_last = is_whole(after);
            if let Some(mut prepared) = prepared {
                if is_last {
                    let is_last = run.in_last_text;
                    let result = self.run_one(&mut prepared, &text.params, is_last, run, sink);
                    let is_only = skip_blank(&text.sql).len() == sql.len();
                    // A PRAGMA may do its work when it is compiled, so it must be, each time. What a script may hold
                    // is judged when it is compiled, and not allowed in a request.
                    let by_request = run.terms.rules == Rules::Request;
                    if is_only && kept && by_request && !prepared.marks().pragma {
                        self.cached.put(&text.sql, prepared);
                    }
                    return result;
                }
                if prepared.parameter_count() > 0 {
                    let message = "When executing multiple SQL statements in a single call, only \
                                   the last statement can have parameters.";
                    return Err(RunError::Sql(own_words(message, run.statement)));
                }
                self.run_one(&mut prepared, &[], false, run, sink)?;
            }
            if (is_last || used == 0) && run.statement == before {
                return Err(RunError::Sql(own_words(NO_STATEMENT, before)));
            }
            if is_last || used == 0 {
                return Ok(());
            }
            start = text.sql.len() - skip_blank(after).len();
        }
    }

    fn compile(
        &mut self,
        sql: &CStr,
        kept: bool,
        start: usize,
        statement: usize,
    ) -> Result<(Option<Prepared>, usize), RunError> {
        let mut compiled = self.connection.prepare(sql, kept);
        if let Err(code) = compiled
            && code.primary() == Code::ERROR
        {
            // Perhaps another connection changed the schema. SQLite looks again by itself for some
            // messages only ("no such table"), but running a statement makes it look for any.
            let _ = self
                .connection
                .run_internal(c"SELECT 1 FROM sqlite_schema LIMIT 0");
            compiled = self.connection.prepare(sql, kept);
        }
        self.switched |= self.connection.marks().pragma;
        compiled.map_err(|code| {
            if code.primary() == Code::TOOBIG {
                // With an open end, SQLite notices the limit token by token and says it otherwise.
                return RunError::Sql(SqlError {
                    code: code.name(),
                    ..own_words("statement too long: SQLITE_TOOBIG", statement)
                });
            }
            failure(
                &self.connection,
                code,
                Some(start),
                statement,
                "compile a statement",
            )
        })
    }

    fn run_one<S: ResultSink>(
        &mut self,
        prepared: &mut Prepared,
        params: &[Value],
        is_last: bool,
        run: &mut Run<'_>,
        sink: &mut S,
    ) -> Result<(), RunError> {
        let statement = run.statement;
        run.statement += 1;
        let is_read_only = prepared.is_read_only();
        if run.terms.access == Access::Read && (!is_read_only || prepared.is_command()) {
            return Err(RunError::NotReadOnly { statement });
        }
        if prepared.parameter_count() != params.len() {
            return Err(RunError::Sql(own_words(WRONG_COUNT, statement)));
        }
        (run.terms.between)();
        let pages_before = run.pages();
        let schema_before = match is_read_only || !prepared.marks().schema {
            true => None,
            false => Some(self.schema_version().map_err(RunError::Storage)?),
        };
        let changes_before = self.connection.total_changes();
        let rowid_before = self.connection.last_insert_rowid();
        let steps_before = self.connection.steps();

        sink.begin_statement();
        let started = Instant::now();
        let stepped = self.step_all(prepared, params, run, statement, sink);
        let duration = started.elapsed();
        let (rows_read, rows_written) = (prepared.take_rows_read(), prepared.take_rows_written());
        let steps = prepared.take_steps();
        stepped?;
        match self.connection.check_bounds(steps_before, steps) {
            Some(Stopped::Budget) => return Err(RunError::Budget),
            Some(Stopped::Deadline) => return Err(RunError::Deadline),
            None => {}
        }

        let changes = self.connection.total_changes() - changes_before;
        let last_row_id = self.connection.last_insert_rowid();
        let schema_changed = match schema_before {
            Some(before) => self.schema_version().map_err(RunError::Storage)? != before,
            None => false,
        };
        let changed_db = !is_read_only
            && (changes != 0 || rows_written != 0 || last_row_id != rowid_before || schema_changed);
        let mut statistics = StatementStatistics {
            duration,
            changes,
            last_row_id,
            changed_db,
            size_after: 0,
            rows_read,
            rows_written,
        };
        if !is_read_only && is_last {
            run.unended = Some(Unended {
                statistics,
                pages_before,
            });
            return Ok(());
        }
        if !is_read_only {
            run.pages = Some(self.page_count().map_err(RunError::Storage)?);
        }
        // Of a reader the page count is known only now: the snapshot came with the first step.
        let pages_after = run.pages();
        statistics.changed_db |= !is_read_only && pages_after != pages_before;
        statistics.size_after = u64::from(pages_after) * PAGE_SIZE as u64;
        sink.end_statement(&statistics)?;
        Ok(())
    }

    fn step_all<S: ResultSink>(
        &self,
        prepared: &mut Prepared,
        params: &[Value],
        run: &Run<'_>,
        statement: usize,
        sink: &mut S,
    ) -> Result<(), RunError> {
        // With a place, if the first step compiles it anew.
        let start = Some(run.start);
        let failed = |code| failure(&self.connection, code, start, statement, "run a statement");
        let mut bound = prepared.bind(params).map_err(failed)?;
        let mut columns: Option<usize> = None;
        loop {
            let step = bound.step().map_err(failed)?;
            // Known only now: the first step recompiles the statement after a change of the schema.
            let count = match columns {
                Some(count) => count,
                None => {
                    let count = bound.column_count();
                    if count > 0 {
                        let names: Vec<&str> = (0..count)
                            .map(|i| bound.column_name(i).unwrap_or("?"))
                            .collect();
                        sink.columns(&names)?;
                    }
                    *columns.insert(count)
                }
            };
            if step == Step::Done {
                return Ok(());
            }
            sink.begin_row();
            for column in 0..count {
                sink.cell(column, bound.column(column));
            }
            sink.end_row()?;
        }
    }
}

/// Runs a statement of our own, compiled once.
fn run_own(
    connection: &Connection,
    kept: &mut Option<Prepared>,
    sql: &CStr,
    doing: &'static str,
) -> Result<(), EngineError> {
    with_own(connection, kept, sql, Prepared::run_to_end)
        .map_err(|code| engine_error(connection, code, doing))
}

fn integer(
    connection: &Connection,
    kept: &mut Option<Prepared>,
    sql: &CStr,
    doing: &'static str,
) -> Result<u64, EngineError> {
    let read = |prepared: &mut Prepared| {
        let step = prepared.step();
        let value = prepared.integer(0);
        prepared.reset();
        step.map(|_| u64::try_from(value).unwrap_or(0))
    };
    with_own(connection, kept, sql, read).map_err(|code| engine_error(connection, code, doing))
}

fn with_own<R>(
    connection: &Connection,
    kept: &mut Option<Prepared>,
    sql: &CStr,
    work: impl FnOnce(&mut Prepared) -> Result<R, Code>,
) -> Result<R, Code> {
    connection.internally(|| {
        let prepared = match kept {
            Some(prepared) => prepared,
            None => kept.insert(connection.prepare_internal(sql)?),
        };
        work(prepared)
    })
}

/// A failure that is not SQLite's.
fn own_words(message: &str, statement: usize) -> SqlError {
    SqlError {
        message: message.to_owned(),
        code: "SQLITE_ERROR",
        statement,
        text: None,
    }
}

/// SQLite's last failure as an [`EngineError`].
pub(crate) fn engine_error(
    connection: &Connection,
    code: Code,
    doing: &'static str,
) -> EngineError {
    let message = with_codes(connection.message(), code);
    EngineError::Sqlite {
        doing,
        message,
        code: code.0,
    }
}

/// SQLite's last failure, sorted by whose fault it is. `start`: where the statement's text begins.
fn failure(
    connection: &Connection,
    code: Code,
    start: Option<usize>,
    statement: usize,
    doing: &'static str,
) -> RunError {
    match (code.primary(), connection.stopped()) {
        (Code::INTERRUPT, Some(Stopped::Budget)) => return RunError::Budget,
        (Code::INTERRUPT, Some(Stopped::Deadline)) => return RunError::Deadline,
        (Code::READONLY, _) => return RunError::NotReadOnly { statement },
        _ if code.is_machine() => {
            return RunError::Storage(engine_error(connection, code, doing));
        }
        _ => {}
    }
    let refusal = connection
        .take_refusal()
        .filter(|_| code.primary() == Code::AUTH);
    if let Some(message) = refusal.and_then(|refusal| refusal.message()) {
        return RunError::Sql(SqlError {
            code: code.name(),
            ..own_words(message, statement)
        });
    }
    let mut message = connection.message();
    if let (Some(start), Some(offset)) = (start, connection.error_offset()) {
        message.push_str(&format!(" at offset {}", start + offset));
    }
    RunError::Sql(SqlError {
        message: with_codes(message, code),
        code: code.name(),
        statement,
        text: None,
    })
}

/// D1's form of a message.
fn with_codes(mut message: String, code: Code) -> String {
    let (primary, extended) = (code.primary_name(), code.name());
    message.push_str(": ");
    message.push_str(primary);
    if extended != primary {
        message.push_str(&format!(" (extended: {extended})"));
    }
    message
}

impl Drop for Sql {
    fn drop(&mut self) {
        self.untold.tell(self.connection.take_page_uses());
    }
}

/// Prepared statements by text, least recently used first out.
#[derive(Debug)]
struct StatementCache {
    /// By the hash of their text. Of two with the same one the later stays.
    statements: HashMap<u64, Cached, BuildHasherDefault<AsItIs>>,
    capacity: usize,
    clock: u64,
}

/// A cached statement; absent while it runs.
#[derive(Debug)]
struct Cached {
    text: Box<str>,
    prepared: Option<Prepared>,
    last_used: u64,
}

impl StatementCache {
    fn new(capacity: usize) -> Self {
        Self {
            statements: HashMap::default(),
            capacity,
            clock: 0,
        }
    }

    fn take(&mut self, sql: &str) -> Option<Prepared> {
        let cached = self.statements.get_mut(&hash(sql))?;
        cached.prepared.take_if(|_| *cached.text == *sql)
    }

    fn put(&mut self, sql: &str, prepared: Prepared) {
        self.clock += 1;
        let last_used = self.clock;
        let hash = hash(sql);
        if let Some(cached) = self.statements.get_mut(&hash) {
            if *cached.text != *sql {
                cached.text = sql.into();
            }
            cached.prepared = Some(prepared);
            cached.last_used = last_used;
            return;
        }
        if self.capacity == 0 {
            return;
        }
        if self.statements.len() >= self.capacity {
            let oldest = self
                .statements
                .iter()
                .min_by_key(|(_, cached)| cached.last_used);
            if let Some(oldest) = oldest.map(|(hash, _)| *hash) {
                self.statements.remove(&oldest);
            }
        }
        self.statements.insert(
            hash,
            Cached {
                text: sql.into(),
                prepared: Some(prepared),
                last_used,
            },
        );
    }
}

fn hash(sql: &str) -> u64 {
    xxh3_64(sql.as_bytes())
}

/// For keys that are hashes.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
