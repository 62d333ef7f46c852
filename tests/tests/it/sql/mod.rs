//! SQL at a node against SQLite's own program: a corpus of statements with what they answer, and statements that
//! nobody wrote.
//!
//! Values are told apart by class as well as by content: `1`, `1.0` and `'1'` are three.

mod corpus;
mod differential;
mod engine;

use self::engine::Engine;
