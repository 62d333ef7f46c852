//! A door to the decoders that this crate keeps to itself, for fuzz targets alone (feature `fuzzing`).
//!
//! Each function takes what a client may send, and reads or refuses it. A panic is a finding.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tidemark_protocol::{Statement, headers};

use crate::transfer;
use crate::{analytics, ask::Ask, statistics};

/// The headers that are understood, in the order in which [`ask`] takes their values.
pub const HEADERS: [&str; 6] = [
    headers::BOOKMARK,
    headers::READ,
    headers::DEADLINE,
    headers::VALUES,
    headers::REQUEST_ID,
    headers::ON_MISS,
];

/// What a request asks for in its headers: values of [`HEADERS`], over and over. Empty ones are left out.
pub fn ask<'v>(values: impl IntoIterator<Item = &'v [u8]>) {
    let mut map = HeaderMap::new();
    for (name, value) in HEADERS.iter().cycle().zip(values).take(24) {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            map.append(HeaderName::from_static(name), value);
        }
    }
    if let Ok(ask) = Ask::read(&map) {
        let _ = ask.remaining();
    }
}

/// The body of a question in GraphQL.
pub fn question(body: &[u8]) {
    analytics::understood(body);
}

/// The bodies of `import` and `export`.
pub fn transfers(body: &[u8]) {
    transfer::understood(body);
}

/// SQL of a client, as statistics show it: without what is in its literals.
pub fn query_text(sql: &str) -> String {
    statistics::without_literals(&[Statement {
        sql: sql.to_owned(),
        params: Vec::new(),
    }])
}
