//! Files that a voter reads at its start, and images of databases that voters send each other.

use tidemark_primary::fuzzing;

use crate::memory::bounded;
use crate::sealed;

/// Where the CRC of the file `applied` lies.
const APPLIED_CRC_AT: usize = 8;
/// What the first byte of an input chooses from.
pub(crate) const CHAIN: u8 = 0;
pub(crate) const REQUESTS: u8 = 1;
pub(crate) const APPLIED: u8 = 2;
pub(crate) const IMAGE: u8 = 3;
pub(crate) const MESSAGES: u8 = 4;

/// The first byte says what the others are.
pub fn check(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else {
        return;
    };
    bounded(bytes.len(), 64, || match which % 5 {
        CHAIN => {
            fuzzing::chain(bytes);
            fuzzing::chain(&sealed::at_the_end(bytes));
        }
        REQUESTS => {
            fuzzing::requests(bytes);
            fuzzing::requests(&sealed::at_the_end(bytes));
        }
        APPLIED => {
            fuzzing::applied(bytes);
            fuzzing::applied(&sealed::behind(APPLIED_CRC_AT, bytes));
        }
        IMAGE => image(bytes),
        _ => image(&messages(bytes)),
    });
}

/// However it comes in, it has the same pieces.
fn image(body: &[u8]) {
    let whole = fuzzing::image(body, body.len());
    for chunk in [7, 4096] {
        assert_eq!(fuzzing::image(body, chunk), whole, "in pieces of {chunk}");
    }
}

/// A body of messages that are whole: the kind of each, two bytes of length, its payload.
fn messages(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let [kind, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (payload, after) = after.split_at(length);
        if *kind == 0 {
            // Not a message: the table at the end, or what somebody has in its place.
            body.extend_from_slice(payload);
        } else {
            body.extend(sealed::message(*kind, payload));
        }
        rest = after;
    }
    body
}
