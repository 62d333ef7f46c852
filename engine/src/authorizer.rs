//! What statements of clients may not do, decided while they are compiled.
//!
//! SQLite asks for every action a statement contains, inside triggers and views too. The list follows
//! D1: no attached databases, no temporary objects, no transaction control (every request is one
//! transaction already), PRAGMAs from a list, virtual tables of the modules that are part of the
//! product, functions from a list: one that is compiled in and not on it, `fts3_tokenizer`, takes and gives
//! addresses of code. Shadow statements of those modules pass through here as well (full-text search reads
//! `data_version`, R-trees read `page_size`).

mod functions;

use libsql_ffi as c;

/// Modules that `CREATE VIRTUAL TABLE` may name.
const MODULES: [&str; 4] = ["fts5", "fts5vocab", "rtree", "rtree_i32"];

/// PRAGMAs that are switches, which last until the request ends.
const PRAGMAS_TO_SWITCH: [&str; 7] = [
    "case_sensitive_like",
    "defer_foreign_keys",
    "foreign_keys",
    "ignore_check_constraints",
    "legacy_alter_table",
    "recursive_triggers",
    "reverse_unordered_selects",
];

/// What a switch may be set to. SQLite takes any other word for "off".
const SWITCH_VALUES: [&str; 8] = ["0", "1", "false", "no", "off", "on", "true", "yes"];

/// PRAGMAs that are questions with an argument.
const PRAGMAS_TO_ASK: [&str; 11] = [
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "optimize",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// PRAGMAs that may be read.
const PRAGMAS_TO_READ: [&str; 13] = [
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "encoding",
    "freelist_count",
    "function_list",
    "module_list",
    "page_count",
    "page_size",
    "schema_version",
    "user_version",
];

/// D1's words, though there is no such API here: programs and people know them.
const TRANSACTION: &str = "To execute a transaction, please use the state.storage.transaction() or \
    state.storage.transactionSync() APIs instead of the SQL BEGIN TRANSACTION or SAVEPOINT statements. \
    The JavaScript API is safer because it will automatically roll back on exceptions, and because it \
    interacts correctly with Durable Objects' automatic atomic write coalescing.";

/// An action a statement contains, as SQLite puts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action<'a> {
    pub(crate) code: i32,
    pub(crate) first: Option<&'a str>,
    pub(crate) second: Option<&'a str>,
    pub(crate) database: Option<&'a str>,
}

/// What was noticed about a statement besides whether it is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Marks {
    /// It may change the schema.
    pub(crate) schema: bool,
    /// It contains a PRAGMA, which may have taken effect while it was compiled.
    pub(crate) pragma: bool,
}

/// A statement is not allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It controls transactions.
    Transaction,
    /// Something else; SQLite's own words will do.
    Other,
}

impl Refusal {
    /// D1's whole message in place of SQLite's, if it has one.
    pub(crate) fn message(&self) -> Option<&'static str> {
        match self {
            Self::Transaction => Some(TRANSACTION),
            Self::Other => None,
        }
    }
}

/// Whether it begins or commits a transaction, as files of SQL do around what they hold. Not what undoes one.
pub(crate) fn is_frame(action: &Action<'_>) -> bool {
    action.code == c::SQLITE_TRANSACTION && matches!(action.first, Some("BEGIN" | "COMMIT"))
}

/// Judges one action of a statement and notes what it tells about the statement.
pub(crate) fn judge(action: &Action<'_>, marks: &mut Marks) -> Result<(), Refusal> {
    let refuse_unless = |allowed: bool| if allowed { Ok(()) } else { Err(Refusal::Other) };
    match action.code {
        c::SQLITE_TRANSACTION | c::SQLITE_SAVEPOINT => Err(Refusal::Transaction),
        c::SQLITE_ATTACH
        | c::SQLITE_DETACH
        | c::SQLITE_CREATE_TEMP_INDEX
        | c::SQLITE_CREATE_TEMP_TABLE
        | c::SQLITE_CREATE_TEMP_TRIGGER
        | c::SQLITE_CREATE_TEMP_VIEW
        | c::SQLITE_DROP_TEMP_INDEX
        | c::SQLITE_DROP_TEMP_TABLE
        | c::SQLITE_DROP_TEMP_TRIGGER
        | c::SQLITE_DROP_TEMP_VIEW => Err(Refusal::Other),
        // `CREATE TABLE temp.t` is no CREATE_TEMP_TABLE, but every object is a row of its schema.
        c::SQLITE_INSERT => refuse_unless(action.database != Some("temp")),
        c::SQLITE_FUNCTION => {
            refuse_unless(functions::is_permitted(action.second.unwrap_or_default()))
        }
        c::SQLITE_PRAGMA => {
            marks.pragma = true;
            let name = action.first.unwrap_or_default();
            let listed = |list: &[&str]| among(list, name);
            refuse_unless(match action.second {
                None => {
                    listed(&PRAGMAS_TO_READ)
                        || listed(&PRAGMAS_TO_SWITCH)
                        || listed(&PRAGMAS_TO_ASK)
                }
                Some(value) => {
                    listed(&PRAGMAS_TO_ASK)
                        || (listed(&PRAGMAS_TO_SWITCH) && among(&SWITCH_VALUES, value))
                }
            })
        }
        c::SQLITE_CREATE_VTABLE => {
            marks.schema = true;
            let module = action.second.unwrap_or_default();
            refuse_unless(among(&MODULES, module))
        }
        c::SQLITE_CREATE_INDEX
        | c::SQLITE_CREATE_TABLE
        | c::SQLITE_CREATE_TRIGGER
        | c::SQLITE_CREATE_VIEW
        | c::SQLITE_DROP_INDEX
        | c::SQLITE_DROP_TABLE
        | c::SQLITE_DROP_TRIGGER
        | c::SQLITE_DROP_VIEW
        | c::SQLITE_DROP_VTABLE
        | c::SQLITE_ALTER_TABLE
        | c::SQLITE_REINDEX
        | c::SQLITE_ANALYZE => {
            marks.schema = true;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn among(list: &[&str], name: &str) -> bool {
    list.iter().any(|known| name.eq_ignore_ascii_case(known))
}
