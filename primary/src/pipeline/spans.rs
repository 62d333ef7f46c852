//! The stages of one write as spans, for a log or a collector that asks for them. Else they are nothing: a write
//! spends a comparison on each.

use tidemark_protocol::trace::TARGET;
use tidemark_protocol::{DatabaseId, Position, RequestId, Term};
use tracing::field::{Empty, display};
use tracing::{Span, debug, debug_span};

use crate::consensus::LogIndex;
use crate::metrics::Stage;

/// The spans of one write: one around all of it, which ends when this goes, and in that the stage that it is in.
/// Stages have the names that the metrics have.
#[derive(Debug)]
pub(crate) struct Spans {
    write: Span,
    stage: Span,
}

impl Spans {
    /// Of a write that queues from now on, in the current span.
    pub(crate) fn begin(database: DatabaseId, term: Term, request: Option<RequestId>) -> Self {
        let write = debug_span!(
            target: TARGET,
            "write",
            db = %database,
            %term,
            request = request.map(display),
            position = Empty,
            failure = Empty,
        );
        let mut spans = Self {
            write,
            stage: Span::none(),
        };
        spans.enter(Stage::Queue);
        spans
    }

    /// One stage ends, the next begins.
    pub(crate) fn enter(&mut self, stage: Stage) {
        let write = &self.write;
        self.stage = match stage {
            Stage::Queue => debug_span!(target: TARGET, parent: write, "queue"),
            Stage::Execute => debug_span!(target: TARGET, parent: write, "execute"),
            Stage::Replicate => debug_span!(target: TARGET, parent: write, "replicate"),
            Stage::Flush => debug_span!(target: TARGET, parent: write, "flush"),
        };
    }

    /// The stage that it is in, to tell of what happens elsewhere meanwhile.
    pub(crate) fn stage(&self) -> Span {
        self.stage.clone()
    }

    /// It is answered: by a state, or by a failure.
    pub(crate) fn answered(&mut self, outcome: Result<Position, &'static str>) {
        self.stage = Span::none();
        match outcome {
            Ok(position) => self.write.record("position", display(position)),
            Err(failure) => self.write.record("failure", failure),
        };
        debug!(target: TARGET, parent: &self.write, "answered");
    }

    /// An earlier try of the same request answers it.
    pub(crate) fn repeated(&self) {
        debug!(target: TARGET, parent: &self.write, "an earlier try of the same request answers");
    }
}

/// Tells that the log has it on a majority, and that it was handed to the databases.
pub(crate) fn committed(stage: &Span, index: LogIndex) {
    debug!(target: TARGET, parent: stage, index = index.0, "committed");
}
