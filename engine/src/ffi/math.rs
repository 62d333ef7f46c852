//! The math functions that SQLite has and D1 offers, and that the library is compiled without.
//!
//! As in SQLite, what is not a number, or outside of a function's domain, gives NULL.

use std::ffi::{CStr, c_int, c_void};
use std::{ptr, slice};

use libsql_ffi as c;

use super::code::Code;

/// A number that SQLite gave or gets.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Number {
    Integer(i64),
    Real(f64),
}

/// What a function makes of its arguments.
#[derive(Clone, Copy)]
enum Math {
    Constant(f64),
    One(fn(f64) -> f64),
    Two(fn(f64, f64) -> f64),
    /// An integer stays one.
    Rounding(fn(f64) -> f64),
    /// Of what is above zero.
    Logarithm(fn(f64) -> f64),
    /// Base, then number.
    LogarithmToBase,
}

/// Name, number of arguments, and what SQLite is handed to give back with each call: static, so that it
/// outlives every connection.
static FUNCTIONS: [(&CStr, c_int, Math); 30] = [
    (c"acos", 1, Math::One(f64::acos)),
    (c"acosh", 1, Math::One(f64::acosh)),
    (c"asin", 1, Math::One(f64::asin)),
    (c"asinh", 1, Math::One(f64::asinh)),
    (c"atan", 1, Math::One(f64::atan)),
    (c"atan2", 2, Math::Two(f64::atan2)),
    (c"atanh", 1, Math::One(f64::atanh)),
    (c"ceil", 1, Math::Rounding(f64::ceil)),
    (c"ceiling", 1, Math::Rounding(f64::ceil)),
    (c"cos", 1, Math::One(f64::cos)),
    (c"cosh", 1, Math::One(f64::cosh)),
    (c"degrees", 1, Math::One(f64::to_degrees)),
    (c"exp", 1, Math::One(f64::exp)),
    (c"floor", 1, Math::Rounding(f64::floor)),
    (c"ln", 1, Math::Logarithm(f64::ln)),
    (c"log", 1, Math::Logarithm(f64::log10)),
    (c"log", 2, Math::LogarithmToBase),
    (c"log10", 1, Math::Logarithm(f64::log10)),
    (c"log2", 1, Math::Logarithm(f64::log2)),
    (c"mod", 2, Math::Two(|x, y| x % y)),
    (c"pi", 0, Math::Constant(std::f64::consts::PI)),
    (c"pow", 2, Math::Two(f64::powf)),
    (c"power", 2, Math::Two(f64::powf)),
    (c"radians", 1, Math::One(f64::to_radians)),
    (c"sin", 1, Math::One(f64::sin)),
    (c"sinh", 1, Math::One(f64::sinh)),
    (c"sqrt", 1, Math::One(f64::sqrt)),
    (c"tan", 1, Math::One(f64::tan)),
    (c"tanh", 1, Math::One(f64::tanh)),
    (c"trunc", 1, Math::Rounding(f64::trunc)),
];

/// Adds them to an open connection.
///
/// # Safety
///
/// `connection` is open, and nobody else uses it.
pub(super) unsafe fn add_to(connection: *mut c::sqlite3) -> Result<(), Code> {
    let flags = c::SQLITE_UTF8 | c::SQLITE_DETERMINISTIC | c::SQLITE_INNOCUOUS;
    for (name, arguments, math) in &FUNCTIONS {
        // SAFETY: the caller vouches for the connection; name and user data live as long as the program.
        Code::check(unsafe {
            c::sqlite3_create_function_v2(
                connection,
                name.as_ptr(),
                *arguments,
                flags,
                ptr::from_ref(math).cast_mut().cast::<c_void>(),
                Some(x_call),
                None,
                None,
                None,
            )
        })?;
    }
    Ok(())
}

impl Math {
    fn of(self, arguments: &[Number]) -> Option<Number> {
        let result = match (self, arguments) {
            (Self::Constant(value), []) => value,
            (Self::One(f), [x]) => f(x.real()),
            (Self::Two(f), [x, y]) => f(x.real(), y.real()),
            (Self::Rounding(_), [x @ Number::Integer(_)]) => return Some(*x),
            (Self::Rounding(f), [Number::Real(x)]) => f(*x),
            (Self::Logarithm(f), [x]) => f(x.above_zero()?),
            (Self::LogarithmToBase, [base, x]) => {
                let base = Number::Real(base.above_zero()?.ln()).above_zero()?;
                x.above_zero()?.ln() / base
            }
            _ => return None,
        };
        Some(Number::Real(result))
    }
}

impl Number {
    #[expect(clippy::cast_precision_loss, reason = "as SQLite does")]
    fn real(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Real(value) => value,
        }
    }

    fn above_zero(self) -> Option<f64> {
        Some(self.real()).filter(|value| *value > 0.0)
    }
}

unsafe extern "C" fn x_call(
    context: *mut c::sqlite3_context,
    count: c_int,
    values: *mut *mut c::sqlite3_value,
) {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: SQLite passes as many values as it says, perhaps none and then perhaps no array; the user
    // data are what `add_to` gave, and no panic can come from arithmetic on floating point numbers.
    unsafe {
        let math = *c::sqlite3_user_data(context).cast::<Math>();
        let values = match count {
            0 => &[],
            _ => slice::from_raw_parts(values, count),
        };
        let mut numbers = [Number::Integer(0); 2];
        for (number, value) in numbers.iter_mut().zip(values) {
            *number = match c::sqlite3_value_numeric_type(*value) {
                c::SQLITE_INTEGER => Number::Integer(c::sqlite3_value_int64(*value)),
                c::SQLITE_FLOAT => Number::Real(c::sqlite3_value_double(*value)),
                _ => return, // NULL
            };
        }
        match numbers.get(..count).and_then(|numbers| math.of(numbers)) {
            Some(Number::Integer(value)) => c::sqlite3_result_int64(context, value),
            Some(Number::Real(value)) => c::sqlite3_result_double(context, value),
            None => {}
        }
    }
}
