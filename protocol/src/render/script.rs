//! The answer to a file of SQL: no rows, and one element for all its statements.

use bytes::Bytes;

use super::meta::Meta;
use super::{
    AnswerLimit, Rendered, ResultSink, ServedBy, StatementStatistics, Tally, ValueForm, json,
};
use crate::value::ValueRef;

/// Writes `[{"results":[],"success":true,"meta":{…},"num_queries":…}]`, where `meta` is the sum over all
/// statements.
#[derive(Debug)]
pub struct ScriptRenderer {
    meta: Meta,
    sum: Option<StatementStatistics>,
    tally: Tally,
    /// A complete array between statements.
    out: Vec<u8>,
}

impl ScriptRenderer {
    /// A renderer for one request.
    pub fn new(form: ValueForm, served_by: &ServedBy) -> Self {
        Self {
            meta: Meta::new(form, served_by),
            sum: None,
            tally: Tally::default(),
            out: b"[]".to_vec(),
        }
    }

    /// The finished `result` array.
    pub fn finish(self) -> Rendered {
        Rendered {
            results: Bytes::from(self.out),
            tally: self.tally,
        }
    }
}

impl ResultSink for ScriptRenderer {
    fn begin_statement(&mut self) {}

    fn columns(&mut self, _: &[&str]) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn begin_row(&mut self) {}

    fn cell(&mut self, _: usize, _: ValueRef<'_>) {}

    fn end_row(&mut self) -> Result<(), AnswerLimit> {
        Ok(())
    }

    fn end_statement(&mut self, statistics: &StatementStatistics) -> Result<(), AnswerLimit> {
        let sum = match self.sum {
            Some(before) => before.then(statistics),
            None => *statistics,
        };
        self.sum = Some(sum);
        self.tally.add(statistics);
        self.out.clear();
        self.out.extend_from_slice(br#"[{"results":[]"#);
        self.meta.write(&mut self.out, &sum);
        self.out.extend_from_slice(br#","num_queries":"#);
        json::integer(&mut self.out, self.tally.statements);
        self.out.extend_from_slice(b"}]");
        Ok(())
    }

    fn reset(&mut self) {
        self.sum = None;
        self.tally = Tally::default();
        self.out.clear();
        self.out.extend_from_slice(b"[]");
    }

    fn recorded(&self) -> &[u8] {
        &self.out
    }
}
