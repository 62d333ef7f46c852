//! What each element of an answer says besides its rows.

use super::{ServedBy, StatementStatistics, ValueForm, json};

/// The value of `served_by`.
const SERVED_BY: &str = "tidemark";

/// Writes `"success"` and `"meta"`.
#[derive(Debug)]
pub(super) struct Meta {
    form: ValueForm,
    /// From the end of `results` to the first figure: the same for every statement.
    head: Vec<u8>,
}

impl Meta {
    pub(super) fn new(form: ValueForm, served_by: &ServedBy) -> Self {
        let mut head = Vec::with_capacity(160);
        head.extend_from_slice(br#","success":true,"meta":{"served_by":"#);
        json::string(&mut head, SERVED_BY);
        head.extend_from_slice(br#","served_by_region":"#);
        json::string(&mut head, &served_by.region);
        head.extend_from_slice(br#","served_by_primary":"#);
        json::boolean(&mut head, served_by.primary);
        head.extend_from_slice(br#","timings":{"sql_duration_ms":"#);
        Self { form, head }
    }

    /// To stand between the value of `results` and the end of its object.
    pub(super) fn write(&self, out: &mut Vec<u8>, statistics: &StatementStatistics) {
        let StatementStatistics {
            duration,
            changes,
            last_row_id,
            changed_db,
            size_after,
            rows_read,
            rows_written,
        } = *statistics;
        out.extend_from_slice(&self.head);
        json::milliseconds(out, duration);
        out.extend_from_slice(br#"},"duration":"#);
        json::milliseconds(out, duration);
        out.extend_from_slice(br#","changes":"#);
        self.write_integer(out, changes);
        out.extend_from_slice(br#","last_row_id":"#);
        self.write_integer(out, last_row_id);
        out.extend_from_slice(br#","changed_db":"#);
        json::boolean(out, changed_db);
        out.extend_from_slice(br#","size_after":"#);
        json::integer(out, size_after);
        out.extend_from_slice(br#","rows_read":"#);
        json::integer(out, rows_read);
        out.extend_from_slice(br#","rows_written":"#);
        json::integer(out, rows_written);
        out.extend_from_slice(br#","total_attempts":1}"#);
    }

    fn write_integer(&self, out: &mut Vec<u8>, integer: i64) {
        match self.form {
            ValueForm::D1 => json::integer_as_double(out, integer),
            ValueForm::Exact => json::integer(out, integer),
        }
    }
}
