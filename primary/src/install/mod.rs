//! Taking over a peer's state, for a voter that the log no longer reaches: its copies are brought to
//! where the peer's are, page by differing page.
//!
//! Consensus hands on the peer's manifest: the chain (see [`crate::chain`]), which says of each database
//! where it stood behind one entry of the log. [`Installer::take_over`] sees to it that every database is
//! there or further, durably:
//!
//! 1. Databases that the chain so far names and the manifest does not were deleted: their files go. So do
//!    those of which the peer says later that it knows of their deletion; not having one is no proof.
//! 2. A database that has reached its position is made durable as it is.
//! 3. Any other is fetched from the peer ([`fetch`], [`serve`] on the other side): the receiver says the
//!    hash of each page it has, the peer sends those that differ, and its table of requests.
//!    [`assembly`] makes a new file of both, verifies it against the position it claims, and syncs it.
//! 4. [`crate::databases::Databases::replace`] closes the old files and puts the new ones in their place.
//! 5. The catalogue comes last, so that nobody is sent to a database that is not there yet.
//!
//! The peer sends what it has acknowledged at that moment, which may be later than the manifest. That does
//! no harm: the chain begins where the manifest says, and each writer passes over what its files hold, as
//! after a restart.
//!
//! # Where it may end early
//!
//! Everything here may be broken off at any point, by an error, a stop or a crash, and be begun again:
//! what reached its position before is not fetched again. What is being made or put in place at that moment
//! goes on to its own end, and another try at that database is refused until then
//! ([`crate::databases::Arrival`]). The next try may be at an older manifest, of another peer.
//!
//! | broken off | what is there | at the next start, or the next try |
//! |---|---|---|
//! | while fetching | the old files, and `main.db.new` | the old files count; the new one is removed |
//! | after the table of requests was put in place | the old content, a newer table | the table names only what is committed; what the log repeats is remembered once |
//! | after the old WAL was removed | the old content as of its last checkpoint | the log repeats what follows, or the content is at no known position; fetched again |
//! | after the new file got its name | the new content, the old journal of positions | at no known position: fetched again, all of it |
//! | after the journal was renewed | the new state | it counts |
//! | before the file `chain` | all databases, the old chain | the log repeats what follows the old chain, and writers pass over it |
//! | after it, before consensus' own note | all databases, the new chain | the machine passes over what the chain covers |
//!
//! Meanwhile this voter cannot be elected, for lack of the log that the manifest stands for; so nothing
//! half done is ever served as the leader's.
//!
//! # Bounds
//!
//! [`fetch::FETCHES_MAX`] databases at once here, [`serve::IMAGES_MAX`] at once at the sender, a few
//! messages in memory each. A side that hears nothing of the other for a while gives up; the leader tries
//! again. The sender also gives up when its WAL, which it holds back meanwhile, grows too long.

mod assembly;
mod body;
mod error;
mod fetch;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod repair;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, stream};
use tidemark_protocol::{DatabaseId, NodeId, Position};

pub(crate) use error::InstallError;
pub(crate) use serve::routes;

use crate::chain::Chain;
use crate::config::PrimaryConfig;
use crate::consensus::Consensus;
use crate::databases::{Databases, DatabasesError};
use crate::pipeline::PipelineContext;
use crate::ship::Followers;

/// Takes over states of peers.
#[derive(Debug)]
pub(crate) struct Installer {
    databases: Arc<Databases>,
    followers: Arc<Followers>,
    fetcher: fetch::Fetcher,
    /// Other ways to some peers than their addresses.
    via: HashMap<NodeId, String>,
    context: Arc<PipelineContext>,
}

impl Installer {
    /// For a node with these databases. `None` if the cluster secret cannot be sent.
    pub(crate) fn new(
        databases: Arc<Databases>,
        followers: Arc<Followers>,
        config: &PrimaryConfig,
        context: Arc<PipelineContext>,
    ) -> Option<Self> {
        Some(Self {
            databases,
            followers,
            fetcher: fetch::Fetcher::new(&config.cluster_secret, &context.environment.connector)?,
            via: config.via.clone(),
            context,
        })
    }

    /// Brings every database to where `chain` has it, or further, durably. What is missing comes from
    /// the peer at the base URL `source`. `before` is the chain so far.
    pub(crate) async fn take_over(
        &self,
        chain: &Chain,
        before: &Chain,
        source: &str,
    ) -> Result<(), InstallError> {
        let source = &self.route(source);
        self.remove_deleted(chain, before).await?;
        let mut ordinary: Vec<_> = chain.positions.iter().map(|(id, at)| (*id, *at)).collect();
        ordinary.retain(|(database, _)| *database != DatabaseId::CATALOGUE);
        let has_failed = AtomicBool::new(false);
        // Those that have begun come to their end: none may still be in the making when the log goes on.
        stream::iter(ordinary)
            .map(async |(database, at)| {
                if has_failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let brought = self.bring(database, at, source).await;
                has_failed.fetch_or(brought.is_err(), Ordering::Relaxed);
                brought
            })
            .buffer_unordered(fetch::FETCHES_MAX)
            .fold(Ok(()), async |first, next| first.and(next))
            .await?;
        if let Some(at) = chain.positions.get(&DatabaseId::CATALOGUE) {
            self.bring(DatabaseId::CATALOGUE, *at, source).await?;
        }
        // Whatever else has files here may be younger than this catalogue, which knows nothing of it.
        self.databases
            .note_taken_over(chain.positions.keys().copied().collect::<HashSet<_>>());
        Ok(())
    }

    /// Fetches one damaged database anew, to where it is at `at` or further.
    pub(crate) async fn repair(
        &self,
        database: DatabaseId,
        at: Position,
        source: &str,
    ) -> Result<(), InstallError> {
        self.bring(database, at, &self.route(source)).await?;
        if database == DatabaseId::CATALOGUE {
            self.databases.note_taken_over(HashSet::new());
        }
        Ok(())
    }

    /// Where the peer at this address is reached from here.
    fn route(&self, source: &str) -> String {
        let members = self.context.consensus.get().map(Consensus::members);
        let mut members = members.into_iter().flat_map(|members| members.members);
        let peer = members.find(|member| member.address == source);
        let via = peer.and_then(|peer| self.via.get(&peer.node));
        via.map_or_else(|| source.to_owned(), Clone::clone)
    }

    /// Databases that the chain so far has and the new one lacks. Only the chains tell: files that are
    /// in neither may be of an earlier try, from a peer whose manifest was newer than this one, and the log
    /// behind this one goes on with them. Of any other the catalogue says whether it was deleted.
    async fn remove_deleted(&self, chain: &Chain, before: &Chain) -> Result<(), InstallError> {
        for database in before.positions.keys() {
            if *database != DatabaseId::CATALOGUE && !chain.positions.contains_key(database) {
                self.remove(*database).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, database: DatabaseId) -> Result<(), InstallError> {
        tracing::info!(%database, "database deleted");
        self.followers.dropped(database);
        Ok(self.databases.remove(database).await?)
    }

    /// Brings one database to `at`, or further.
    async fn bring(
        &self,
        database: DatabaseId,
        at: Position,
        source: &str,
    ) -> Result<(), InstallError> {
        if self.databases.is_gone(database) || self.has(database, at).await? {
            return Ok(());
        }
        let arrival = self.databases.expect(database)?;
        let directory = self.databases.directory(database);
        let old = self.databases.wake(database).await;
        let begun = tokio::time::Instant::now();
        let threads = self.databases.threads();
        let fetched = self
            .fetcher
            .fetch(database, directory, old, source, threads, arrival);
        let Some((image, arrival)) = fetched.await? else {
            // Deleted at the peer after its manifest was made.
            return self.remove(database).await;
        };
        let (position, fetched, kept) = (image.position(), image.fetched, image.kept);
        if !covers(position, at) {
            return Err(InstallError::Behind {
                database,
                position,
                at,
            });
        }
        match self.databases.replace(arrival, image.prepared).await {
            // Its directory may have come again with the copy.
            Err(DatabasesError::Gone { .. }) => return self.remove(database).await,
            replaced => replaced?,
        }
        self.context.metrics.took_over(fetched, kept);
        tracing::info!(
            %database, %position, fetched, kept, took = ?begun.elapsed(),
            "took over a peer's copy; page counts"
        );
        Ok(())
    }

    /// Whether the copy here is at `at` or further; then it is durable, too.
    async fn has(&self, database: DatabaseId, at: Position) -> Result<bool, InstallError> {
        let Some(line) = self.databases.wake(database).await else {
            return Ok(false);
        };
        if !line.drained().await || line.is_damaged() {
            return Ok(false);
        }
        if !line
            .database()
            .position()
            .is_some_and(|position| covers(position, at))
        {
            return Ok(false);
        }
        let durable = line.persist().await.map_err(DatabasesError::from)?;
        if durable.reached(&at) {
            Ok(true)
        } else {
            Err(InstallError::NotDurable {
                database,
                durable,
                at,
            })
        }
    }
}

/// Whether a copy at `position` has all of `at`. Equal age with another content is damage.
fn covers(position: Position, at: Position) -> bool {
    position == at || position.age(&at).is_gt()
}
