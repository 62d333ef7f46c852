//! What the nodes of a cluster agree on where they tell of a request's stages.

/// Target of the spans, and of the events in them, that tell of the stages of one request. They are below
/// info, so that a node whose log and collector do not ask for them spends no more than a comparison on each; a
/// log filter of `info,tidemark_trace=debug` asks.
pub const TARGET: &str = "tidemark_trace";
