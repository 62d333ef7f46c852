//! libFuzzer's door to `tidemark_fuzz::files`.

#![no_main]
#![allow(unsafe_code, missing_docs, reason = "what the macro makes")]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidemark_fuzz::files::check(bytes));
