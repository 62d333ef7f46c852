//! What statements of clients may not do, decided while they are compiled.
//!
//! SQLite asks for every action a statement contains, inside triggers and views too. The list follows
//! D1: no attached databases, no temporary objects, no transaction control (every request is one
//! transaction already), PRAGMAs from a list, virtual tables of the modules that are part of the
//! product. Shadow statements of those modules pass through here as well (full-text search reads
//! `data_version`, R-trees read `page_size`).

use libsql_ffi as c;

/// Modules that `CREATE VIRTUAL TABLE` may name.
const MODULES: [&str; 4] = ["fts5", "fts5vocab", "rtree", "rtree_i32"];

/// PRAGMAs that may be given a value: switches that last until the request ends, and questions that
/// take an argument.
const PRAGMAS_WITH_VALUE: [&str; 18] = [
    "case_sensitive_like",
    "defer_foreign_keys",
    "foreign_key_check",
    "foreign_key_list",
    "foreign_keys",
    "ignore_check_constraints",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "legacy_alter_table",
    "optimize",
    "quick_check",
    "recursive_triggers",
    "reverse_unordered_selects",
    "table_info",
    "table_list",
    "table_xinfo",
];

/// PRAGMAs that may be read.
const PRAGMAS_TO_READ: [&str; 14] = [
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "freelist_count",
    "function_list",
    "module_list",
    "page_count",
    "page_size",
    "schema_version",
    "user_version",
];

/// An action a statement contains, as SQLite puts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action<'a> {
    pub(crate) code: i32,
    pub(crate) first: Option<&'a str>,
    pub(crate) second: Option<&'a str>,
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
    /// It controls transactions: what it tried.
    Transaction(&'static str),
    /// Something else; SQLite's own words will do.
    Other,
}

impl Refusal {
    /// A message in place of SQLite's, if there is a better one.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Transaction(what) => Some(format!(
                "{what} is not available: a request is one transaction already; send the statements \
                 that belong together in one batch or in one text"
            )),
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
        c::SQLITE_TRANSACTION => Err(Refusal::Transaction(match action.first {
            Some("BEGIN") => "BEGIN",
            Some("COMMIT") => "COMMIT",
            _ => "ROLLBACK",
        })),
        c::SQLITE_SAVEPOINT => Err(Refusal::Transaction(match action.first {
            Some("BEGIN") => "SAVEPOINT",
            Some("RELEASE") => "RELEASE",
            _ => "ROLLBACK TO",
        })),
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
        c::SQLITE_FUNCTION => {
            let name = action.second.unwrap_or_default();
            refuse_unless(!name.eq_ignore_ascii_case("load_extension"))
        }
        c::SQLITE_PRAGMA => {
            marks.pragma = true;
            let name = action.first.unwrap_or_default();
            let listed = |list: &[&str]| list.iter().any(|known| name.eq_ignore_ascii_case(known));
            refuse_unless(
                listed(&PRAGMAS_WITH_VALUE)
                    || (action.second.is_none() && listed(&PRAGMAS_TO_READ)),
            )
        }
        c::SQLITE_CREATE_VTABLE => {
            marks.schema = true;
            let module = action.second.unwrap_or_default();
            refuse_unless(
                MODULES
                    .iter()
                    .any(|known| module.eq_ignore_ascii_case(known)),
            )
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
