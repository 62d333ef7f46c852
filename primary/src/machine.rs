//! What the committed log drives: every committed transaction finds its database here, in log order.
//!
//! This is where the fence is: a transaction whose base is not the committed position of its database
//! changes nothing, on every node alike. Whatever a deposed leader had speculated, whatever gap a
//! refused proposal left, ends here.
//!
//! After a restart the chain of a database starts where it stood when the log that is repeated began
//! (see [`crate::chain`]), or at the empty database if it is younger than that; so every transaction
//! meets the verdict that it met the first time. Its writer passes over what its files already hold.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tidemark_protocol::{DatabaseId, Position, Transaction};

use crate::chain::{self, Chain};
use crate::consensus::{Command, Committed, Machine, MachineError, Persisting};
use crate::databases::{Databases, DatabasesError};
use crate::ship::Followers;
use crate::ship::recent::Recent;

/// The databases of a cell, as consensus sees them.
#[derive(Debug)]
pub(crate) struct CellMachine {
    directory: PathBuf,
    databases: Arc<Databases>,
    recent: Arc<Recent>,
    followers: Arc<Followers>,
    committed: Chain,
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
    /// On the databases of the node in `directory`, all of which are open.
    pub(crate) fn new(
        directory: PathBuf,
        databases: Arc<Databases>,
        recent: Arc<Recent>,
        followers: Arc<Followers>,
    ) -> io::Result<Self> {
        let committed = chain::load(&directory)?;
        for database in committed.keys() {
            // Deleted after the last persist: what the log repeats of it is of no use to anybody.
            if databases.get(*database).is_none() {
                databases.mark_gone(*database);
            }
        }
        Ok(Self {
            directory,
            databases,
            recent,
            followers,
            committed,
        })
    }

    async fn apply_transaction(&mut self, transaction: Transaction) -> Result<(), MachineError> {
        let header = *transaction.header();
        let line = match self.databases.open(header.database).await {
            Ok(line) => line,
            Err(DatabasesError::Gone { .. }) => {
                self.committed.remove(&header.database);
                return Ok(());
            }
            Err(error) => return Err(MachineError::new("open a database", error)),
        };
        let committed = *self
            .committed
            .entry(header.database)
            .or_insert_with(tidemark_engine::genesis_position);
        if committed != header.base {
            tracing::warn!(
                database = %header.database, base = %header.base, %committed,
                "a transaction does not start at the committed position and changes nothing"
            );
            line.refused(header.next, "its database moved on without it");
            return Ok(());
        }
        self.committed.insert(header.database, header.next);
        // The writer first: whoever hears of the transaction from a replica finds that it knows.
        line.committed(transaction.clone());
        self.recent.push(transaction);
        self.followers.committed(header.database);
        Ok(())
    }
}

impl Machine for CellMachine {
    async fn apply(&mut self, entries: Vec<Committed>) -> Result<(), MachineError> {
        for entry in entries {
            match entry.command {
                Command::Transaction(transaction) => self.apply_transaction(transaction).await?,
            }
        }
        Ok(())
    }

    async fn install(&mut self, manifest: Bytes, source: &str) -> Result<(), MachineError> {
        let bytes = manifest.len();
        let reason = format!("not supported yet; {source} sent {bytes} bytes");
        Err(MachineError::new("install a peer's state", reason))
    }

    fn persist(&mut self) -> Persisting {
        let committed = self.committed.clone();
        let directory = self.directory.clone();
        // Each line is asked now, behind all it was handed so far; the answers come later.
        let asked: Vec<_> = self
            .databases
            .all()
            .into_iter()
            .map(|line| (line.id(), line.persist()))
            .collect();
        Box::pin(async move {
            let answers = asked.into_iter().map(async |(database, durable)| {
                let failed = |error| MachineError::new("persist a database", error);
                let durable = durable.await.map_err(failed)?;
                match committed.get(&database) {
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
            chain::save(&directory, &committed)
                .map_err(|error| MachineError::new("write the file chain", error))?;
            // One day: the positions, for a voter that joins. Every database is whole on its own.
            Ok(Bytes::new())
        })
    }
}
