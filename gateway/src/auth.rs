//! Bearer tokens.

use std::hint::black_box;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tidemark_protocol::{Failure, FailureKind};

/// The tokens that open the API. Empty: it is open.
pub(crate) struct Tokens(Vec<String>);

impl Tokens {
    pub(crate) fn new(tokens: Vec<String>) -> Self {
        Self(tokens)
    }

    /// Whether the request carries one of them.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| bearer(value.as_bytes()));
        let known = given.is_some_and(|given| {
            // All of them, also after a match: the time taken must not tell which one it was.
            self.0
                .iter()
                .fold(false, |known, token| known | equal(token.as_bytes(), given))
        });
        if known {
            Ok(())
        } else {
            Err(Failure::new(
                FailureKind::Unauthenticated,
                "Authentication error",
            ))
        }
    }
}

/// The token of `Bearer <token>`; the scheme's name has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Compares in a time that depends on the lengths alone, so that a token cannot be guessed byte by
/// byte.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a
        .iter()
        .zip(b)
        .fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
    a.len() == b.len() && differences == 0
}
