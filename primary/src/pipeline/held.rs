//! Transactions that are executed and not proposed yet.
//!
//! Each proposal by itself wakes consensus and is an append of its own, so those of transactions that are executed
//! back to back go together. They wait for short executions alone: before one that takes longer, and in the
//! middle of it if need be, they are proposed. While it runs, nobody can be told how they ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tidemark_protocol::{Position, Term, Transaction};
use tracing::Span;

use super::line::Line;
use super::spans;
use super::writer::PipelineContext;
use crate::consensus::{Command, Proposed};

/// Transactions that are proposed together at most: the first of them waits for the others.
const TOGETHER_MAX: usize = 8;
/// How long the first of them waits until it is proposed at the next opportunity.
const HOLD_MAX: Duration = Duration::from_millis(1);

/// One of them.
#[derive(Debug)]
struct Executed {
    /// In which it was made.
    term: Term,
    /// Where it leads.
    up_to: Position,
    transaction: Transaction,
    /// The span to tell of its commit in.
    stage: Span,
    since: Instant,
}

/// Those of one database, in the order in which they were executed.
#[derive(Debug)]
pub(crate) struct Held {
    line: Weak<Line>,
    context: Arc<PipelineContext>,
    transactions: Vec<Executed>,
    /// One of the last that were proposed was refused on the spot.
    refused: bool,
}

impl Held {
    pub(crate) fn new(line: Weak<Line>, context: Arc<PipelineContext>) -> Self {
        Self {
            line,
            context,
            transactions: Vec::new(),
            refused: false,
        }
    }

    pub(crate) fn push(
        &mut self,
        term: Term,
        up_to: Position,
        transaction: Transaction,
        stage: Span,
    ) {
        self.transactions.push(Executed {
            term,
            up_to,
            transaction,
            stage,
            since: Instant::now(),
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether no more should be waited for.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= TOGETHER_MAX
    }

    /// Whether one was refused by the last [`Held::propose`], and what followed it was dropped.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Forgets all: they were built on what was refused.
    pub(crate) fn drop_all(&mut self) {
        self.transactions.clear();
        self.refused = false;
    }

    /// Proposes them if they have waited for long.
    pub(crate) fn propose_if_overdue(&mut self) {
        let first = self.transactions.first();
        if first.is_some_and(|first| first.since.elapsed() > HOLD_MAX) {
            self.propose();
        }
    }

    /// Proposes them.
    pub(crate) fn propose(&mut self) {
        for executed in std::mem::take(&mut self.transactions) {
            if self.refused {
                return;
            }
            let Executed {
                term,
                up_to,
                transaction,
                stage,
                since: _,
            } = executed;
            let line = self.line.clone();
            let dropped = Arc::new(AtomicBool::new(false));
            let dropped_in_time = Arc::clone(&dropped);
            fail::fail_point!("primary::before_propose");
            let done = move |outcome: Proposed| {
                let Some(line) = line.upgrade() else { return };
                match outcome {
                    // Step 4 brings it, in log order, through the state machine.
                    Proposed::Committed { index } => return spans::committed(&stage, index),
                    Proposed::Refused(_) => line.refused(up_to, "it was not taken into the log"),
                    Proposed::Unknown => line.lost(up_to),
                }
                dropped.store(true, Ordering::Release);
            };
            match self.context.consensus.get() {
                Some(consensus) => {
                    consensus.propose(term, Command::Transaction(transaction), done);
                }
                None => done(Proposed::Unknown),
            }
            self.refused |= dropped_in_time.load(Ordering::Acquire);
        }
    }
}
