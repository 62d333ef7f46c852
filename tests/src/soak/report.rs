//! What a soak has to say, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinError;

use super::Soak;
use super::samples::{Life, Samples};
use super::trend::{Series, Trend};
use crate::history::{Fate, History, Summary};

/// Most violations that are kept word for word.
const SHOWN_MAX: usize = 100;
/// A process that was watched for less has no trend worth telling.
const TREND_MIN: f64 = 60.0;
/// From here on a process is judged by its trend.
const JUDGED_MIN: f64 = 900.0;
/// What the middle of the last quarter may exceed that of the first by: a tenth, and so many MiB.
const MIB_SLACK: f64 = 8.0;
/// The same, of files and threads.
const COUNT_SLACK: f64 = 8.0;

/// All of it, so far.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the choices came from.
    pub seed: u64,
    /// How long it went on.
    pub seconds: f64,
    /// Epochs that were judged.
    pub epochs: u32,
    /// How often each fault was there.
    pub faults: BTreeMap<&'static str, u64>,
    /// What clients did, and what became of it.
    pub clients: BTreeMap<String, usize>,
    /// The longest time without an acknowledged write while clients were at work.
    pub longest_silence: Silence,
    /// Changes of leader under a fault of it: the middle and the longest, in seconds, from the last acknowledgement of
    /// one to the first of the next.
    pub changes_of_leader: (usize, f64, f64),
    /// What processes take.
    pub processes: Vec<NodeTrend>,
    /// How many processes each node had.
    pub lives: BTreeMap<String, u32>,
    /// MiB of each node's files, over the whole run.
    pub disk_mib: BTreeMap<String, Trend>,
    /// How many promises were broken.
    pub violations: usize,
    /// The first of them, in words.
    pub shown: Vec<String>,
    /// What grew, of processes that were watched for long enough.
    pub grown: Vec<String>,
    /// Where the files of the nodes are, if they were kept.
    pub files: Option<PathBuf>,
    #[serde(skip)]
    warm_up: f64,
    #[serde(skip)]
    gaps: Vec<Duration>,
}

/// A time without an acknowledged write.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Silence {
    /// How long.
    pub seconds: f64,
    /// In which epoch.
    pub epoch: u32,
    /// The last fault before its end.
    pub fault: &'static str,
}

/// What one process took, from when it was warm.
#[derive(Clone, Debug, Serialize)]
pub struct NodeTrend {
    /// The node.
    pub node: String,
    /// Which of its processes, from 1.
    pub process: u32,
    /// Whether it was spared.
    pub elder: bool,
    /// MiB of memory.
    pub resident_mib: Trend,
    /// MiB of memory that no file is behind.
    pub anonymous_mib: Trend,
    /// Open handles.
    pub files: Trend,
    /// Threads.
    pub threads: Trend,
}

/// An epoch's record, judged and counted.
pub(super) struct Judged {
    counts: BTreeMap<String, usize>,
    silence: (Duration, &'static str),
    gaps: Vec<Duration>,
    violations: Vec<String>,
}

impl Judged {
    /// Of this history. `struck`: when there were which faults.
    pub(super) fn of(
        history: &History,
        struck: &[(Duration, &'static str)],
        violations: Vec<String>,
    ) -> Self {
        let summary = Summary::of(history);
        Self {
            counts: summary.counts(),
            silence: longest_silence(history, struck),
            gaps: summary.gaps(),
            violations,
        }
    }
}

/// Between two acknowledgements, and the last fault before the second.
fn longest_silence(
    history: &History,
    struck: &[(Duration, &'static str)],
) -> (Duration, &'static str) {
    let committed = |write: &&crate::history::Write| matches!(write.fate, Fate::Committed(_));
    let writes = history.writes.iter().filter(committed);
    let mut answers: Vec<_> = writes.map(|write| write.returned).collect();
    answers.sort_unstable();
    let pairs = answers.windows(2);
    let longest = pairs.max_by_key(|pair| pair[1] - pair[0]);
    let Some(&[before, after]) = longest else {
        return (Duration::ZERO, "");
    };
    let fault = struck.iter().rev().find(|(at, _)| *at < after);
    (after - before, fault.map_or("none", |(_, name)| name))
}

impl Report {
    pub(super) fn of(soak: &Soak) -> Self {
        Self {
            seed: soak.seed.number(),
            seconds: 0.0,
            epochs: 0,
            faults: BTreeMap::new(),
            clients: BTreeMap::new(),
            longest_silence: Silence::default(),
            changes_of_leader: (0, 0.0, 0.0),
            processes: Vec::new(),
            lives: BTreeMap::new(),
            disk_mib: BTreeMap::new(),
            violations: 0,
            shown: Vec::new(),
            grown: Vec::new(),
            files: None,
            warm_up: soak.warm_up.as_secs_f64(),
            gaps: Vec::new(),
        }
    }

    /// Whether nothing was found.
    pub fn sound(&self) -> bool {
        self.violations == 0
    }

    /// Whether nothing grew.
    pub fn flat(&self) -> bool {
        self.grown.is_empty()
    }

    pub(super) fn struck(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn judged(&mut self, epoch: u32, judged: Judged) {
        self.epochs += 1;
        for (what, count) in judged.counts {
            *self.clients.entry(what).or_default() += count;
        }
        let (silence, fault) = judged.silence;
        if silence.as_secs_f64() > self.longest_silence.seconds {
            self.longest_silence = Silence {
                seconds: silence.as_secs_f64(),
                epoch,
                fault,
            };
        }
        self.gaps.extend(judged.gaps);
        for violation in judged.violations {
            self.violation(format!("epoch {epoch}: {violation}"));
        }
    }

    pub(super) fn ended_early(&mut self, ended: JoinError) {
        let why = match ended.try_into_panic() {
            Ok(panic) => match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(other) => other.downcast::<&str>().map_or_else(
                    |_| "a panic without words".to_owned(),
                    |text| (*text).to_owned(),
                ),
            },
            Err(ended) => ended.to_string(),
        };
        self.violation(format!("the run ended early: {why}"));
    }

    fn violation(&mut self, text: String) {
        self.violations += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(text);
        }
    }

    pub(super) fn measured(&mut self, samples: &Samples) {
        let measured = samples.so_far();
        self.processes = measured
            .lives
            .iter()
            .filter_map(|life| self.trend(life))
            .collect();
        self.lives.clear();
        for life in &measured.lives {
            self.lives.insert(life.node.clone(), life.number);
        }
        let disk =
            |(node, series): &(String, Series)| Some((node.clone(), series.trend(self.warm_up)?));
        self.disk_mib = measured.disks.iter().filter_map(disk).collect();
        self.grown = self.processes.iter().flat_map(NodeTrend::grown).collect();
    }

    fn trend(&self, life: &Life) -> Option<NodeTrend> {
        let of = |series: &Series| series.trend(self.warm_up);
        let trend = NodeTrend {
            node: life.node.clone(),
            process: life.number,
            elder: life.elder,
            resident_mib: of(&life.resident)?,
            anonymous_mib: of(&life.anonymous)?,
            files: of(&life.files)?,
            threads: of(&life.threads)?,
        };
        (trend.files.seconds >= TREND_MIN).then_some(trend)
    }

    /// Brings up to date what is counted from the whole.
    pub(super) fn conclude(&mut self, elapsed: Duration) {
        self.seconds = elapsed.as_secs_f64();
        self.gaps.sort_unstable();
        let middle = self.gaps.get(self.gaps.len() / 2);
        let seconds = |gap: Option<&Duration>| gap.map_or(0.0, Duration::as_secs_f64);
        self.changes_of_leader = (self.gaps.len(), seconds(middle), seconds(self.gaps.last()));
    }
}

impl NodeTrend {
    fn grown(&self) -> Vec<String> {
        let Self {
            node,
            process,
            elder: _,
            resident_mib,
            anonymous_mib,
            files,
            threads,
        } = self;
        if files.seconds < JUDGED_MIN {
            return Vec::new();
        }
        let mib = |trend: &Trend| trend.late > trend.early * 1.1 + MIB_SLACK;
        let count = |trend: &Trend| trend.late > trend.early * 1.1 + COUNT_SLACK;
        let all = [
            ("memory", resident_mib, mib(resident_mib)),
            ("memory without files", anonymous_mib, mib(anonymous_mib)),
            ("open files", files, count(files)),
            ("threads", threads, count(threads)),
        ];
        let grown = all.into_iter().filter(|(_, _, grown)| *grown);
        grown
            .map(|(what, Trend { early, late, seconds, .. }, _)| {
                format!(
                    "{node}, process {process}: {what} from {early:.1} to {late:.1} in {:.0} min",
                    seconds / 60.0
                )
            })
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.seconds / 60.0;
        writeln!(
            f,
            "seed {}: {minutes:.1} min, {} epochs judged",
            self.seed, self.epochs
        )?;
        let total: u64 = self.faults.values().sum();
        writeln!(f, "faults: {total} {:?}", self.faults)?;
        writeln!(f, "clients: {:?}", self.clients)?;
        let Silence {
            seconds,
            epoch,
            fault,
        } = &self.longest_silence;
        writeln!(
            f,
            "longest time without an acknowledged write: {seconds:.2} s (epoch {epoch}, after: {fault})"
        )?;
        let (changes, middle, longest) = self.changes_of_leader;
        writeln!(
            f,
            "changes of leader: {changes}, p50 {middle:.2} s, max {longest:.2} s"
        )?;
        writeln!(f, "processes of each node: {:?}", self.lives)?;
        for trend in &self.processes {
            writeln!(f, "{trend}")?;
        }
        for (
            node,
            Trend {
                early,
                late,
                per_hour,
                most,
                ..
            },
        ) in &self.disk_mib
        {
            writeln!(
                f,
                "{node}: disk {early:.1} -> {late:.1} MiB ({per_hour:+.1} per hour, at most {most:.1})"
            )?;
        }
        for grown in &self.grown {
            writeln!(f, "GROWN: {grown}")?;
        }
        for violation in &self.shown {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        if let Some(files) = &self.files {
            writeln!(f, "files of the nodes: {}", files.display())?;
        }
        write!(
            f,
            "{} violations, {}",
            self.violations,
            if self.flat() { "flat" } else { "NOT flat" }
        )
    }
}

impl fmt::Display for NodeTrend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            process,
            elder,
            resident_mib,
            anonymous_mib,
            files,
            threads,
        } = self;
        let elder = if *elder { ", elder" } else { "" };
        write!(
            f,
            "{node}, process {process}{elder}, {:.1} min once warm:",
            files.seconds / 60.0
        )?;
        let all = [
            ("memory", resident_mib, " MiB"),
            ("of it without files", anonymous_mib, " MiB"),
            ("files", files, ""),
            ("threads", threads, ""),
        ];
        for (
            what,
            Trend {
                early,
                late,
                per_hour,
                most,
                ..
            },
            unit,
        ) in all
        {
            write!(
                f,
                " {what} {early:.1} -> {late:.1}{unit} ({per_hour:+.2} per hour, at most {most:.1});"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(early: f64, late: f64, seconds: f64) -> NodeTrend {
        let trend = |early, late| Trend {
            seconds,
            per_hour: 0.0,
            early,
            late,
            most: late,
        };
        NodeTrend {
            node: "voter 1".to_owned(),
            process: 1,
            elder: true,
            resident_mib: trend(early, late),
            anonymous_mib: trend(early, early),
            files: trend(50.0, 50.0),
            threads: trend(9.0, 9.0),
        }
    }

    #[test]
    fn only_what_grows_for_long_enough_and_beyond_the_noise_counts() {
        assert!(process(40.0, 51.0, 3000.0).grown().is_empty());
        assert!(process(40.0, 80.0, 300.0).grown().is_empty());
        let grown = process(40.0, 53.0, 3000.0).grown();
        assert_eq!(
            grown,
            ["voter 1, process 1: memory from 40.0 to 53.0 in 50 min"]
        );
    }
}
