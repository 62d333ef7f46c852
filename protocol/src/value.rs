//! SQL values, owned and borrowed, and statements that carry them.

use serde::{Deserialize, Serialize};

/// A value of one of SQLite's five storage classes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// 64-bit signed integer.
    Integer(i64),
    /// IEEE 754 double.
    Real(f64),
    /// Text, UTF-8.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// A value as it lies in a row that is being read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ValueRef<'row> {
    /// SQL NULL.
    Null,
    /// 64-bit signed integer.
    Integer(i64),
    /// IEEE 754 double.
    Real(f64),
    /// Text. SQLite does not promise that it is valid UTF-8.
    Text(&'row [u8]),
    /// Bytes.
    Blob(&'row [u8]),
}

impl ValueRef<'_> {
    /// The value on its own. Text that is not UTF-8 has its bad bytes replaced by U+FFFD.
    pub fn to_owned(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(integer) => Value::Integer(integer),
            Self::Real(real) => Value::Real(real),
            Self::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            Self::Blob(bytes) => Value::Blob(bytes.to_vec()),
        }
    }
}

/// SQL text with the values of its parameters, in order.
///
/// The text may hold several statements; then only the last may have parameters.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// Values for `?`, `?NNN`, `:a`, `@a`, `$a`, by position.
    pub params: Vec<Value>,
}
