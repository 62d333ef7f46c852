//! Following the stream: where the copy stands is told, what comes is applied.

use std::sync::Arc;
use std::time::Duration;

use tidemark_engine::ApplyError;
use tidemark_protocol::stream::FollowerMessage;
use tidemark_protocol::trace::TARGET;
use tidemark_protocol::{DatabaseId, Transaction};
use tracing::field;
use tracing::{Span, debug, debug_span};

use super::{Applier, DROPPED_PAUSE, Feed, PAUSE_MIN};
use crate::copy::{Copy, Item};
use crate::outbox::Outbox;
use crate::standing::Condition;

impl Applier {
    pub(super) fn on_connected(&mut self, copy: &Arc<Copy>, outbox: Arc<Outbox>) {
        if self
            .outbox
            .as_ref()
            .is_some_and(|known| known.number() >= outbox.number())
        {
            return; // told twice, or late
        }
        self.outbox = Some(outbox);
        self.feed = Feed::Idle;
        self.follow(copy);
    }

    pub(super) fn on_disconnected(&mut self, copy: &Arc<Copy>, number: u64) {
        if self
            .outbox
            .as_ref()
            .is_none_or(|outbox| outbox.number() != number)
        {
            return;
        }
        self.outbox = None;
        self.feed = Feed::Idle; // an image that was under way is gone, the old file is untouched
        self.publish(copy, Condition::Alone);
    }

    /// Tells the source where the copy stands, if there is a source and something to tell.
    pub(super) fn follow(&mut self, copy: &Arc<Copy>) {
        let Some(outbox) = &self.outbox else { return };
        let position = if self.damaged.is_some() {
            None
        } else {
            self.position()
        };
        if position.is_none() && self.damaged.is_none() {
            return; // not open yet
        }
        copy.ask_to_follow(outbox, position.is_none(), || {
            outbox.control(FollowerMessage::Follow {
                database: self.id,
                position,
            });
        });
        let (feed, condition) = match position {
            Some(_) => (Feed::Following, Condition::Following),
            None => (Feed::Asked, Condition::Catching),
        };
        self.feed = feed;
        self.publish(copy, condition);
    }

    pub(super) fn on_transactions(&mut self, copy: &Arc<Copy>, transactions: &[Transaction]) {
        copy.touch();
        if !self.wake(copy) {
            return;
        }
        let (Feed::Following, Some((owner, _))) = (&self.feed, &mut self.files) else {
            return; // sent before the source knew that it is of no use here
        };
        fail::fail_point!("replica::before_apply");
        let span = apply_span(self.id, transactions);
        match owner.apply(transactions) {
            Ok(position) => {
                drop(span);
                fail::fail_point!("replica::after_apply");
                self.pause = PAUSE_MIN;
                self.publish(copy, Condition::Following);
                if let Some(outbox) = &self.outbox {
                    outbox.confirm(self.id, position);
                }
                self.site
                    .metrics
                    .applied_transactions
                    .inc_by(transactions.len() as u64);
                self.site.metrics.applied_batches.inc();
                self.checkpoint_if_due(copy);
            }
            Err(ApplyError::Storage(error)) => self.storage_failed(copy, &error),
            Err(error @ ApplyError::Checksum { .. }) => {
                tracing::error!(db = %self.id, %error, "a copy has diverged");
                self.site.metrics.resync("diverged");
                self.set_damaged(copy, &error.to_string());
                self.ask_for_resync(copy);
            }
            Err(error) => {
                tracing::warn!(db = %self.id, %error, "a copy cannot be continued");
                self.site.metrics.resync("base");
                self.ask_for_resync(copy);
            }
        }
    }

    pub(super) fn on_dropped(&mut self, copy: &Arc<Copy>) {
        // The catalogue says when its files go. Until then nothing new comes; or the source is slower
        // than its own catalogue and gets it a little later.
        self.feed = Feed::Idle;
        self.publish(copy, Condition::Alone);
        self.again_after(copy, DROPPED_PAUSE);
    }

    /// Tries once more on this connection, after a pause.
    pub(super) fn again_after(&self, copy: &Arc<Copy>, pause: Duration) {
        let Some(number) = self.outbox.as_ref().map(|outbox| outbox.number()) else {
            return;
        };
        let copy = Arc::clone(copy);
        self.site.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            copy.feed(Item::Again(number));
        });
    }

    pub(super) fn on_again(&mut self, copy: &Arc<Copy>, number: u64) {
        let same = self
            .outbox
            .as_ref()
            .is_some_and(|outbox| outbox.number() == number);
        if !same || !matches!(self.feed, Feed::Idle) {
            return;
        }
        if self.resyncs_failed > 0 {
            self.ask_for_resync(copy); // remains of the last image may still be on their way
        } else {
            self.follow(copy);
        }
    }
}

/// The span around applying, for whom it may concern: a trace of its own, as many requests may be in it. It names
/// those that have a name.
fn apply_span(database: DatabaseId, transactions: &[Transaction]) -> Span {
    let span = debug_span!(
        target: TARGET,
        parent: None,
        "apply",
        db = %database,
        transactions = transactions.len(),
        position = transactions.last().map(|last| field::display(last.header().next)),
    );
    if !span.is_disabled() {
        let named = transactions.iter().filter_map(|one| one.header().request);
        for request in named {
            debug!(target: TARGET, parent: &span, %request, "applies");
        }
    }
    span
}
