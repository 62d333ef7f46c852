//! What a run says of itself: how much was done, what became of it, how long each change of leader took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::acknowledged::acknowledged;
use super::{Asked, Fate, History, Moment};

/// Counts and gaps of a history.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Things that were done to the cluster.
    faults: usize,
    committed: usize,
    repeated: usize,
    failed: usize,
    unknown: usize,
    reads: [usize; 3],
    /// Of those that asked for anything: answered without a write that was acknowledged before.
    stale: usize,
    /// Failed tries by reason.
    refusals: BTreeMap<String, usize>,
    /// Per fault of a leader: from the last acknowledgement before to the first of another node after it. `None` where
    /// nobody followed before the next.
    gaps: Vec<Option<Duration>>,
}

impl Summary {
    /// Of this history.
    pub fn of(history: &History) -> Self {
        let mut summary = Self::default();
        for write in &history.writes {
            match &write.fate {
                Fate::Committed(told) => {
                    summary.committed += 1;
                    summary.repeated += usize::from(told.repeated);
                }
                Fate::Failed => summary.failed += 1,
                Fate::Unknown => summary.unknown += 1,
            }
        }
        let acknowledged = acknowledged(history);
        for read in &history.reads {
            let behind = read.rows() < acknowledged.before(read.invoked);
            summary.stale += usize::from(behind && read.asked == Asked::Anything);
            let kind = match read.asked {
                Asked::Anything => 0,
                Asked::From(_) => 1,
                Asked::Acknowledged | Asked::Everything => 2,
            };
            summary.reads[kind] += 1;
        }
        for reason in &history.refusals {
            *summary.refusals.entry(reason.clone()).or_default() += 1;
        }
        summary.gaps = gaps(history);
        summary.faults = history.faults.len();
        summary
    }

    /// From the last acknowledgement of a leader to the first of its successor, shortest first.
    pub fn gaps(&self) -> Vec<Duration> {
        let mut gaps: Vec<_> = self.gaps.iter().flatten().copied().collect();
        gaps.sort_unstable();
        gaps
    }

    /// All that was counted, by name.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let Self {
            committed,
            repeated,
            failed,
            unknown,
            reads: [anything, bookmark, everything],
            stale,
            refusals,
            gaps: _,
            faults: _,
        } = self;
        let counts = [
            ("writes committed", committed),
            ("of them by a repeated answer", repeated),
            ("writes failed", failed),
            ("writes unknown", unknown),
            ("reads of anything", anything),
            ("of them stale", stale),
            ("reads by bookmark", bookmark),
            ("reads of everything", everything),
        ];
        let counts = counts.map(|(name, count)| (name.to_owned(), *count));
        let refused = |(reason, count): (&String, &usize)| (format!("refused, {reason}"), *count);
        counts
            .into_iter()
            .chain(refusals.iter().map(refused))
            .collect()
    }

    /// Reads that asked for anything and missed a write that had been acknowledged before they were sent.
    pub fn stale_reads(&self) -> usize {
        self.stale
    }

    /// Requests that ended in a failure, after all that the client itself does about it.
    pub fn refused_tries(&self) -> usize {
        self.refusals.values().sum()
    }
}

fn gaps(history: &History) -> Vec<Option<Duration>> {
    let mut answers: Vec<(Moment, &str)> = history
        .writes
        .iter()
        .filter_map(|write| match &write.fate {
            Fate::Committed(told) if !told.repeated => Some((write.returned, &*told.node)),
            Fate::Committed(_) | Fate::Failed | Fate::Unknown => None,
        })
        .collect();
    answers.sort_unstable();
    let faults = &history.faults;
    let gap = |(index, fault): (usize, &super::Fault)| {
        let leader = fault.leader.as_deref()?;
        let next = faults[index + 1..]
            .iter()
            .find(|next| next.leader.is_some());
        let (first, _) = answers.iter().find(|(returned, node)| {
            *returned > fault.at && *node != leader && next.is_none_or(|next| *returned < next.at)
        })?;
        // Whoever gave it: a leader may fall before it has answered anything.
        let before = answers.iter().rev();
        let last = before
            .map(|(returned, _)| returned)
            .find(|returned| *returned < first);
        Some(*first - *last.unwrap_or(&fault.at))
    };
    faults
        .iter()
        .enumerate()
        .filter(|(_, fault)| fault.leader.is_some())
        .map(gap)
        .collect()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            committed,
            repeated,
            failed,
            unknown,
            reads: [anything, bookmark, everything],
            stale,
            refusals,
            gaps,
            faults,
        } = self;
        write!(
            f,
            "{faults} faults; writes: {committed} committed ({repeated} by a repeated answer), {failed} failed, {unknown} unknown; \
             reads: {anything} unconstrained ({stale} of them stale), {bookmark} by bookmark, {everything} of everything; \
             refused tries: {refusals:?}"
        )?;
        let sorted = self.gaps();
        if let (Some(middle), Some(longest)) = (sorted.get(sorted.len() / 2), sorted.last()) {
            let changes = sorted.len();
            let number = gaps.iter().position(|gap| gap.as_ref() == Some(longest));
            let number = number.map_or(0, |index| index + 1);
            write!(
                f,
                "; {changes} changes of leader, last acknowledgement to first of the successor: \
                 p50 {middle:.2?}, max {longest:.2?} (at fault {number} of a leader)",
            )?;
        }
        let without = gaps.len() - sorted.len();
        if without > 0 {
            write!(
                f,
                "; {without} leaders without a successor before the next fault"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Acknowledgement, Fault, Write};
    use super::*;

    #[test]
    fn gap_is_from_the_last_of_the_old_leader_to_the_first_of_another() {
        let answer = |ms, node: &str| Write {
            value: ms,
            request: None,
            session: None,
            invoked: Duration::ZERO,
            returned: Duration::from_millis(ms),
            fate: Fate::Committed(Acknowledgement {
                place: None,
                position: None,
                node: node.to_owned(),
                repeated: false,
            }),
        };
        let fault = |ms, leader: &str| Fault {
            at: Duration::from_millis(ms),
            leader: Some(leader.to_owned()),
        };
        let history = History {
            // An answer of the first leader was on its way when that was killed.
            writes: vec![
                answer(10, "1"),
                answer(21, "1"),
                answer(900, "2"),
                answer(950, "2"),
                answer(1800, "3"),
            ],
            // The second to last leads for the second time, and falls before it has answered anything.
            faults: vec![
                fault(20, "1"),
                fault(960, "2"),
                fault(970, "1"),
                fault(2000, "3"),
            ],
            ..History::default()
        };
        let summary = Summary::of(&history);
        let gaps = [Some(879), None, Some(850), None];
        assert_eq!(summary.gaps, gaps.map(|gap| gap.map(Duration::from_millis)));
        let text = summary.to_string();
        assert!(text.starts_with("4 faults; "), "{text}");
        assert!(text.contains("5 committed"), "{text}");
        assert!(text.contains("2 leaders without a successor"), "{text}");
    }
}
