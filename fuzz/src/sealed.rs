//! Checksums and lengths made right.

use tidemark_protocol::stream::{ENVELOPE_BYTES, STREAM_VERSION};

/// Bytes before the first page of a transaction record.
const RECORD_HEADER_BYTES: usize = 112;

/// `payload` as a message of the replica stream.
pub fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("inputs are short");
    let mut covered = vec![STREAM_VERSION, kind, 0, 0];
    covered.extend(length.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&covered);
    crc.update(payload);
    let crc = crc.finalize().to_le_bytes();
    let message = [b"TMST", &covered[..], &crc, payload].concat();
    assert_eq!(message.len(), ENVELOPE_BYTES + payload.len());
    message
}

/// Bytes as a transaction record whose length and CRC are right. Too few are left as they are.
pub fn record(bytes: &[u8]) -> Vec<u8> {
    let mut record = bytes.to_vec();
    if record.len() >= RECORD_HEADER_BYTES {
        record[..4].copy_from_slice(b"TMTX");
        record[4..8].copy_from_slice(&[1, 0, 0, 0]);
        let length = u32::try_from(bytes.len()).expect("inputs are short");
        record[8..12].copy_from_slice(&length.to_le_bytes());
        let crc = crc32fast::hash(&record[16..]);
        record[12..16].copy_from_slice(&crc.to_le_bytes());
    }
    record
}

/// Bytes whose last four are the CRC of those before.
pub fn at_the_end(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    if let Some(at) = sealed.len().checked_sub(4) {
        let crc = crc32fast::hash(&sealed[..at]);
        sealed[at..].copy_from_slice(&crc.to_le_bytes());
    }
    sealed
}

/// Bytes whose four from `at` are the CRC of those behind.
pub fn behind(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    if sealed.len() >= at + 4 {
        let crc = crc32fast::hash(&sealed[at + 4..]);
        sealed[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    sealed
}
