//! The catalogue is read as in `tidemark_protocol::catalogue`.
