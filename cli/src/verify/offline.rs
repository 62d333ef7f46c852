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
//! The repair invents nothing. Of a replica a damaged copy is thrown away: everything in it comes from the primary. Of a
//! voter a damaged copy is marked, so that the node fetches it from another before it answers from it, and only if
//! another voter answers, now, that it has it, sound and no older. A voter's log is never mended: what it promised is
//! in it, and with a part of it gone the voter has forgotten that. Such a voter is replaced (`--join --replace`).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tidemark_client::{Client, Role};
use tidemark_engine::{Depth, Finding, Inspection, Severity};
use tidemark_primary::VoterFiles;
use tidemark_protocol::{DatabaseId, Position};
use tokio::time::timeout;

use crate::config::Secret;
use crate::home::{Identity, Unused};
use crate::shell::blank_table;

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
#[error("{count} files of '{directory}' could not be read", directory = directory.display())]
pub(crate) struct Unread {
    count: usize,
    directory: PathBuf,
}

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
    let home = Unused::take(wanted.directory)?;
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
        return repair(&wanted, &seen).await;
    }
    if damaged > 0 {
        bail!(
            "'{}' is damaged: {damaged} findings",
            wanted.directory.display()
        );
    }
    Err(Unread {
        count: unread,
        directory: wanted.directory.to_owned(),
    }
    .into())
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
    for entry in entries.with_context(|| format!("list '{}'", root.display()))? {
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
    let of_voter = seen.voter.iter().flat_map(|voter| &voter.findings);
    let mut own = of_voter.chain(&seen.findings);
    if let Some(finding) = own.find(|finding| finding.severity != Severity::Unfinished) {
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
    let damaged: Vec<_> = seen.damaged().collect();
    if damaged.is_empty() {
        bail!("files cannot be read; nothing is repaired that may be sound");
    }
    let mut out = std::io::stdout();
    for (id, inspection) in damaged {
        let directory = wanted.directory.join("databases").join(id.to_string());
        match &seen.voter {
            None => {
                std::fs::remove_dir_all(&directory)
                    .with_context(|| format!("throw away '{}'", directory.display()))?;
                writeln!(
                    out,
                    "{id}: thrown away; the replica fetches it anew when it starts"
                )?;
            }
            Some(voter) => {
                let durable = voter.durable.get(&id).copied();
                let least = later(inspection.position, durable);
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
        let asked = timeout(PEER_WAIT, has(url, id, least, token)).await;
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
    status.context("no answer")??;
    let name = match id {
        DatabaseId::CATALOGUE => super::CATALOGUE.to_owned(),
        other => other.to_string(),
    };
    let found = client.verify_database(&name).await?;
    if !found.intact {
        bail!(
            "its copy is at {} and has checksum {}",
            found.position,
            found.computed
        );
    }
    if let Some(least) = least
        && !found.position.reached(&least)
    {
        bail!(
            "its copy is at {}, the one here was at {least}",
            found.position
        );
    }
    Ok(())
}
