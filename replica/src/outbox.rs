//! What the databases want to tell the source on one connection.
//!
//! Strands put messages in without waiting, the connection's writer takes them out. Every part is
//! bounded by what it describes: confirmations by the number of databases (a newer one replaces an
//! older), echoes and questions by one, controls by a few per database, hash lists by the number of databases that
//! may resynchronise at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemark_protocol::stream::{
    CONFIRMATIONS_PER_MESSAGE_MAX, FollowerMessage, HASHES_PER_MESSAGE_MAX,
};
use tidemark_protocol::{DatabaseId, PageNo, Position};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The outgoing side of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    number: u64,
    waiting: Mutex<Waiting>,
    filled: Notify,
    broken: CancellationToken,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    echo: Option<u64>,
    controls: VecDeque<FollowerMessage>,
    /// The newest question. Behind the controls, which it is about.
    ask: Option<u64>,
    hashes: VecDeque<HashList>,
    confirmations: HashMap<DatabaseId, Position>,
    /// The first complaint: why the connection must end.
    complaint: Option<String>,
}

/// Hashes on their way, sent piece by piece.
#[derive(Debug)]
struct HashList {
    database: DatabaseId,
    hashes: Arc<Vec<u64>>,
    sent: usize,
}

impl Outbox {
    /// The outbox of connection `number`.
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            waiting: Mutex::default(),
            filled: Notify::new(),
            broken: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Which connection of this process it belongs to.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Queues a message in order with the others of its kind.
    pub(crate) fn control(&self, message: FollowerMessage) {
        self.put(|waiting| {
            if let FollowerMessage::Unfollow { database } = message {
                waiting.hashes.retain(|list| list.database != database); // overtaken
            }
            waiting.controls.push_back(message);
        });
    }

    /// Queues the hashes of all pages of a database.
    pub(crate) fn hashes(&self, database: DatabaseId, hashes: Arc<Vec<u64>>) {
        self.put(|waiting| {
            waiting.hashes.push_back(HashList {
                database,
                hashes,
                sent: 0,
            })
        });
    }

    /// Readers of the database see this state.
    pub(crate) fn confirm(&self, database: DatabaseId, position: Position) {
        self.put(|waiting| waiting.confirmations.insert(database, position));
    }

    /// Answers a heartbeat.
    pub(crate) fn echo(&self, stamp: u64) {
        self.put(|waiting| waiting.echo = Some(stamp));
    }

    /// Asks whether everything is here, of the databases that the source was asked for before.
    pub(crate) fn ask(&self, stamp: u64) {
        self.put(|waiting| waiting.ask = Some(stamp));
    }

    /// The source broke the protocol: the connection must end.
    pub(crate) fn complain(&self, complaint: impl Into<String>) {
        self.lock()
            .complaint
            .get_or_insert_with(|| complaint.into());
        self.broken.cancel();
    }

    /// Resolves with the first complaint.
    pub(crate) async fn broken(&self) -> String {
        self.broken.cancelled().await;
        self.lock().complaint.clone().unwrap_or_default()
    }

    /// The connection is over.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Resolves when the connection is over.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Resolves when something waits, perhaps already taken.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The next message to send. Liveness first, then what the source waits for.
    pub(crate) fn next(&self) -> Option<FollowerMessage> {
        let mut waiting = self.lock();
        if let Some(stamp) = waiting.echo.take() {
            return Some(FollowerMessage::Echo { stamp });
        }
        if let Some(message) = waiting.controls.pop_front() {
            return Some(message);
        }
        if let Some(stamp) = waiting.ask.take() {
            return Some(FollowerMessage::Ask { stamp });
        }
        if let Some(list) = waiting.hashes.front_mut() {
            let message = list.next();
            if list.sent == list.hashes.len() {
                waiting.hashes.pop_front();
            }
            return Some(message);
        }
        if waiting.confirmations.is_empty() {
            return None;
        }
        let confirmations = if waiting.confirmations.len() <= CONFIRMATIONS_PER_MESSAGE_MAX {
            waiting.confirmations.drain().collect()
        } else {
            let keys: Vec<_> = waiting
                .confirmations
                .keys()
                .take(CONFIRMATIONS_PER_MESSAGE_MAX)
                .copied()
                .collect();
            keys.iter()
                .filter_map(|key| waiting.confirmations.remove_entry(key))
                .collect()
        };
        Some(FollowerMessage::Applied { confirmations })
    }

    fn put<R>(&self, change: impl FnOnce(&mut Waiting) -> R) {
        change(&mut self.lock());
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HashList {
    fn next(&mut self) -> FollowerMessage {
        let from = self.sent;
        let to = self.hashes.len().min(from + HASHES_PER_MESSAGE_MAX);
        self.sent = to;
        FollowerMessage::Hashes {
            database: self.database,
            first: PageNo(u32::try_from(from + 1).expect("SQLite has fewer than 2^32 pages")),
            last: to == self.hashes.len(),
            hashes: self.hashes[from..to].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemark_protocol::{Epoch, Seq, StateChecksum};

    use super::*;

    fn at(seq: u64) -> Position {
        Position {
            epoch: Epoch::FIRST,
            seq: Seq(seq),
            checksum: StateChecksum(seq),
        }
    }

    fn database(number: u32) -> DatabaseId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        DatabaseId::from_bytes(bytes)
    }

    #[test]
    fn newer_confirmation_replaces_older_and_many_are_split() {
        let outbox = Outbox::new(1);
        let many = u32::try_from(CONFIRMATIONS_PER_MESSAGE_MAX).expect("small") + 1;
        for number in 0..many {
            outbox.confirm(database(number), at(1));
            outbox.confirm(database(number), at(2));
        }
        let mut sizes = Vec::new();
        while let Some(message) = outbox.next() {
            let FollowerMessage::Applied { confirmations } = message else {
                panic!("{message:?}")
            };
            assert!(confirmations.iter().all(|(_, position)| *position == at(2)));
            sizes.push(confirmations.len());
        }
        assert_eq!(sizes, [CONFIRMATIONS_PER_MESSAGE_MAX, 1]);
    }

    #[test]
    fn long_hash_list_is_sent_in_pieces_and_an_empty_one_as_one() {
        let outbox = Outbox::new(1);
        outbox.hashes(database(1), Arc::new(vec![7; HASHES_PER_MESSAGE_MAX + 3]));
        outbox.hashes(database(2), Arc::new(Vec::new()));
        let mut seen = Vec::new();
        while let Some(FollowerMessage::Hashes {
            first,
            last,
            hashes,
            ..
        }) = outbox.next()
        {
            seen.push((first.0 as usize, last, hashes.len()));
        }
        let max = HASHES_PER_MESSAGE_MAX;
        assert_eq!(seen, [(1, false, max), (max + 1, true, 3), (1, true, 0)]);
    }
}
