//! Two kinds of sixteen bytes in hex: what opens a link, and what a file's content hashes to.

use std::fmt;
use std::str::FromStr;

/// Not thirty-two hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not 32 hexadecimal digits")]
pub(super) struct NotHex;

/// What opens one link. Nobody else can guess it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Secret(pub(super) [u8; 16]);

/// The md5 of a file, which D1 has for its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Etag(pub(super) [u8; 16]);

fn parse(text: &str) -> Result<[u8; 16], NotHex> {
    let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).map_err(|_| NotHex)?;
    plain.then_some(number.to_be_bytes()).ok_or(NotHex)
}

impl FromStr for Secret {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse(text).map(Self)
    }
}

impl FromStr for Etag {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        parse(text).map(Self)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// It must not come into a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
