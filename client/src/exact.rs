//! Values in JSON without loss: what `tidemark-values: exact` means, both ways.
//!
//! | value | JSON |
//! |---|---|
//! | NULL | `null` |
//! | integer | integer, all 64 bits |
//! | real | number with a point or an exponent; `{"real":"Infinity"}`, `{"real":"-Infinity"}` |
//! | text | string |
//! | blob | `{"base64":"…"}`, standard alphabet, padded |
//!
//! Trap: JSON has no way to say that `1` is a real, so the point of `1.0` carries the type.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Unexpected, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidemark_protocol::Value;

const BASE64: &str = "base64";
const REAL: &str = "real";
const INFINITY: &str = "Infinity";
const INFINITY_NEGATIVE: &str = "-Infinity";

/// A value as JSON without loss, the way it travels to the server.
///
/// Integers keep all 64 bits, reals their point, blobs are `{"base64":"…"}`, infinities
/// `{"real":"Infinity"}` and `{"real":"-Infinity"}`. NaN is `null`: SQLite has none.
#[derive(Clone, Copy, Debug)]
pub struct ExactJson<'a>(pub &'a Value);

impl Serialize for ExactJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tagged = |serializer: S, tag: &str, text: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(tag, text)?;
            map.end()
        };
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Integer(value) => serializer.serialize_i64(*value),
            // SQLite knows no NaN: it stores NULL.
            Value::Real(value) if value.is_nan() => serializer.serialize_unit(),
            Value::Real(f64::INFINITY) => tagged(serializer, REAL, INFINITY),
            Value::Real(f64::NEG_INFINITY) => tagged(serializer, REAL, INFINITY_NEGATIVE),
            Value::Real(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
            Value::Blob(value) => tagged(serializer, BASE64, &STANDARD.encode(value)),
        }
    }
}

/// A value as the server sent it.
#[derive(Debug)]
pub(crate) struct Exact(pub(crate) Value);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExactVisitor).map(Self)
    }
}

struct ExactVisitor;

impl<'de> Visitor<'de> for ExactVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a number, a string, {\"base64\":…} or {\"real\":…}")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Integer(i64::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Integer)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &"a 64-bit signed integer"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Real(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some((tag, text)) = map.next_entry::<String, String>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let value =
            match (tag.as_str(), text.as_str()) {
                (BASE64, text) => Value::Blob(STANDARD.decode(text).map_err(|error| {
                    A::Error::custom(format_args!("blob is not base64: {error}"))
                })?),
                (REAL, INFINITY) => Value::Real(f64::INFINITY),
                (REAL, INFINITY_NEGATIVE) => Value::Real(f64::NEG_INFINITY),
                (REAL, text) => return Err(A::Error::invalid_value(Unexpected::Str(text), &self)),
                (tag, _) => return Err(A::Error::unknown_field(tag, &[BASE64, REAL])),
            };
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(_) => Err(A::Error::invalid_length(2, &"an object of one field")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            // SQLite stores no NaN, so neither does the form.
            any::<f64>()
                .prop_filter("NaN", |v| !v.is_nan())
                .prop_map(Value::Real),
            Just(Value::Real(f64::INFINITY)),
            Just(Value::Real(f64::NEG_INFINITY)),
            Just(Value::Real(-0.0)),
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Blob),
        ]
    }

    proptest! {
        /// At stake: what is bound is what is stored, to the bit and to the storage class.
        #[test]
        fn value_survives_the_round_trip(value in any_value()) {
            let json = serde_json::to_string(&ExactJson(&value)).unwrap();
            let back = serde_json::from_str::<Exact>(&json).unwrap().0;
            if let (Value::Real(there), Value::Real(back)) = (&value, &back) {
                prop_assert_eq!(there.to_bits(), back.to_bits());
            } else {
                prop_assert_eq!(back, value);
            }
        }

        /// At stake: no bytes from outside make the reader panic.
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}\":,a-z0-9.e-]{0,40}") {
            let _ = serde_json::from_str::<Exact>(&text);
        }
    }

    #[test]
    fn nan_is_bound_as_null() {
        assert_eq!(
            serde_json::to_string(&ExactJson(&Value::Real(f64::NAN))).unwrap(),
            "null"
        );
    }

    #[test]
    fn integral_real_keeps_its_point() {
        assert_eq!(
            serde_json::to_string(&ExactJson(&Value::Real(1.0))).unwrap(),
            "1.0"
        );
    }

    #[test]
    fn integer_beyond_64_bits_and_strange_objects_are_refused() {
        for text in [
            "9223372036854775808",
            "{}",
            "[1]",
            r#"{"base64":"*"}"#,
            r#"{"real":"NaN"}"#,
            r#"{"blob":"AA=="}"#,
            r#"{"base64":"","real":"Infinity"}"#,
        ] {
            assert!(
                serde_json::from_str::<Exact>(text).is_err(),
                "{text} was accepted"
            );
        }
    }
}
