//! `tidemark verify --data DIR`: are the files of a node that does not run what it wrote?
//!
//! 1. The directory's lock is taken: files that a process is writing to are not looked at.
//! 2. Of a voter the log is followed record by record, and `applied`, `chain` and each table of requests are read; of a
//!    replica, `term`.
//! 3. Of every database the journal, the frames of the WAL and all pages are read: the checksum of the content must be
//!    that of a position in the journal, on a voter none before that of `chain`; and SQLite looks at its own structures.
//!
//! Every finding has file, offset, what is there and what should be. What a kill leaves is told and is no damage.
//! Nothing is written but, while SQLite looks at a database whose WAL is not empty, a copy of that beside it.
//!
//! The repair invents nothing, and throws nothing away. Of a replica a damaged copy is set aside: everything in it comes
//! from the primary. Of a voter a damaged copy is marked, so that the node fetches it from another before it answers from
//! it, and only if another voter answers, now, that it has it, sound and no older; what was there is removed once that is
//! in its place. A voter's log is never mended: what it promised is in it, and with a part of it gone the voter has
//! forgotten that. Such a voter is replaced (`--join --replace`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tidemark_client::{Client, NodeStatus, Role};
use tidemark_engine::{Depth, Finding, Inspection, Severity};
use tidemark_primary::VoterFiles;
use tidemark_protocol::{DatabaseId, NodeId, Position, Seq};
use tokio::time::timeout;

use crate::config::Secret;
use crate::home::{Identity, Unused};
use crate::shell::blank_table;

/// The file of a voter that its next start writes anew.
const SYNCED: &str = "log.synced";
/// Time that another voter has for reading all pages of one database.
const PEER_WAIT: Duration = Duration::from_secs(120);
/// And for saying what it has.
const STATUS_WAIT: Duration = Duration::from_secs(5);

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) directory: &'a Path,
    pub(super) depth: Depth,
    pub(super) repair: bool,
    pub(super) token: Option<Secret>,
}

/// Something could not be read, so nobody can say that it is sound.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unread(String);

/// All that was seen.
struct Seen {
    identity: Identity,
    /// Of a voter.
    voter: Option<VoterFiles>,
    /// Of a replica's own files.
    findings: Vec<Finding>,
    databases: BTreeMap<DatabaseId, Inspection>,
}

/// Looks, reports, and repairs if that is wanted. An error if anything is damaged and stays so.
pub(super) async fn run(wanted: Wanted<'_>) -> anyhow::Result<()> {
    let shown = wanted.directory.display();
    let unseen = || Unread(format!("'{shown}' was not looked at"));
    let home = Unused::take(wanted.directory).with_context(unseen)?;
    let (directory, depth) = (wanted.directory.to_owned(), wanted.depth);
    let identity = home.identity().clone();
    let seen = tokio::task::spawn_blocking(move || look(&directory, identity, depth));
    let seen = seen.await.context("looking at the files")??;
    report(&seen)?;
    let all = || seen.all();
    let damaged = all()
        .filter(|finding| finding.severity == Severity::Damage)
        .count();
    let unread = all()
        .filter(|finding| finding.severity == Severity::Unread)
        .count();
    if damaged == 0 && unread == 0 {
        return Ok(());
    }
    if wanted.repair {
        repair(&wanted, &seen).await?;
    } else if damaged > 0 {
        bail!("'{shown}' is damaged: {damaged} findings");
    }
    if unread == 0 {
        return Ok(());
    }
    Err(Unread(format!("{unread} files of '{shown}' could not be read")).into())
}

impl Seen {
    fn all(&self) -> impl Iterator<Item = &Finding> {
        let of_voter = self.voter.iter().flat_map(|voter| &voter.findings);
        let of_databases = self.databases.values().flat_map(|seen| &seen.findings);
        of_voter.chain(&self.findings).chain(of_databases)
    }

    /// Databases with a finding that is worse than a kill.
    fn damaged(&self) -> impl Iterator<Item = (DatabaseId, &Inspection)> {
        let all = self.databases.iter().map(|(id, seen)| (*id, seen));
        all.filter(|(_, seen)| {
            let mut findings = seen.findings.iter();
            findings.any(|finding| finding.severity == Severity::Damage)
        })
    }
}

fn look(directory: &Path, identity: Identity, depth: Depth) -> anyhow::Result<Seen> {
    let voter = (identity.role == Role::Primary)
        .then(|| tidemark_primary::inspect(directory, identity.node));
    let findings = match &voter {
        Some(_) => Vec::new(),
        None => tidemark_replica::inspect(directory),
    };
    let mut databases = BTreeMap::new();
    let root = directory.join("databases");
    let entries = match std::fs::read_dir(&root) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    for entry in entries.with_context(|| Unread(format!("'{}' was not listed", root.display())))? {
        let name = entry.file_name();
        let Some(Ok(id)) = name.to_str().map(str::parse::<DatabaseId>) else {
            continue; // what a deletion left
        };
        let path = entry.path();
        let mut seen = tidemark_engine::inspect(&path, id, depth);
        if let Some(voter) = &voter {
            seen.findings
                .extend(tidemark_primary::inspect_requests(&path));
            let durable = voter.durable.get(&id);
            seen.findings.extend(older(&path, seen.position, durable));
        }
        databases.insert(id, seen);
    }
    Ok(Seen {
        identity,
        voter,
        findings,
        databases,
    })
}

/// Files of before the log that is left: somebody put them there.
fn older(path: &Path, position: Option<Position>, durable: Option<&Position>) -> Option<Finding> {
    let (position, durable) = (position?, durable?);
    let finding = || {
        let found = format!("position {position}");
        let expected = format!("{durable} or later, where the log begins");
        Finding::damage(&path.join("main.db"), 0, found, expected)
    };
    (!position.reached(durable)).then(finding)
}

fn report(seen: &Seen) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let mut table = blank_table();
    table.set_header(["database", "position", "pages", "under the WAL", "sound"]);
    for (id, database) in &seen.databases {
        let worst = database
            .findings
            .iter()
            .map(|finding| finding.severity)
            .max();
        table.add_row([
            id.to_string(),
            database
                .position
                .map_or_else(String::new, |position| position.to_string()),
            database.pages.to_string(),
            database.covered.to_string(),
            match worst {
                None => "yes",
                Some(Severity::Unfinished) => "yes, but for what a kill leaves",
                Some(Severity::Unread) => "cannot be read",
                Some(Severity::Damage) => "NO",
            }
            .to_owned(),
        ]);
    }
    writeln!(out, "{table}")?;
    if let Some(voter) = &seen.voter {
        writeln!(
            out,
            "log: {} records, {} bytes",
            voter.records, voter.log_bytes
        )?;
    }
    for finding in seen.all() {
        let Finding {
            severity,
            path,
            offset,
            found,
            expected,
        } = finding;
        let word = match severity {
            Severity::Unfinished => "unfinished",
            Severity::Unread => "unread",
            Severity::Damage => "DAMAGE",
        };
        let path = path.display();
        writeln!(
            out,
            "{word}: {path}, byte {offset}: found {found}; expected {expected}"
        )?;
    }
    writeln!(
        out,
        "{} of node {}: {} databases, {} findings",
        match seen.identity.role {
            Role::Primary => "voter",
            Role::Replica => "replica",
        },
        seen.identity.node,
        seen.databases.len(),
        seen.all().count()
    )?;
    Ok(())
}

async fn repair(wanted: &Wanted<'_>, seen: &Seen) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let of_voter = seen.voter.iter().flat_map(|voter| &voter.findings);
    let own: Vec<_> = of_voter.chain(&seen.findings).collect();
    let damage = own.iter().filter(|f| f.severity == Severity::Damage);
    let (rewritten, lasting): (Vec<&Finding>, Vec<&Finding>) =
        damage.partition(|finding| finding.path.file_name() == Some(SYNCED.as_ref()));
    if let Some(finding) = lasting.first() {
        let path = finding.path.display();
        match seen.identity.role {
            Role::Primary => bail!(
                "'{path}' cannot be repaired: with it went what this voter promised. Replace the voter \
                 (`tidemark primary --join URL --replace {}` on an empty directory)",
                seen.identity.node
            ),
            Role::Replica => bail!(
                "'{path}' cannot be repaired: start this replica on an empty directory, everything comes from the \
                 primary"
            ),
        }
    }
    if let Some(finding) = own.iter().find(|f| f.severity == Severity::Unread) {
        let path = finding.path.display();
        let text = format!("'{path}' cannot be read; nothing is repaired that may be sound");
        return Err(Unread(text).into());
    }
    if let Some(finding) = rewritten.first() {
        // Without it a start is only less sure of what to cut off; it writes it anew.
        let path = finding.path.display();
        std::fs::remove_file(&finding.path).with_context(|| format!("remove '{path}'"))?;
        writeln!(
            out,
            "{SYNCED}: removed; the voter writes it anew when it starts"
        )?;
    }
    for (id, inspection) in seen.damaged() {
        let directory = wanted.directory.join("databases").join(id.to_string());
        match &seen.voter {
            None => {
                let aside = set_aside(&directory)?;
                writeln!(
                    out,
                    "{id}: set aside as '{}', to be removed once the replica has fetched it anew, when it starts",
                    aside.display()
                )?;
            }
            Some(_) if tidemark_engine::is_marked(&directory) => {
                writeln!(
                    out,
                    "{id}: marked before; the voter fetches it when it starts"
                )?;
            }
            Some(voter) => {
                let durable = voter.durable.get(&id).copied();
                let here = inspection.position.or(inspection.noted);
                let least = later(here, durable);
                let holder = holder(voter, id, least, wanted.token.as_ref()).await?;
                tidemark_engine::mark_damaged(&directory, "found by tidemark verify")
                    .with_context(|| format!("mark '{}'", directory.display()))?;
                writeln!(
                    out,
                    "{id}: marked; the voter fetches it when it starts, {holder} has it"
                )?;
            }
        }
    }
    Ok(())
}

/// Moves a replica's copy to where nobody looks: no name of a database.
fn set_aside(directory: &Path) -> anyhow::Result<PathBuf> {
    let aside = directory.with_extension("set-aside");
    if aside.exists() {
        bail!(
            "'{}' is there from a repair before: remove it first, if nobody needs it",
            aside.display()
        );
    }
    let moved = std::fs::rename(directory, &aside);
    moved.with_context(|| format!("set aside '{}'", directory.display()))?;
    Ok(aside)
}

/// The later of two positions.
fn later(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    match (one, other) {
        (Some(one), Some(other)) if one.reached(&other) => Some(one),
        (one, None) => one,
        (_, other) => other,
    }
}

/// Another voter that has a sound copy, no older than `least`: its base URL.
async fn holder(
    voter: &VoterFiles,
    id: DatabaseId,
    least: Option<Position>,
    token: Option<&Secret>,
) -> anyhow::Result<String> {
    if voter.others.is_empty() {
        bail!("database {id} is not repaired: this is the only voter, nobody else has it");
    }
    let mut refusals = Vec::new();
    for (node, url) in &voter.others {
        let asked = timeout(PEER_WAIT, has(*node, url, id, least, token)).await;
        match asked.unwrap_or_else(|_| bail!("no answer in {PEER_WAIT:?}")) {
            Ok(()) => return Ok(url.clone()),
            Err(error) => refusals.push(format!("voter {node} at {url}: {error:#}")),
        }
    }
    bail!(
        "database {id} is not repaired: no other voter has it. {}",
        refusals.join("; ")
    )
}

/// An error if the voter at `url` has no sound copy that is as new as `least`.
async fn has(
    node: NodeId,
    url: &str,
    id: DatabaseId,
    least: Option<Position>,
    token: Option<&Secret>,
) -> anyhow::Result<()> {
    let mut builder = Client::builder(url).deadline(PEER_WAIT);
    if let Some(token) = token {
        builder = builder.token(token.reveal());
    }
    let client = builder.build()?;
    let status = timeout(STATUS_WAIT, client.node_status()).await;
    is_voter(&status.context("no answer")??, node)?;
    let found = client.verify_database(&super::name_to_ask(id)).await?;
    if !found.intact {
        bail!(
            "its copy is at {} and has checksum {}",
            found.position,
            found.computed
        );
    }
    covers(found.position, least)
}

/// Somebody else may have the address by now, a replica for one, whose copy no voter fetches.
fn is_voter(status: &NodeStatus, node: NodeId) -> anyhow::Result<()> {
    if status.node != node || status.role != Role::Primary {
        bail!(
            "there is node {}, a {:?}, expected voter {node}",
            status.node,
            status.role
        );
    }
    Ok(())
}

/// An error unless a copy at `position` has all that the one here had. Of the same age and with another content it is of
/// another history.
fn covers(position: Position, least: Option<Position>) -> anyhow::Result<()> {
    let (is_covered, here) = match least {
        Some(least) => (
            position == least || position.age(&least).is_gt(),
            format!("at {least}"),
        ),
        // Nothing tells: at least it is not empty.
        None => (position.seq > Seq::ZERO, "anywhere".to_owned()),
    };
    if !is_covered {
        bail!("its copy is at {position}, the one here was {here}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidemark_protocol::{Epoch, StateChecksum};

    use super::*;

    fn at(seq: u64, checksum: u64) -> Position {
        Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
            checksum: StateChecksum(checksum),
        }
    }

    #[test]
    fn a_copy_that_is_older_or_of_another_history_or_empty_covers_nothing() {
        for (position, least, is_covered) in [
            (at(3, 7), Some(at(3, 7)), true),
            (at(4, 9), Some(at(3, 7)), true),
            (at(2, 7), Some(at(3, 7)), false),
            (at(3, 8), Some(at(3, 7)), false),
            (at(1, 8), None, true),
            (at(0, 8), None, false),
        ] {
            let covered = covers(position, least);
            assert_eq!(covered.is_ok(), is_covered, "{position}, {least:?}");
        }
    }

    #[test]
    fn a_copy_is_set_aside_once_and_nothing_is_written_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let copy = directory.path().join(DatabaseId::CATALOGUE.to_string());
        std::fs::create_dir(&copy).expect("made");
        std::fs::write(copy.join("main.db"), "content").expect("written");
        let aside = set_aside(&copy).expect("set aside");
        assert_eq!(
            std::fs::read(aside.join("main.db")).expect("kept"),
            b"content"
        );
        assert!(!copy.exists());
        std::fs::create_dir(&copy).expect("made");
        assert!(set_aside(&copy).is_err());
        assert!(copy.exists() && aside.join("main.db").exists());
    }
}
