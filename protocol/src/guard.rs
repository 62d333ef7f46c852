//! The CRC under which one node hands a client's request on to another, and that one its answer back.
//!
//! Between nodes nothing else would find a byte that was damaged on the way: the SQL of a write would mean something else,
//! a row of its answer too. The text of it is a header ([`crate::headers::GUARD`]): a CRC of the head, and one of the body
//! where that is held whole, eight hex digits each. The head's covers the body's.

use std::fmt;
use std::str::FromStr;

/// Headers that say something of the connection, and are set after the guard or not by us.
const OUTSIDE: [&str; 11] = [
    "accept",
    "connection",
    "content-length",
    "date",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    crate::headers::GUARD,
];

/// The CRCs of a request or an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guard {
    /// Of the first line, as far as it means something, all headers but a few, and `body`.
    pub head: u32,
    /// Of the body. `None`: it is not held whole, and has none.
    pub body: Option<u32>,
}

/// What a request or an answer says of itself is not what arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damaged {
    /// It says nothing, or nothing that could be understood.
    #[error("it comes without a guard")]
    Missing,
    /// The first line or a header.
    #[error("its head has CRC {got:08x}, and says {expected:08x}")]
    Head {
        /// What arrived.
        got: u32,
        /// What was sent.
        expected: u32,
    },
    /// The body.
    #[error("its body has CRC {got:08x}, and says {expected:08x}")]
    Body {
        /// What arrived.
        got: u32,
        /// What was sent.
        expected: u32,
    },
}

impl Guard {
    /// Of what begins with these words and has these headers, in any order, and this CRC of the body.
    pub fn of<'a>(
        words: &[&str],
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        body: Option<u32>,
    ) -> Self {
        let mut headers: Vec<_> = headers
            .filter(|(name, _)| !OUTSIDE.contains(name))
            .collect();
        // The values of one name keep their order.
        headers.sort_by_key(|(name, _)| *name);
        let mut crc = crc32fast::Hasher::new();
        let mut part = |bytes: &[u8]| {
            crc.update(&(bytes.len() as u64).to_le_bytes());
            crc.update(bytes);
        };
        for word in words {
            part(word.as_bytes());
        }
        for (name, value) in headers {
            part(name.as_bytes());
            part(value);
        }
        match body {
            Some(body) => part(&body.to_le_bytes()),
            None => part(&[]),
        }
        let head = crc.finalize();
        Self { head, body }
    }

    /// Whether a head that came with this guard comes to the same; returns the CRC that the body must have.
    pub fn check_head<'a>(
        self,
        words: &[&str],
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Option<u32>, Damaged> {
        let got = Self::of(words, headers, self.body).head;
        let expected = self.head;
        if got == expected {
            Ok(self.body)
        } else {
            Err(Damaged::Head { got, expected })
        }
    }
}

/// The CRC of a body.
pub fn body_crc<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    pieces.into_iter().for_each(|piece| crc.update(piece));
    crc.finalize()
}

/// The CRC of a body that comes piece by piece.
#[derive(Clone, Debug, Default)]
pub struct BodyCrc(crc32fast::Hasher);

impl BodyCrc {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Whether all of it is what was sent.
    pub fn check(&self, expected: u32) -> Result<(), Damaged> {
        let got = self.0.clone().finalize();
        if got == expected {
            Ok(())
        } else {
            Err(Damaged::Body { got, expected })
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.head)?;
        self.body.map_or(Ok(()), |body| write!(f, "-{body:08x}"))
    }
}

impl FromStr for Guard {
    type Err = Damaged;

    fn from_str(text: &str) -> Result<Self, Damaged> {
        let (head, body) = match text.split_once('-') {
            Some((head, body)) => (head, Some(crc(body)?)),
            None => (text, None),
        };
        let head = crc(head)?;
        Ok(Self { head, body })
    }
}

fn crc(text: &str) -> Result<u32, Damaged> {
    let plain = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let crc = plain.then(|| u32::from_str_radix(text, 16).ok()).flatten();
    crc.ok_or(Damaged::Missing)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const WORDS: [&str; 2] = ["POST", "/d1/x/query"];
    const HEADERS: [(&str, &[u8]); 3] = [
        (
            "tidemark-request-id",
            b"11111111-2222-4333-8444-555555555555",
        ),
        ("x-d1-bookmark", b"first-primary"),
        ("host", b"one"),
    ];

    fn guard() -> Guard {
        Guard::of(
            &WORDS,
            HEADERS.into_iter(),
            Some(body_crc([&b"SELECT 1"[..]])),
        )
    }

    #[test]
    fn text_is_read_back_and_what_is_none_is_refused() {
        for guard in [
            guard(),
            Guard {
                body: None,
                ..guard()
            },
        ] {
            assert_eq!(guard.to_string().parse(), Ok(guard));
        }
        let text = guard().to_string();
        for bad in ["", "1", "+1234567", "12345678-", "123456789", &text[..16]] {
            assert_eq!(bad.parse::<Guard>(), Err(Damaged::Missing), "{bad}");
        }
    }

    #[test]
    fn anything_that_differs_in_a_head_is_noticed_but_not_the_order_or_the_connection() {
        let guard = guard();
        let mut other = HEADERS;
        other.reverse();
        other[0].1 = b"two";
        assert_eq!(guard.check_head(&WORDS, other.into_iter()), Ok(guard.body));
        let refused = |words: &[&str], headers: &[(&str, &[u8])]| {
            guard.check_head(words, headers.iter().copied()).is_err()
        };
        assert!(refused(&["POST", "/d1/y/query"], &HEADERS));
        assert!(refused(&["POST", "/d1/x/quer", "y"], &HEADERS));
        assert!(refused(&WORDS, &HEADERS[1..]));
        let mut changed = HEADERS;
        changed[0].1 = b"11111111-2222-4333-8444-555555555556";
        assert!(refused(&WORDS, &changed));
        let mut renamed = HEADERS;
        renamed[1].0 = "x-d1-bookmarl";
        assert!(refused(&WORDS, &renamed));
        let body = Guard {
            body: Some(1),
            ..guard
        };
        assert!(body.check_head(&WORDS, HEADERS.into_iter()).is_err());
    }

    #[test]
    fn a_body_in_pieces_is_checked_as_a_whole() {
        let expected = guard().body.unwrap();
        let mut crc = BodyCrc::default();
        crc.update(b"SELECT ");
        assert!(crc.check(expected).is_err());
        crc.update(b"1");
        assert_eq!(crc.check(expected), Ok(()));
    }
}
