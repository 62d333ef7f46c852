//! A door to the decoders that this crate keeps to itself, for fuzz targets alone (feature `fuzzing`).
//!
//! Each function takes any bytes, and reads or refuses them. What was read must be written as bytes that are
//! read as the same again; if not, the function panics. `samples` of each are what the encoders write.

use bytes::Bytes;

use crate::chain::Chain;
use crate::pipeline;

pub use crate::consensus::fuzzing::{answer, applied, entry, identity, request, samples, vote};
pub use crate::install::fuzzing::{image, images};

/// The file `chain`, which is also the manifest of a state for another voter.
pub fn chain(bytes: &[u8]) {
    if let Ok(chain) = Chain::decode(bytes) {
        assert_eq!(Chain::decode(&chain.encode()), Ok(chain));
    }
}

/// What the file `chain` holds of one database, and of none.
pub fn chains() -> Vec<Vec<u8>> {
    use tidemark_protocol::{DatabaseId, Epoch, Position, Seq, StateChecksum};

    let position = |seq| Position {
        epoch: Epoch::FIRST,
        seq: Seq(seq),
        checksum: StateChecksum(!seq),
    };
    // One: several come in any order.
    let positions = [(DatabaseId::from_bytes([7; 16]), position(9))];
    let chain = Chain {
        index: Some(crate::consensus::LogIndex(12)),
        positions: positions.into(),
    };
    vec![Chain::default().encode(), chain.encode()]
}

/// The file `requests`, which voters also send each other.
pub fn requests(bytes: &[u8]) {
    let again = |bytes: &[u8]| pipeline::requests_again(&Bytes::copy_from_slice(bytes));
    if let Some(written) = again(bytes) {
        assert_eq!(again(&written).as_ref(), Some(&written));
    }
}
