//! Which of the open databases are closed for want of use.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::ffi;

/// Files that a database keeps open beside those of its connections: the journal.
const FILES_OF_DATABASE: usize = 1;
/// Files of a connection: the database and its WAL.
const FILES_OF_CONNECTION: usize = 2;

/// Databases that this process has open.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Counts as an open database until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(());

impl Counted {
    pub(crate) fn new() -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// File handles that the databases of this process take.
pub fn open_files() -> usize {
    OPEN.load(Ordering::Relaxed) * FILES_OF_DATABASE + ffi::open_connections() * FILES_OF_CONNECTION
}

/// When an open database is closed. Time is counted in looks, each of which picks those that it is time for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdleRule {
    /// Looks without use after which it is.
    pub looks_max: u64,
    /// Databases that stay open at most, those used last.
    pub open_max: usize,
    /// File handles that they take at most.
    pub files_max: usize,
}

impl IdleRule {
    /// Those to be closed of the `open` ones, given by the look before which each was used last, while they take so
    /// many `files`. One that was used since the last look is not: it would be opened again at once.
    pub fn pick<T>(
        &self,
        now: u64,
        mut open: Vec<(u64, T)>,
        files: usize,
    ) -> impl Iterator<Item = T> {
        open.sort_unstable_by_key(|(used_at, _)| *used_at);
        let many = open.len().saturating_sub(self.open_max);
        let files_each = (files / open.len().max(1)).max(1);
        let wide = files.saturating_sub(self.files_max).div_ceil(files_each);
        let (excess, looks_max) = (many.max(wide), self.looks_max);
        let due = open
            .into_iter()
            .enumerate()
            .filter(move |(at, (used_at, _))| {
                let looks = now.saturating_sub(*used_at);
                looks > looks_max || (*at < excess && looks > 1)
            });
        due.map(|(_, (_, one))| one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: IdleRule = IdleRule {
        looks_max: 30,
        open_max: 4,
        files_max: 40,
    };

    #[track_caller]
    fn check(used_at: &[u64], files: usize, expected: &[usize]) {
        let open = used_at.iter().enumerate().map(|(n, used_at)| (*used_at, n));
        let mut picked: Vec<_> = RULE.pick(100, open.collect(), files).collect();
        picked.sort_unstable();
        assert_eq!(picked, expected);
    }

    #[test]
    fn long_unused_ones_are_closed_however_few_there_are() {
        check(&[69, 70, 100], 9, &[0]);
        check(&[], 0, &[]);
    }

    #[test]
    fn least_recently_used_ones_beyond_the_bound_are_closed() {
        check(&[90, 80, 95, 85, 97, 98], 18, &[1, 3]);
    }

    #[test]
    fn ones_in_use_stay_open_beyond_the_bound() {
        check(&[99, 99, 100, 100, 98, 100], 18, &[4]);
    }

    #[test]
    fn file_handles_beyond_their_bound_close_as_many_as_hold_them() {
        // Four with 15 each, 20 too many.
        check(&[95, 96, 97, 98], 60, &[0, 1]);
        check(&[95, 96, 97, 98], 40, &[]);
    }
}
