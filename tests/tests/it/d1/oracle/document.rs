//! `docs/d1-differences.md`: a section per reason, whose heading begins with its name, and which ends
//! with the answers that differ for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::compare::Difference;
use super::corpus::{Group, Request};

/// Longest value that is shown whole, in characters.
const SHOWN_MAX: usize = 160;
/// What a section's list is between.
const FENCES: (&str, &str) = ("```text\n", "```\n");

/// Differences, by reason.
#[derive(Default)]
pub(super) struct Found {
    listed: BTreeMap<String, List>,
    unlisted: String,
}

/// What differs for one reason.
#[derive(Default)]
struct List {
    text: String,
    /// Places that differ by rule, beyond the first.
    more: usize,
}

/// The document.
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

impl Found {
    /// Sorts what differs in the answers to a request.
    pub(super) fn note(&mut self, group: &Group, request: &Request, differences: Vec<Difference>) {
        let mut listed: BTreeMap<&str, Vec<Difference>> = BTreeMap::new();
        let mut unlisted = Vec::new();
        for difference in differences {
            if let Some(rule) = difference.rule {
                let list = self.listed.entry(rule.to_owned()).or_default();
                if list.text.is_empty() {
                    describe(&mut list.text, group, request, &[difference]);
                } else {
                    list.more += 1;
                }
                continue;
            }
            match request.reason(&difference.place) {
                Some(reason) => listed.entry(reason).or_default().push(difference),
                None => unlisted.push(difference),
            }
        }
        for reason in request.reasons() {
            if !listed.contains_key(reason) {
                let Request { line, text, .. } = request;
                let file = &group.file;
                let _ = writeln!(self.unlisted, "{file}:{line}: no {reason}: {text}");
            }
        }
        for (reason, differences) in &listed {
            let list = self.listed.entry((*reason).to_owned()).or_default();
            describe(&mut list.text, group, request, differences);
        }
        if !unlisted.is_empty() {
            describe(&mut self.unlisted, group, request, &unlisted);
        }
    }

    pub(super) fn assert_listed(&self) {
        let Self { unlisted, .. } = self;
        assert!(unlisted.is_empty(), "not as the corpus says:\n{unlisted}");
    }

    fn list(&self, reason: &str) -> String {
        match self.listed.get(reason) {
            Some(List { text, more: 0 }) => text.clone(),
            Some(List { text, more }) => format!("{text}… and {more} more\n"),
            None => String::new(),
        }
    }
}

impl Document {
    pub(super) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/d1-differences.md");
        let text = std::fs::read_to_string(&path).expect("read docs/d1-differences.md");
        Self { path, text }
    }

    /// Panics unless the document lists `found`, by reason, and nothing else. Writes it if asked to.
    pub(super) fn hold_against(&self, found: &Found) {
        let mut wrong = String::new();
        let mut written = String::new();
        let mut sections = self.text.split_inclusive("\n## ");
        written.push_str(sections.next().unwrap_or_default());
        let mut known = Vec::new();
        for section in sections {
            let (reason, _) = section.split_once(": ").expect("a heading `reason: what`");
            known.push(reason);
            let lists = section.split_once(FENCES.0);
            let lists = lists.and_then(|(head, rest)| Some((head, rest.split_once(FENCES.1)?)));
            let (head, (list, tail)) = lists.expect("a list of answers in every section");
            let now = found.list(reason);
            if now != list {
                let _ = writeln!(wrong, "--- {reason} is listed as\n{list}--- and is\n{now}");
            }
            written.extend([head, FENCES.0, &now, FENCES.1, tail]);
        }
        if std::env::var_os("TIDEMARK_BLESS").is_some() {
            std::fs::write(&self.path, written).expect("write docs/d1-differences.md");
        } else {
            assert!(wrong.is_empty(), "docs/d1-differences.md:\n{wrong}");
        }
        for reason in found.listed.keys() {
            let known = known.contains(&&**reason);
            assert!(known, "docs/d1-differences.md has no section {reason}");
        }
        for reason in known {
            let found = found.listed.contains_key(reason);
            assert!(
                found,
                "docs/d1-differences.md: nothing differs for {reason}"
            );
        }
    }
}

/// Adds a request and where its answers differ.
fn describe(out: &mut String, group: &Group, request: &Request, differences: &[Difference]) {
    let name = format!("[{}]\n", group.name);
    // Under one heading as long as the database is the same.
    let last = out.rfind("\n[").map_or(0, |at| at + 1);
    if !out[last..].starts_with(&name) {
        out.push_str(&name);
    }
    for line in request.text.lines() {
        let _ = writeln!(out, "{}", shown(line));
    }
    for Difference {
        place,
        theirs,
        ours,
        ..
    } in differences
    {
        let _ = writeln!(out, "    {place}: {} | {}", value(theirs), value(ours));
    }
}

fn value(value: &Option<Value>) -> String {
    value
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), |value| shown(&value.to_string()))
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
