//! What an operator runs around Tidemark: WAN emulation and sample configuration.
