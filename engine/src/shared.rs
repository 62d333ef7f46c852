//! What owner and readers of one database share: the acknowledged position, and which snapshot of the
//! WAL is which position.
//!
//! A reader learns its position from the pair (WAL generation, last frame) of the snapshot it got. The
//! owner records that pair with the position it stands for, after each injection. Between the moment a
//! snapshot becomes visible and the moment it is recorded there is a gap; the owner holds `injecting`
//! across both, and a reader that does not find its pair waits for that lock and looks again. If it is
//! still not there the pair has dropped out at the old end of the list: the reader was asleep for longer
//! than [`SNAPSHOTS_KEPT`] injections, and takes a new snapshot. So an answer's position is always exact.
//!
//! The pair stays valid after a full backfill (a reader of the database file keeps the last header) and
//! changes inside the next injection when the WAL starts over, or in a truncating checkpoint, which the
//! owner brackets like an injection. A reader may see the new generation while it is empty, long before a
//! large injection ends, and must not wait for that, least of all on a thread that others need: what it sees
//! is the last state of the generation before.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemark_protocol::{DatabaseId, Position};

use crate::ffi::WalKey;
use crate::idle::Counted;
use crate::options::Options;
use crate::registry::OpenDirectory;

/// Snapshots whose positions are remembered.
const SNAPSHOTS_KEPT: usize = 64;

/// What owner and readers of one database share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: DatabaseId,
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    /// Held by the owner while the WAL's newest snapshot may not be in the list.
    injecting: Mutex<()>,
    visible: Mutex<Visible>,
    _counted: Counted,
    /// Keeps the directory marked as open until the last user of the files is gone.
    _directory: OpenDirectory,
}

/// What is known of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Located {
    pub(crate) position: Position,
    pub(crate) pages: u32,
}

/// What readers can see.
#[derive(Debug)]
struct Visible {
    /// The acknowledged position; `None` while unidentified.
    position: Option<Position>,
    /// Pages of the acknowledged state.
    pages: u32,
    /// Newest last.
    snapshots: VecDeque<(WalKey, Located)>,
}

impl Shared {
    pub(crate) fn new(
        id: DatabaseId,
        path: PathBuf,
        options: Options,
        directory: OpenDirectory,
    ) -> Self {
        Self {
            id,
            path,
            options,
            injecting: Mutex::new(()),
            visible: Mutex::new(Visible {
                position: None,
                pages: 0,
                snapshots: VecDeque::new(),
            }),
            _counted: Counted::new(),
            _directory: directory,
        }
    }

    /// The acknowledged position.
    pub(crate) fn position(&self) -> Option<Position> {
        self.visible().position
    }

    /// Pages of the acknowledged state.
    pub(crate) fn pages(&self) -> u32 {
        self.visible().pages
    }

    /// Announces that the WAL is about to change. Keep the guard until [`Shared::record`].
    pub(crate) fn inject(&self) -> MutexGuard<'_, ()> {
        // Nothing is guarded but the order of events, so a panic leaves nothing behind.
        self.injecting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records which position the snapshot `key` is. `None`: an unidentified state.
    pub(crate) fn record(&self, key: WalKey, position: Option<Position>, pages: u32) {
        let mut visible = self.visible();
        visible.position = position;
        visible.pages = pages;
        let Some(position) = position else {
            visible.snapshots.clear();
            return;
        };
        let located = Located { position, pages };
        if visible.snapshots.back() == Some(&(key, located)) {
            return;
        }
        if visible.snapshots.len() == SNAPSHOTS_KEPT {
            visible.snapshots.pop_front();
        }
        visible.snapshots.push_back((key, located));
    }

    /// Which state a snapshot is; `None` if it is too old to be remembered.
    pub(crate) fn locate(&self, key: WalKey) -> Option<Located> {
        self.recorded(key).or_else(|| {
            drop(self.inject());
            self.recorded(key)
        })
    }

    fn recorded(&self, key: WalKey) -> Option<Located> {
        let visible = self.visible();
        // From the newest: a reset WAL never repeats a generation, but a pair may be recorded twice
        // when a checkpoint did not change it.
        let find = |is_it: &dyn Fn(WalKey) -> bool| {
            let mut newest_first = visible.snapshots.iter().rev();
            newest_first
                .find(|(known, _)| is_it(*known))
                .map(|(_, at)| *at)
        };
        find(&|known| known == key).or_else(|| find(&|known| key.begins_after(known)))
    }

    fn visible(&self) -> MutexGuard<'_, Visible> {
        // Every critical section leaves the fields consistent, whatever panics.
        self.visible.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Nobody may wait here: the same thread holds what a reader would wait for.
    #[test]
    fn an_empty_generation_is_the_state_that_the_one_before_ended_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let claim = OpenDirectory::claim(directory.path()).expect("not open");
        let path = directory.path().to_owned();
        let shared = Shared::new(DatabaseId::CATALOGUE, path, Options::default(), claim);
        shared.record(WalKey::at(7, 3), Some(at(1)), 10);
        shared.record(WalKey::at(7, 8), Some(at(2)), 11);

        let injecting = shared.inject();
        let seen = shared.locate(WalKey::at(8, 0)).expect("known");
        assert_eq!(
            (seen.position, seen.pages),
            (at(2), 11),
            "while one is written"
        );
        shared.record(WalKey::at(8, 5), Some(at(3)), 12);
        let seen = shared.locate(WalKey::at(8, 0)).expect("known");
        assert_eq!((seen.position, seen.pages), (at(2), 11), "and when it is");
        let seen = shared.locate(WalKey::at(9, 0)).expect("known");
        assert_eq!(seen.position, at(3));
        drop(injecting);

        // Frames of a generation say nothing of another, nor does one two before.
        assert_eq!(shared.locate(WalKey::at(9, 1)), None);
        assert_eq!(shared.locate(WalKey::at(10, 0)), None);
        // One that was cut is recorded as it is.
        shared.record(WalKey::at(9, 0), Some(at(3)), 12);
        let seen = shared.locate(WalKey::at(9, 0)).expect("known");
        assert_eq!(seen.position, at(3));
    }
}
