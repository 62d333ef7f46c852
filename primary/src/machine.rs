//! What the committed log drives: every committed transaction finds its database here, in log order.
//!
//! This is where the fence is: a transaction whose base is not the committed position of its database
//! changes nothing, on every node alike. Whatever a deposed leader had speculated, whatever gap a
//! refused proposal left, ends here.
//!
//! After a restart the chain of a database starts where it stood at the last persist (see
//! [`crate::chain`]), or at the empty database if it is younger than that, and what the log repeats from
//! before is passed over; so every transaction meets the verdict that it met the first time. Its writer
//! passes over what its files already hold. The same holds behind a peer's state ([`crate::install`]),
//! whose files may be newer than the chain that came with them.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tidemark_engine::genesis_position;
use tidemark_protocol::{DatabaseId, Position, Transaction};

use crate::chain::{Chain, ChainFile};
use crate::consensus::{Command, Committed, Machine, MachineError, Persisting};
use crate::databases::{Databases, DatabasesError};
use crate::install::Installer;
use crate::ship::Followers;
use crate::ship::recent::Recent;

/// The databases of a cell, as consensus sees them.
#[derive(Debug)]
pub(crate) struct CellMachine {
    file: Arc<ChainFile>,
    databases: Arc<Databases>,
    recent: Arc<Recent>,
    followers: Arc<Followers>,
    installer: Installer,
    committed: Chain,
}

/// A database has no writer at the moment that could say how far its files are.
#[derive(Debug, thiserror::Error)]
#[error("database {database} is not open, expected at {committed}")]
struct NotOpen {
    database: DatabaseId,
    committed: Position,
}

/// A database could not be brought to disk as far as the log has gone.
#[derive(Debug, thiserror::Error)]
#[error("database {database} is durable at {durable}, expected {committed}: readers hold its log")]
struct NotDurable {
    database: DatabaseId,
    durable: Position,
    committed: Position,
}

impl CellMachine {
    /// On the databases of the node, which it knows all by now, behind this chain.
    pub(crate) fn new(
        (file, committed): (ChainFile, Chain),
        databases: Arc<Databases>,
        recent: Arc<Recent>,
        followers: Arc<Followers>,
        installer: Installer,
    ) -> Self {
        for database in committed.positions.keys() {
            // Deleted after the last persist: what the log repeats of it is of no use to anybody.
            if !databases.has(*database) {
                databases.mark_gone(*database);
            }
        }
        Self {
            file: Arc::new(file),
            databases,
            recent,
            followers,
            installer,
            committed,
        }
    }

    async fn apply_transaction(&mut self, transaction: Transaction) -> Result<(), MachineError> {
        let header = *transaction.header();
        let known = self.committed.positions.get(&header.database);
        let committed = known.copied().unwrap_or_else(genesis_position);
        if committed != header.base {
            tracing::warn!(
                database = %header.database, base = %header.base, %committed,
                "a transaction does not start at the committed position and changes nothing"
            );
            // Not opened for this: it may be deleted, and would have files again, and one that sleeps has no
            // writer who waits.
            if let Some(line) = self.databases.get(header.database) {
                line.refused(header.next, "its database moved on without it");
            }
            return Ok(());
        }
        let line = match self.databases.open_replaced(header.database).await {
            Ok(line) => line,
            Err(DatabasesError::Gone { .. }) => {
                self.committed.positions.remove(&header.database);
                return Ok(());
            }
            Err(error) => return Err(MachineError::new("open a database", error)),
        };
        self.committed
            .positions
            .insert(header.database, header.next);
        // The writer first: whoever hears of the transaction from a replica finds that it knows.
        line.committed(transaction.clone()).await;
        self.recent.push(transaction);
        self.followers.committed(header.database);
        Ok(())
    }
}

impl Machine for CellMachine {
    async fn apply(&mut self, entries: Vec<Committed>) -> Result<(), MachineError> {
        for entry in entries {
            if self.committed.index >= Some(entry.index) {
                continue;
            }
            self.committed.index = Some(entry.index);
            match entry.command {
                Command::Transaction(transaction) => self.apply_transaction(transaction).await?,
            }
        }
        Ok(())
    }

    async fn install(&mut self, manifest: Bytes, source: &str) -> Result<(), MachineError> {
        let failed = |error| MachineError::new("take over a peer's databases", error);
        let chain = Chain::decode(&manifest)
            .map_err(|error| MachineError::new("read a peer's manifest", error))?;
        let taken = self.installer.take_over(&chain, &self.committed, source);
        taken.await.map_err(failed)?;
        fail::fail_point!("primary::before_chain");
        self.file
            .save(chain.index, &manifest)
            .map_err(|error| MachineError::new("write the file chain", error))?;
        self.committed = chain;
        Ok(())
    }

    async fn repair(&mut self, database: DatabaseId, source: &str) -> Result<(), MachineError> {
        let known = self.committed.positions.get(&database);
        let at = known.copied().unwrap_or_else(genesis_position);
        let repaired = self.installer.repair(database, at, source).await;
        repaired.map_err(|error| MachineError::new("fetch a database", error))
    }

    fn persist(&mut self) -> Persisting {
        let databases = &self.databases;
        self.committed
            .positions
            .retain(|database, _| !databases.is_gone(*database));
        let committed = self.committed.clone();
        let file = Arc::clone(&self.file);
        let (lines, asleep) = self.databases.all_and_asleep();
        let open: HashSet<_> = lines.iter().map(|line| line.id()).collect();
        let durable =
            |id: &DatabaseId, at: &Position| asleep.get(id).is_some_and(|d| d.reached(at));
        // One that is being replaced, or could not be, may need what the log has of it.
        let missing = committed
            .positions
            .iter()
            .find(|(id, at)| !open.contains(id) && !durable(id, at));
        let missing = missing.map(|(database, committed)| NotOpen {
            database: *database,
            committed: *committed,
        });
        // Each line is asked now, behind all it was handed so far; the answers come later.
        let asked: Vec<_> = lines
            .into_iter()
            .map(|line| (line.id(), line.persist()))
            .collect();
        Box::pin(async move {
            if let Some(missing) = missing {
                return Err(MachineError::new("persist a database", missing));
            }
            let answers = asked.into_iter().map(async |(database, durable)| {
                let failed = |error| MachineError::new("persist a database", error);
                let durable = durable.await.map_err(failed)?;
                match committed.positions.get(&database) {
                    Some(&committed) if !durable.reached(&committed) => Err(MachineError::new(
                        "persist a database",
                        NotDurable {
                            database,
                            durable,
                            committed,
                        },
                    )),
                    _ => Ok(()),
                }
            });
            join_all(answers)
                .await
                .into_iter()
                .collect::<Result<(), _>>()?;
            let manifest = Bytes::from(committed.encode());
            fail::fail_point!("primary::before_cut");
            file.save(committed.index, &manifest)
                .map_err(|error| MachineError::new("write the file chain", error))?;
            Ok(manifest)
        })
    }
}
