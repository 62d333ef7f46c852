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

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// Every integer type that always fits; `u64` and `usize` do not, so they are left to the caller.
macro_rules! integers {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::Integer(i64::from(value))
            }
        }
    )*};
}

// SQLite has no booleans: they are 0 and 1.
integers!(i8, i16, i32, u8, u16, u32, bool);

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self::Real(f64::from(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(value: &[u8; N]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
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
