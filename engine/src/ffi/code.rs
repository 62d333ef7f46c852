//! SQLite's result codes, with their names.

use libsql_ffi as c;

/// An extended result code of SQLite that is not success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Code(pub(crate) i32);

impl Code {
    pub(crate) const AUTH: i32 = c::SQLITE_AUTH;
    pub(crate) const BUSY: i32 = c::SQLITE_BUSY;
    pub(crate) const CANTOPEN: i32 = c::SQLITE_CANTOPEN;
    pub(crate) const CONSTRAINT_FOREIGNKEY: i32 = c::SQLITE_CONSTRAINT_FOREIGNKEY;
    pub(crate) const CORRUPT: i32 = c::SQLITE_CORRUPT;
    pub(crate) const ERROR: i32 = c::SQLITE_ERROR;
    pub(crate) const FULL: i32 = c::SQLITE_FULL;
    pub(crate) const INTERNAL: i32 = c::SQLITE_INTERNAL;
    pub(crate) const INTERRUPT: i32 = c::SQLITE_INTERRUPT;
    pub(crate) const IOERR: i32 = c::SQLITE_IOERR;
    pub(crate) const MISUSE: i32 = c::SQLITE_MISUSE;
    pub(crate) const NOMEM: i32 = c::SQLITE_NOMEM;
    pub(crate) const NOTADB: i32 = c::SQLITE_NOTADB;
    pub(crate) const PROTOCOL: i32 = c::SQLITE_PROTOCOL;
    pub(crate) const READONLY: i32 = c::SQLITE_READONLY;
    pub(crate) const TOOBIG: i32 = c::SQLITE_TOOBIG;

    /// Success is `Ok`.
    pub(crate) fn check(raw: i32) -> Result<(), Code> {
        if raw == c::SQLITE_OK {
            Ok(())
        } else {
            Err(Code(raw))
        }
    }

    /// The primary code, without the extended part.
    pub(crate) fn primary(self) -> i32 {
        self.0 & 0xff
    }

    /// Whether it tells of the machine rather than of a statement.
    ///
    /// A corrupt virtual table is the statement's affair: clients can write nonsense into the shadow
    /// tables of their own full-text index. So is what is full: while a statement runs nothing of it reaches a disk, but
    /// there may be no row id left above the largest.
    pub(crate) fn is_machine(self) -> bool {
        matches!(
            self.primary(),
            Self::INTERNAL
                | Self::BUSY
                | Self::NOMEM
                | Self::IOERR
                | Self::CORRUPT
                | Self::CANTOPEN
                | Self::PROTOCOL
                | Self::MISUSE
                | Self::NOTADB
        ) && self.0 != c::SQLITE_CORRUPT_VTAB
    }

    /// The primary code's name.
    pub(crate) fn primary_name(self) -> &'static str {
        primary_name(self.primary())
    }

    /// The extended code's name; the primary one's if it has none of its own.
    pub(crate) fn name(self) -> &'static str {
        EXTENDED
            .iter()
            .find(|(code, _)| *code == self.0)
            .map_or_else(|| self.primary_name(), |(_, name)| name)
    }
}

fn primary_name(code: i32) -> &'static str {
    const NAMES: [&str; 29] = [
        "SQLITE_OK",
        "SQLITE_ERROR",
        "SQLITE_INTERNAL",
        "SQLITE_PERM",
        "SQLITE_ABORT",
        "SQLITE_BUSY",
        "SQLITE_LOCKED",
        "SQLITE_NOMEM",
        "SQLITE_READONLY",
        "SQLITE_INTERRUPT",
        "SQLITE_IOERR",
        "SQLITE_CORRUPT",
        "SQLITE_NOTFOUND",
        "SQLITE_FULL",
        "SQLITE_CANTOPEN",
        "SQLITE_PROTOCOL",
        "SQLITE_EMPTY",
        "SQLITE_SCHEMA",
        "SQLITE_TOOBIG",
        "SQLITE_CONSTRAINT",
        "SQLITE_MISMATCH",
        "SQLITE_MISUSE",
        "SQLITE_NOLFS",
        "SQLITE_AUTH",
        "SQLITE_FORMAT",
        "SQLITE_RANGE",
        "SQLITE_NOTADB",
        "SQLITE_NOTICE",
        "SQLITE_WARNING",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|i| NAMES.get(i))
        .copied()
        .unwrap_or("SQLITE_UNKNOWN")
}

/// Extended codes that a statement of a client can bring about.
const EXTENDED: [(i32, &str); 20] = [
    (c::SQLITE_CONSTRAINT_CHECK, "SQLITE_CONSTRAINT_CHECK"),
    (
        c::SQLITE_CONSTRAINT_COMMITHOOK,
        "SQLITE_CONSTRAINT_COMMITHOOK",
    ),
    (c::SQLITE_CONSTRAINT_DATATYPE, "SQLITE_CONSTRAINT_DATATYPE"),
    (
        c::SQLITE_CONSTRAINT_FOREIGNKEY,
        "SQLITE_CONSTRAINT_FOREIGNKEY",
    ),
    (c::SQLITE_CONSTRAINT_FUNCTION, "SQLITE_CONSTRAINT_FUNCTION"),
    (c::SQLITE_CONSTRAINT_NOTNULL, "SQLITE_CONSTRAINT_NOTNULL"),
    (c::SQLITE_CONSTRAINT_PINNED, "SQLITE_CONSTRAINT_PINNED"),
    (
        c::SQLITE_CONSTRAINT_PRIMARYKEY,
        "SQLITE_CONSTRAINT_PRIMARYKEY",
    ),
    (c::SQLITE_CONSTRAINT_ROWID, "SQLITE_CONSTRAINT_ROWID"),
    (c::SQLITE_CONSTRAINT_TRIGGER, "SQLITE_CONSTRAINT_TRIGGER"),
    (c::SQLITE_CONSTRAINT_UNIQUE, "SQLITE_CONSTRAINT_UNIQUE"),
    (c::SQLITE_CONSTRAINT_VTAB, "SQLITE_CONSTRAINT_VTAB"),
    (
        c::SQLITE_ERROR_MISSING_COLLSEQ,
        "SQLITE_ERROR_MISSING_COLLSEQ",
    ),
    (c::SQLITE_ERROR_RETRY, "SQLITE_ERROR_RETRY"),
    (c::SQLITE_CORRUPT_VTAB, "SQLITE_CORRUPT_VTAB"),
    (c::SQLITE_CORRUPT_INDEX, "SQLITE_CORRUPT_INDEX"),
    (c::SQLITE_CORRUPT_SEQUENCE, "SQLITE_CORRUPT_SEQUENCE"),
    (c::SQLITE_ABORT_ROLLBACK, "SQLITE_ABORT_ROLLBACK"),
    (c::SQLITE_LOCKED_VTAB, "SQLITE_LOCKED_VTAB"),
    (c::SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT"),
];
