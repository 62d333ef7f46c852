//! The Rust client of Tidemark: sessions that thread bookmarks by themselves.
