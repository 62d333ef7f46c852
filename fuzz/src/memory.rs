//! How much memory a decoder takes for the bytes it was given.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What may be taken for no bytes at all: texts of errors, tables made at the first use.
const BASE_BYTES: usize = 1 << 20;

/// Runs `decode`, which was given `input` bytes. It must not have taken more than a fixed amount and
/// `factor` times as many at any time.
///
/// Counts what the whole process takes: nothing else may run meanwhile.
pub fn bounded<T>(input: usize, factor: usize, decode: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let decoded = decode();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = BASE_BYTES + factor * input;
    assert!(
        taken <= most,
        "{input} bytes took {taken} of memory, at most {most} were expected"
    );
    decoded
}
