//! What voters say to each other and keep in their logs.

use tidemark_primary::fuzzing;

use crate::Check;
use crate::memory::bounded;

/// What the first byte of an input chooses from.
pub(crate) const DECODERS: [(&str, Check); 5] = [
    ("request", fuzzing::request),
    ("answer", fuzzing::answer),
    ("entry", fuzzing::entry),
    ("vote", fuzzing::vote),
    ("identity", fuzzing::identity),
];

/// The first byte says what the others are.
pub fn check(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else {
        return;
    };
    let (_, decode) = DECODERS[usize::from(*which) % DECODERS.len()];
    // An entry of the log that says it is long gets a megabyte before it comes.
    bounded(bytes.len(), 64, || decode(bytes));
}
