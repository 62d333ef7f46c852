//! Consensus of the cell: one raft group whose log carries every database's transactions.
//!
//! openraft lives behind this module and nowhere else. What leaves it are this crate's own types: a
//! [`Consensus`] handle, [`Command`]s that go in, [`Committed`] entries that come out to a [`Machine`].
//!
//! The path of one write:
//!
//! 1. [`Consensus::propose`] checks the [`Fence`] and the bytes in flight, and hands the command to the
//!    core task together with the term it was made in, in [`parts`] if it is large. It returns at once;
//!    order is kept.
//! 2. The core merges what is waiting and calls `LogStore::append`: the records are in memory, in order,
//!    and one thread writes and fsyncs them. What arrives during one fsync shares the next.
//! 3. When a quorum has flushed, the entry is committed and the state machine task hands it to
//!    [`Machine::apply`], in log order, in batches.
//! 4. When `apply` returns, the proposal's callback gets [`Proposed::Committed`].
//!
//! ```text
//! durable <= applied <= committed <= appended        (on one node)
//! flushed <= appended                                (committed may pass the local flushed)
//! purged  <= durable
//! ```
//!
//! Invariants:
//!
//! - A term names one leadership of one incarnation of one process: a restarted leader is elected anew.
//! - Every proposal has exactly one outcome. `Refused` is certain, `Committed` is certain, everything else
//!   is `Unknown`, and never re-proposed from here.
//! - A failed write or fsync of the log, or a failed `apply`, is final: [`Consensus::failed`] resolves and
//!   the process has to exit and recover from its log.
//!
//! Trap: `with_leader` on the term does not catch everything. A proposal can be refused for a stale lease
//! and the one built on top of it accepted a moment later in the same term. Only the chain check in
//! [`Machine::apply`] (base equals current position) sees that.

mod appending;
mod applied;
mod budget;
mod cell;
mod command;
mod completion;
mod config;
mod disk;
mod error;
mod failure;
mod fence;
mod flushes;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handle;
mod inspect;
mod joint;
mod leadership;
mod log_store;
mod log_tail;
mod machine;
mod member;
mod members;
mod network;
mod parts;
mod proposal;
mod records;
mod repair;
mod snapshot;
mod state_machine;
mod synced;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use appending::{Channel, IN_FLIGHT_COUNT_MAX};
pub(crate) use command::Command;
pub(crate) use completion::{Proposed, Refusal};
pub(crate) use config::{ConsensusConfig, LOG_BYTES_KEPT, LOG_ENTRIES_KEPT, LOG_SEGMENT_BYTES};
pub(crate) use disk::Disk;
pub use disk::{Flush, SlowDisk};
pub(crate) use error::{AnswerError, ConfirmError, ConsensusError, WaitError};
pub(crate) use fence::Fence;
pub(crate) use flushes::Flushes;
pub(crate) use handle::Consensus;
pub(crate) use inspect::{LogSeen, inspect_log};
pub(crate) use leadership::{Leader, Leadership};
pub(crate) use machine::{Committed, LogIndex, Machine, MachineError, Persisting};
pub(crate) use member::Member;
pub(crate) use members::{MemberStatus, MembersError};
#[cfg(test)]
pub(crate) use network::NoTransport;
pub(crate) use network::{Transport, TransportError};
#[cfg(test)]
pub(crate) use tests::{close_fence, depose, wait_until};
