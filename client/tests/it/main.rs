//! The client against a scripted server: what it sends, what it concludes.

#![allow(clippy::unwrap_used)] // A test may stop at the first surprise.

mod admin;
mod answers;
mod failures;
mod nearest;
mod scripted;
mod sessions;
mod values;
