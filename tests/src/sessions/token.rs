//! What a session carries from one request to the next.

use std::sync::{Mutex, PoisonError};

use tidemark_protocol::Bookmark;

use crate::history::Asked;

const ANYTHING: &str = "first-unconstrained";
const EVERYTHING: &str = "first-primary";

/// A session's token, by the rules of Cloudflare's client: a constraint until the first answer, then the
/// greatest bookmark. Text order is age order.
#[derive(Debug)]
pub(super) struct Token {
    keeps: bool,
    now: Mutex<String>,
}

impl Token {
    /// Of a session that begins with everything there is, or with anything.
    pub(super) fn new(everything: bool) -> Self {
        let start = if everything { EVERYTHING } else { ANYTHING };
        Self {
            keeps: true,
            now: Mutex::new(start.to_owned()),
        }
    }

    /// Of a client that forgets each answer.
    pub(super) fn careless() -> Self {
        Self {
            keeps: false,
            ..Self::new(false)
        }
    }

    /// What the next request carries, and what that asks for.
    pub(super) fn now(&self) -> (String, Asked) {
        let text = self.lock().clone();
        let asked = match &*text {
            ANYTHING => Asked::Anything,
            EVERYTHING => Asked::Everything,
            bookmark => {
                let bookmark: Bookmark = bookmark.parse().expect("a node's bookmark");
                Asked::From(bookmark.claimed())
            }
        };
        (text, asked)
    }

    /// An answer came with this one.
    pub(super) fn observe(&self, bookmark: &Bookmark) {
        if !self.keeps {
            return;
        }
        let text = bookmark.to_string();
        let mut now = self.lock();
        if [ANYTHING, EVERYTHING].contains(&&**now) || *now < text {
            *now = text;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, String> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
