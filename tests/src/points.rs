//! Named points of the product at which a test has a node die, or do the wrong thing.
//!
//! The points are `fail` points: nothing at all in a binary that is built without that crate's feature, which only
//! builds for tests ask for. A test tells a running node by its standard input ([`Point`], [`Node::tell`]), the
//! node's process hears it here ([`listen`]), so that a point can be armed in a node that leads.
//!
//! [`Node::tell`]: crate::Node::tell

use std::fmt;
use std::io::BufRead;
use std::sync::atomic::{AtomicU32, Ordering};

/// Has a node listen to its standard input.
pub(crate) const VARIABLE: &str = "POINTS_FROM";
/// The value of [`VARIABLE`].
pub(crate) const STDIN: &str = "stdin";

/// What a node is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Point {
    /// The process ends, as if killed, when it passes the point for the `nth` time.
    Crash {
        /// The point.
        name: &'static str,
        /// From 1.
        nth: u32,
    },
    /// What `fail` has in words: `return`, `sleep(100)`, `off`.
    Set {
        /// The point.
        name: &'static str,
        /// The words.
        actions: &'static str,
    },
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash { name, nth } => write!(f, "crash {name} {nth}"),
            Self::Set { name, actions } => write!(f, "set {name} {actions}"),
        }
    }
}

/// What a node logs last that dies at a point.
pub(crate) fn epitaph(name: &str) -> String {
    format!("the process ends at {name}")
}

/// What a node logs once it will do as it was told.
pub(crate) fn heard(point: &Point) -> String {
    format!("told: {point}")
}

/// In a node's process: does what it is told, if anybody is to tell it.
pub fn listen() {
    if std::env::var(VARIABLE).as_deref() != Ok(STDIN) {
        return;
    }
    std::thread::spawn(|| {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            obey(&line);
            eprintln!("told: {line}");
        }
    });
}

fn obey(line: &str) {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    match words[..] {
        ["crash", name, nth] => {
            let left = AtomicU32::new(nth.parse().expect("a number"));
            let name = name.to_owned();
            let told = fail::cfg_callback(name.clone(), move || {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    eprintln!("{}", epitaph(&name));
                    // No destructor runs, no buffer is written.
                    std::process::abort();
                }
            });
            told.expect("a point takes any callback");
        }
        ["set", name, actions] => fail::cfg(name, actions).expect("words that fail knows"),
        _ => panic!("told {line:?}, which means nothing"),
    }
}
