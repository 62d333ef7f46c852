//! A row as a Rust type, through serde.
//!
//! | target | takes |
//! |---|---|
//! | struct, map | the columns by name; of equal names the last, as D1 has it |
//! | tuple, sequence | the columns by place |
//! | anything else | the only column |
//!
//! Within a column: integers of every width with their range checked, `bool` from 0 and 1, `f64` also
//! from an integer that it represents exactly, `Option` for NULL, `Vec<u8>` and byte buffers from
//! blobs, unit enums from their names, [`Value`] from everything.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use tidemark_protocol::Value;

/// Why a row does not fit its type.
#[derive(Debug)]
pub(crate) struct RowError(String);

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RowError {}

impl serde::de::Error for RowError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl RowError {
    fn in_column(self, column: &str) -> Self {
        Self(format!("column '{column}': {}", self.0))
    }
}

/// Reads one row as a `T`.
pub(crate) fn from_row<T: DeserializeOwned>(
    columns: &[String],
    row: Vec<Value>,
) -> Result<T, RowError> {
    if columns.len() != row.len() {
        return Err(RowError(format!(
            "row has {} values, expected {}",
            row.len(),
            columns.len()
        )));
    }
    T::deserialize(Row {
        columns,
        values: row,
    })
}

/// Reads one value as a `T`.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, RowError> {
    T::deserialize(Cell(value))
}

struct Row<'a> {
    columns: &'a [String],
    values: Vec<Value>,
}

impl Row<'_> {
    /// The only column.
    fn only(mut self) -> Result<Cell, RowError> {
        match (self.values.pop(), self.values.len()) {
            (Some(value), 0) => Ok(Cell(value)),
            _ => Err(RowError(format!(
                "row has {} columns, expected 1: want a struct, map or tuple for several",
                self.columns.len()
            ))),
        }
    }
}

macro_rules! by_only_column {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
            self.only()?.$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Row<'_> {
    type Error = RowError;

    by_only_column! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_option
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_map(ByName {
            columns: self.columns,
            values: self.values.into_iter().enumerate(),
            next: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_seq(ByPlace {
            columns: self.columns,
            values: self.values.into_iter().enumerate(),
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        if length != self.values.len() {
            return Err(RowError(format!(
                "row has {} columns, expected {length}",
                self.values.len()
            )));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }

    // `()` asks for nothing of the row.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        self.only()?.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }
}

type Values = std::iter::Enumerate<std::vec::IntoIter<Value>>;

struct ByName<'a> {
    columns: &'a [String],
    values: Values,
    next: Option<(usize, Value)>,
}

impl<'de> MapAccess<'de> for ByName<'_> {
    type Error = RowError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, RowError> {
        // Quadratic in the columns of one row, of which there are few.
        let shown = |index: usize| !self.columns[index + 1..].contains(&self.columns[index]);
        let Some((index, value)) = self.values.find(|(index, _)| shown(*index)) else {
            return Ok(None);
        };
        self.next = Some((index, value));
        let name: StringDeserializer<RowError> = self.columns[index].clone().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, RowError> {
        let (index, value) = self
            .next
            .take()
            .ok_or_else(|| RowError::custom("value asked for before its key"))?;
        seed.deserialize(Cell(value))
            .map_err(|error| error.in_column(&self.columns[index]))
    }
}

struct ByPlace<'a> {
    columns: &'a [String],
    values: Values,
}

impl<'de> SeqAccess<'de> for ByPlace<'_> {
    type Error = RowError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, RowError> {
        let Some((index, value)) = self.values.next() else {
            return Ok(None);
        };
        seed.deserialize(Cell(value))
            .map(Some)
            .map_err(|error| error.in_column(&self.columns[index]))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// Whether a 64-bit float represents `value` exactly: its significant bits fit the mantissa.
fn float_holds(value: i64) -> bool {
    let magnitude = value.unsigned_abs();
    magnitude == 0 || magnitude >> magnitude.trailing_zeros() < 1 << f64::MANTISSA_DIGITS
}

/// One value.
struct Cell(Value);

/// Variants of [`Value`]'s derived form. A type that asks for an enum of this name and these variants
/// is [`Value`] itself.
const VALUE_NAME: &str = "Value";
const VALUE_VARIANTS: &[&str] = &["Null", "Integer", "Real", "Text", "Blob"];

impl Cell {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0 {
            Value::Null => Unexpected::Other("NULL"),
            Value::Integer(value) => Unexpected::Signed(*value),
            Value::Real(value) => Unexpected::Float(*value),
            Value::Text(value) => Unexpected::Str(value),
            Value::Blob(_) => Unexpected::Other("blob"),
        }
    }
}

impl<'de> Deserializer<'de> for Cell {
    type Error = RowError;

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string unit unit_struct
        map struct identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Integer(value) => visitor.visit_i64(value),
            Value::Real(value) => visitor.visit_f64(value),
            Value::Text(value) => visitor.visit_string(value),
            Value::Blob(value) => visitor.visit_byte_buf(value),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Integer(0) => visitor.visit_bool(false),
            Value::Integer(1) => visitor.visit_bool(true),
            Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) | Value::Blob(_) => {
                Err(RowError::invalid_type(self.unexpected(), &"0 or 1"))
            }
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Integer(value) if float_holds(value) => visitor.visit_f64(value as f64),
            Value::Integer(value) => Err(RowError::invalid_value(
                Unexpected::Signed(value),
                &"an integer that a 64-bit float represents exactly",
            )),
            Value::Null | Value::Real(_) | Value::Text(_) | Value::Blob(_) => {
                self.deserialize_any(visitor)
            }
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        self.deserialize_any(visitor)
    }

    /// `Vec<u8>` asks for a sequence, so a blob is one.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Blob(bytes) => {
                visitor.visit_seq(serde::de::value::SeqDeserializer::new(bytes.into_iter()))
            }
            Value::Null | Value::Integer(_) | Value::Real(_) | Value::Text(_) => {
                self.deserialize_any(visitor)
            }
        }
    }

    /// `[u8; N]` asks for a tuple.
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            Value::Integer(_) | Value::Real(_) | Value::Text(_) | Value::Blob(_) => {
                visitor.visit_some(self)
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, RowError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, RowError> {
        if name == VALUE_NAME && variants == VALUE_VARIANTS {
            return visitor.visit_enum(WholeValue(self));
        }
        match self.0 {
            Value::Text(text) => visitor.visit_enum(text.into_deserializer()),
            Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => Err(
                RowError::invalid_type(self.unexpected(), &"text that names a variant"),
            ),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, RowError> {
        visitor.visit_unit()
    }
}

/// [`Value`] asked for as itself.
struct WholeValue(Cell);

impl<'de> EnumAccess<'de> for WholeValue {
    type Error = RowError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), RowError> {
        let variant = VALUE_VARIANTS[match self.0.0 {
            Value::Null => 0,
            Value::Integer(_) => 1,
            Value::Real(_) => 2,
            Value::Text(_) => 3,
            Value::Blob(_) => 4,
        }];
        let name: serde::de::value::StrDeserializer<'_, RowError> = variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for WholeValue {
    type Error = RowError;

    fn unit_variant(self) -> Result<(), RowError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, RowError> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _length: usize,
        _visitor: V,
    ) -> Result<V::Value, RowError> {
        Err(RowError::custom("a value has no tuple variant"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, RowError> {
        Err(RowError::custom("a value has no struct variant"))
    }
}

#[cfg(test)]
mod tests;
