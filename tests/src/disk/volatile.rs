//! Files in memory that remember what of them was synced: what is left of them when the power fails is what a journalling
//! file system may leave (ext4 with ordered data, as an example).
//!
//! - The content of a file: what was synced with it. Each change since, a write or another length, may be there or not,
//!   whatever became of the changes before it; of a write single sectors may be there, and where a file has become longer
//!   zeros may be in the place of what was written.
//! - Names (making, renaming, removing): those up to some moment, in order. Syncing a directory makes all of them
//!   durable that came before, and so does syncing a file that has become longer, or another name.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Changes that wait for a sync in a file, above which the oldest reach the disk by themselves.
const PENDING_MAX: usize = 8192;

/// The number of a file or directory.
pub(super) type Ino = u64;
/// The top directory.
pub(super) const ROOT: Ino = 1;

type Names = BTreeMap<OsString, Ino>;

/// All files.
#[derive(Debug)]
pub(super) struct Volatile {
    files: HashMap<Ino, File>,
    directories: HashMap<Ino, Names>,
    /// The names as they are on the disk.
    kept: HashMap<Ino, Names>,
    /// What was done to names since.
    pending: VecDeque<Naming>,
    next: Ino,
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    /// As it is on the disk.
    kept: Vec<u8>,
    /// What was done to it since.
    pending: VecDeque<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// A change of names. What a name stood for before is gone.
#[derive(Clone, Debug)]
enum Naming {
    Directory(Ino),
    Put(Ino, OsString, Ino),
    Remove(Ino, OsString),
    Move((Ino, OsString), (Ino, OsString), Ino),
}

/// What was lost when the power failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Changes of files that are gone as if they had never been.
    pub changes: u64,
    /// Writes of which some sectors are there.
    pub torn: u64,
    /// Names that are as before.
    pub names: u64,
}

impl Lost {
    /// Counts what another failure took.
    pub fn add(&mut self, other: Self) {
        let Self {
            changes,
            torn,
            names,
        } = other;
        self.changes += changes;
        self.torn += torn;
        self.names += names;
    }
}

impl Volatile {
    pub(super) fn new() -> Self {
        let empty = || HashMap::from([(ROOT, Names::new())]);
        Self {
            files: HashMap::new(),
            directories: empty(),
            kept: empty(),
            pending: VecDeque::new(),
            next: ROOT + 1,
        }
    }

    pub(super) fn look_up(&self, directory: Ino, name: &OsStr) -> Option<Ino> {
        self.directories.get(&directory)?.get(name).copied()
    }

    pub(super) fn is_directory(&self, ino: Ino) -> bool {
        self.directories.contains_key(&ino)
    }

    /// The length of a file. `None` if there is none of this number.
    pub(super) fn length(&self, ino: Ino) -> Option<usize> {
        Some(self.files.get(&ino)?.now.len())
    }

    /// What is in a directory.
    pub(super) fn names(&self, directory: Ino) -> Option<impl Iterator<Item = (&OsString, Ino)>> {
        let names = self.directories.get(&directory)?;
        Some(names.iter().map(|(name, ino)| (name, *ino)))
    }

    /// Makes an empty file, or a directory.
    pub(super) fn make(&mut self, directory: Ino, name: &OsStr, is_directory: bool) -> Ino {
        let ino = self.next;
        self.next += 1;
        if is_directory {
            self.directories.insert(ino, Names::new());
            self.pending.push_back(Naming::Directory(ino));
        } else {
            self.files.insert(ino, File::default());
        }
        self.name(Naming::Put(directory, name.to_owned(), ino));
        ino
    }

    pub(super) fn remove(&mut self, directory: Ino, name: &OsStr) {
        self.name(Naming::Remove(directory, name.to_owned()));
    }

    /// Gives a file another name, in the place of what had it. False if there is none of the first name.
    pub(super) fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr)) -> bool {
        let Some(ino) = self.look_up(from.0, from.1) else {
            return false;
        };
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.name(Naming::Move(from, to, ino));
        true
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.directories);
        self.pending.push_back(naming);
    }

    pub(super) fn read(&self, ino: Ino, offset: usize, count: usize) -> Option<&[u8]> {
        let now = &self.files.get(&ino)?.now;
        let from = offset.min(now.len());
        Some(&now[from..from.saturating_add(count).min(now.len())])
    }

    /// False if there is no such file.
    pub(super) fn write(&mut self, ino: Ino, offset: usize, bytes: &[u8]) -> bool {
        self.change(ino, Change::Write(offset, bytes.to_owned()))
    }

    /// Cuts a file off, or makes it longer by zeros. False if there is none.
    pub(super) fn set_length(&mut self, ino: Ino, length: usize) -> bool {
        self.change(ino, Change::Length(length))
    }

    fn change(&mut self, ino: Ino, change: Change) -> bool {
        let Some(file) = self.files.get_mut(&ino) else {
            return false;
        };
        change.apply(&mut file.now);
        file.pending.push_back(change);
        if file.pending.len() > PENDING_MAX
            && let Some(oldest) = file.pending.pop_front()
        {
            oldest.apply(&mut file.kept);
        }
        true
    }

    /// Makes the content of a file durable. False if there is none.
    pub(super) fn sync(&mut self, ino: Ino) -> bool {
        let Some(file) = self.files.get_mut(&ino) else {
            return false;
        };
        let length = file.kept.len();
        for change in file.pending.drain(..) {
            change.apply(&mut file.kept);
        }
        let is_longer = file.kept.len() > length;
        let is_named = |naming: &Naming| match naming {
            Naming::Put(_, _, named) | Naming::Move(_, _, named) => *named == ino,
            Naming::Directory(_) | Naming::Remove(..) => false,
        };
        if is_longer || self.pending.iter().any(is_named) {
            self.sync_names();
        }
        true
    }

    /// Makes all names durable.
    pub(super) fn sync_names(&mut self) {
        for naming in self.pending.drain(..) {
            naming.apply(&mut self.kept);
        }
    }

    /// The power fails: what is there now is what had reached the disk.
    pub(super) fn fail(&mut self, random: &mut fastrand::Rng) -> Lost {
        let mut lost = Lost::default();
        let names = random.usize(0..=self.pending.len());
        lost.names = (self.pending.len() - names) as u64;
        for naming in self.pending.drain(..).take(names) {
            naming.apply(&mut self.kept);
        }
        self.directories = self.kept.clone();
        // The same disk at another time: next to nothing, half of it, or nearly all had reached it.
        let chance = random.choice([0.0, 0.1, 0.5, 0.9]).unwrap_or(0.0);
        let named: Vec<_> = self.kept.values().flat_map(BTreeMap::values).collect();
        let named: std::collections::HashSet<_> = named.into_iter().copied().collect();
        self.files.retain(|ino, _| named.contains(ino));
        // In the order of their numbers: the seed says what becomes of each.
        let mut files: Vec<_> = self.files.iter_mut().collect();
        files.sort_unstable_by_key(|(ino, _)| **ino);
        for (_, file) in files {
            let pending = std::mem::take(&mut file.pending);
            for change in pending {
                change.survive(&mut file.kept, chance, random, &mut lost);
            }
            file.now.clone_from(&file.kept);
        }
        lost
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// Applies what had reached the disk of it.
    fn survive(
        self,
        content: &mut Vec<u8>,
        chance: f64,
        random: &mut fastrand::Rng,
        lost: &mut Lost,
    ) {
        let fate = random.f64();
        if fate < chance {
            return self.apply(content);
        }
        // Of those that do not survive whole a quarter does in part.
        if let Self::Write(offset, bytes) = &self
            && random.u8(..4) == 0
        {
            lost.torn += 1;
            if random.bool() && content.len() < offset + bytes.len() {
                content.resize(offset + bytes.len(), 0);
            }
            let mut at = 0;
            while at < bytes.len() {
                // Sectors lie where they lie in the file.
                let end = ((offset + at) / SECTOR_BYTES + 1) * SECTOR_BYTES - offset;
                let end = end.min(bytes.len());
                if random.bool() {
                    Self::Write(offset + at, bytes[at..end].to_owned()).apply(content);
                }
                at = end;
            }
            return;
        }
        lost.changes += 1;
    }
}

impl Naming {
    fn apply(&self, directories: &mut HashMap<Ino, Names>) {
        match self {
            Self::Directory(ino) => {
                directories.entry(*ino).or_default();
            }
            Self::Put(directory, name, ino) => {
                let names = directories.entry(*directory).or_default();
                names.insert(name.clone(), *ino);
            }
            Self::Remove(directory, name) => {
                directories.entry(*directory).or_default().remove(name);
            }
            Self::Move(from, to, ino) => {
                directories.entry(from.0).or_default().remove(&from.1);
                let names = directories.entry(to.0).or_default();
                names.insert(to.1.clone(), *ino);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn content(disk: &Volatile, text: &str) -> Option<Vec<u8>> {
        let ino = disk.look_up(ROOT, name(text))?;
        Some(disk.read(ino, 0, usize::MAX).unwrap().to_owned())
    }

    /// All that becomes of a disk, over many seeds.
    fn fates(make: impl Fn(&mut Volatile), text: &str) -> Vec<Option<Vec<u8>>> {
        let mut fates: Vec<_> = (0..500)
            .map(|seed| {
                let mut disk = Volatile::new();
                make(&mut disk);
                disk.fail(&mut fastrand::Rng::with_seed(seed));
                content(&disk, text)
            })
            .collect();
        fates.sort_unstable();
        fates.dedup();
        fates
    }

    #[test]
    fn what_was_synced_is_there_and_nothing_else_is_sure() {
        let written = |synced: bool| {
            move |disk: &mut Volatile| {
                let ino = disk.make(ROOT, name("a"), false);
                disk.write(ino, 0, b"one");
                disk.sync(ino);
                disk.write(ino, 0, b"two");
                if synced {
                    disk.sync(ino);
                }
            }
        };
        assert_eq!(fates(written(true), "a"), [Some(b"two".to_vec())]);
        let unsure = [Some(b"one".to_vec()), Some(b"two".to_vec())];
        assert_eq!(fates(written(false), "a"), unsure);
    }

    #[test]
    fn writes_are_lost_in_any_order_and_torn_between_sectors() {
        let both = |disk: &mut Volatile| {
            let ino = disk.make(ROOT, name("a"), false);
            disk.write(ino, 0, &[1; 2 * SECTOR_BYTES]);
            disk.sync(ino);
            disk.write(ino, 0, &[2; 2 * SECTOR_BYTES]);
            disk.write(ino, SECTOR_BYTES, &[3; SECTOR_BYTES]);
        };
        let fates = fates(both, "a");
        let has = |first: u8, second: u8| {
            let halves = [[first; SECTOR_BYTES], [second; SECTOR_BYTES]].concat();
            fates.contains(&Some(halves))
        };
        assert!(has(1, 1) && has(2, 2) && has(2, 3) && has(1, 3) && has(2, 1) && has(1, 2));
        assert_eq!(fates.len(), 6, "no sector is a mixture");
    }

    #[test]
    fn a_file_that_replaces_another_is_the_old_or_the_new_one_if_it_was_synced() {
        let replaced = |synced: bool| {
            move |disk: &mut Volatile| {
                let old = disk.make(ROOT, name("a"), false);
                disk.write(old, 0, b"old");
                disk.sync(old);
                let new = disk.make(ROOT, name("b"), false);
                disk.write(new, 0, b"new");
                if synced {
                    disk.sync(new);
                }
                assert!(disk.rename((ROOT, name("b")), (ROOT, name("a"))));
            }
        };
        let whole = [Some(b"new".to_vec()), Some(b"old".to_vec())];
        assert_eq!(fates(replaced(true), "a"), whole);
        let fates = fates(replaced(false), "a");
        assert!(fates.contains(&Some(Vec::new())), "a name without content");
    }

    #[test]
    fn names_go_back_in_order_and_stay_once_their_directory_was_synced() {
        let made = |synced: bool| {
            move |disk: &mut Volatile| {
                disk.make(ROOT, name("a"), false);
                disk.make(ROOT, name("b"), false);
                if synced {
                    disk.sync_names();
                }
            }
        };
        assert_eq!(fates(made(true), "b"), [Some(Vec::new())]);
        assert_eq!(fates(made(false), "b"), [None, Some(Vec::new())]);
        for seed in 0..100 {
            let mut disk = Volatile::new();
            made(false)(&mut disk);
            disk.fail(&mut fastrand::Rng::with_seed(seed));
            let (a, b) = (content(&disk, "a"), content(&disk, "b"));
            assert!(a.is_some() || b.is_none(), "the second without the first");
        }
    }
}
