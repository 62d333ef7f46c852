//! What lies in the files of a database, looked at without opening or changing them.
//!
//! The content is what SQLite would see: the frames of the WAL up to the last commit that can be believed, over the
//! pages of the main file. Its checksum must be that of a position in the journal. Nothing is repaired on the way, so
//! that what a start would cut off in silence is told.
//!
//! What a kill leaves is no damage: every write has reached the operating system in order, so the last injection may
//! be missing, or half there with the file ending in its midst, and nothing else. A power failure may take more of
//! both tails; then the content is an earlier state than the journal's last, which is told as damage, since nothing
//! here tells the one from the other.
//!
//! Not seen: bytes that nobody reads. Those are pages of the main file that the WAL has newer images of, and what
//! lies in the WAL behind its last commit from the time before it started over.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tidemark_protocol::{DatabaseId, PAGE_SIZE, PageNo, Position, StateChecksum};

use crate::ffi;
use crate::files::{DAMAGED, MAIN, MAIN_NEW, POSITIONS, WAL, is_marked};
use crate::genesis;
use crate::hash::{LOCK_PAGE, page_hash};
use crate::journal::{self, Survey};

mod wal;

use wal::Frames;

/// What is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which file.
    pub path: PathBuf,
    /// Where in it, in bytes; 0 also for what is wrong with the whole.
    pub offset: u64,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
}

/// How bad something is that was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// What a process leaves that was killed. The next start mends it.
    Unfinished,
    /// It could not be read.
    Unread,
    /// It is not what was written.
    Damage,
}

/// How well SQLite's own structures are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// `PRAGMA quick_check`.
    Quick,
    /// `PRAGMA integrity_check`: indexes are compared with their tables too.
    Full,
}

/// What was seen of a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspection {
    /// Where its content stands, if it is anywhere.
    pub position: Option<Position>,
    /// The last position that the journal has, whatever the content is at.
    pub noted: Option<Position>,
    /// Pages of the content.
    pub pages: u32,
    /// Pages of the main file that are not looked at, because the WAL has newer ones.
    pub covered: u32,
    /// In the order of the files.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// Damage at a place.
    pub fn damage(
        path: &Path,
        offset: u64,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Damage,
            path: path.to_owned(),
            offset,
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// A file that could not be read.
    pub fn unread(path: &Path, error: &io::Error) -> Self {
        Self {
            severity: Severity::Unread,
            ..Self::damage(path, 0, error.to_string(), "to be readable")
        }
    }

    /// The same as what a crash leaves.
    #[must_use]
    pub fn unfinished(self) -> Self {
        Self {
            severity: Severity::Unfinished,
            ..self
        }
    }
}

/// Looks at the database in `directory`, which nobody may have open. Reads all of it; needs room for a copy of it there
/// while its WAL is not empty.
pub fn inspect(directory: &Path, id: DatabaseId, depth: Depth) -> Inspection {
    let mut seen = Inspection {
        position: None,
        noted: None,
        pages: 0,
        covered: 0,
        findings: Vec::new(),
    };
    let main_path = directory.join(MAIN);
    if let Err(error) = look(directory, id, depth, &mut seen) {
        seen.findings.push(Finding::unread(&main_path, &error));
    }
    seen
}

fn look(directory: &Path, id: DatabaseId, depth: Depth, seen: &mut Inspection) -> io::Result<()> {
    let main_path = directory.join(MAIN);
    let journal_path = directory.join(POSITIONS);
    let wal_path = directory.join(WAL);
    if is_marked(directory) {
        let found = "marked: what lies beside it is not to be believed";
        let expected = "no mark; the node fetches the copy when it runs";
        let finding = Finding::damage(&directory.join(DAMAGED), 0, found, expected);
        seen.findings.push(finding);
        return Ok(());
    }

    let journal = read_if_there(&journal_path)?;
    let survey = journal.as_deref().map(|bytes| journal::survey(id, bytes));
    if let Some(survey) = &survey {
        seen.findings.extend(survey.findings(&journal_path));
        seen.noted = survey.entries.last().copied();
    }
    let main = match File::open(&main_path) {
        Ok(main) => main,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if journal.is_some() {
                let finding = Finding::damage(&main_path, 0, "no file", "a database file");
                seen.findings.push(finding);
            } else {
                seen.position = Some(genesis::position()); // not made yet
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let frames = match File::open(&wal_path) {
        Ok(file) => Frames::read(&file, &wal_path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Frames::default(),
        Err(error) => return Err(error),
    };
    let length = main.metadata()?.len();
    let whole = u32::try_from(length / PAGE_SIZE as u64).unwrap_or(u32::MAX);
    if length % PAGE_SIZE as u64 != 0 {
        let expected = format!("whole pages of {PAGE_SIZE} bytes");
        let finding = Finding::damage(&main_path, length, format!("{length} bytes"), expected);
        // A checkpoint that was broken off while it made the file longer.
        seen.findings.push(if frames.newest.is_empty() {
            finding
        } else {
            finding.unfinished()
        });
    }
    let mut header = [0; 20];
    let has_header = main.read_exact_at(&mut header, 0).is_ok();
    if !has_header || header != genesis::PAGE[..20] {
        let (found, expected) = (hex(&header), hex(&genesis::PAGE[..20]));
        seen.findings
            .push(Finding::damage(&main_path, 0, found, expected));
    }

    let content = Content {
        pages: frames.pages.unwrap_or(whole),
        main,
        frames,
    };
    seen.pages = content.pages;
    let covered = content.frames.newest.keys().filter(|page| page.0 <= whole);
    seen.covered = u32::try_from(covered.count()).unwrap_or(u32::MAX);
    let checksum = match content.checksum() {
        Ok(checksum) => checksum,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let found = format!("{whole} pages");
            let expected = format!("{} pages", content.pages);
            seen.findings
                .push(Finding::damage(&main_path, length, found, expected));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    identify(
        seen,
        survey.as_ref(),
        checksum,
        &content.frames,
        (&main_path, &wal_path),
    );
    structure(seen, directory, &main_path, &content, depth)
}

/// Which position the content is at; and whether that is the one that it should be at.
fn identify(
    seen: &mut Inspection,
    survey: Option<&Survey>,
    checksum: StateChecksum,
    frames: &Frames,
    (main_path, wal_path): (&Path, &Path),
) {
    let genesis = [genesis::position()];
    let entries = survey.map_or(&genesis[..], |survey| &survey.entries);
    let at = entries.iter().rposition(|entry| entry.checksum == checksum);
    seen.position = at.map(|at| entries[at]);
    let Some(at) = at else {
        seen.findings.extend(frames.tail.clone());
        let list = |entry: Option<&Position>| entry.map_or("none".to_owned(), Position::to_string);
        let expected = format!(
            "the checksum of one of {} positions from {} to {}",
            entries.len(),
            list(entries.first()),
            list(entries.last())
        );
        let found = format!("checksum {checksum} of {} pages", seen.pages);
        seen.findings
            .push(Finding::damage(main_path, 0, found, expected));
        return;
    };
    let missing = entries.len() - 1 - at;
    let Some(tail) = &frames.tail else {
        // The journal is written first: the last injection may not have begun.
        if missing > 1 {
            seen.findings
                .push(behind(wal_path, frames.end, entries, at));
        }
        return;
    };
    match missing {
        // Everything is there, and what else is in the WAL was no part of any state: of an injection that was killed,
        // and of which later ones have written over the beginning.
        0 => seen.findings.push(tail.clone().unfinished()),
        // The last injection is not.
        1 => seen.findings.push(tail.clone()),
        _ => {
            seen.findings.push(Finding {
                severity: Severity::Damage,
                ..tail.clone()
            });
            seen.findings
                .push(behind(wal_path, frames.end, entries, at));
        }
    }
}

fn behind(wal_path: &Path, end: u64, entries: &[Position], at: usize) -> Finding {
    let last = entries.last().unwrap_or(&entries[at]);
    Finding::damage(
        wal_path,
        end,
        format!("the end of what can be read, at position {}", entries[at]),
        format!("frames up to position {last}"),
    )
}

/// What SQLite itself says of the content.
fn structure(
    seen: &mut Inspection,
    directory: &Path,
    main_path: &Path,
    content: &Content,
    depth: Depth,
) -> io::Result<()> {
    let beside = directory.join(MAIN_NEW);
    let checked = if content.frames.newest.is_empty() {
        main_path
    } else {
        // A file of this name is worthless to everybody else.
        if let Err(error) = content.write(&beside) {
            let _ = std::fs::remove_file(&beside); // it may be that there is no room
            let found = format!("no room or no way for a copy that SQLite could look at: {error}");
            seen.findings.push(Finding {
                found,
                ..Finding::unread(&beside, &error)
            });
            return Ok(());
        }
        &beside
    };
    let complaints = ffi::check(checked, depth == Depth::Full);
    if !content.frames.newest.is_empty() {
        std::fs::remove_file(&beside)?;
    }
    let complaints = match complaints {
        Ok(complaints) => complaints,
        Err(code) => vec![format!("SQLite cannot read it: {}", code.name())],
    };
    for complaint in complaints {
        seen.findings
            .push(Finding::damage(main_path, 0, complaint, "ok"));
    }
    Ok(())
}

/// The pages of the state that the files hold.
struct Content {
    main: File,
    frames: Frames,
    pages: u32,
}

impl Content {
    fn each(
        &self,
        mut take: impl FnMut(PageNo, &[u8; PAGE_SIZE]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut image = [0; PAGE_SIZE];
        for page in (1..=self.pages).map(PageNo) {
            match self.frames.newest.get(&page) {
                Some(offset) => self.frames.page(*offset, &mut image)?,
                None => {
                    let offset = u64::from(page.0 - 1) * PAGE_SIZE as u64;
                    let read = self.main.read_exact_at(&mut image, offset);
                    match read {
                        // Nobody ever writes it: the file may not reach there yet.
                        Err(error)
                            if page == LOCK_PAGE
                                && error.kind() == io::ErrorKind::UnexpectedEof =>
                        {
                            image = [0; PAGE_SIZE];
                        }
                        read => read?,
                    }
                }
            }
            take(page, &image)?;
        }
        Ok(())
    }

    fn checksum(&self) -> io::Result<StateChecksum> {
        let mut sum = StateChecksum::default();
        self.each(|page, image| {
            sum.0 ^= page_hash(page, image);
            Ok(())
        })?;
        Ok(sum)
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        use std::io::Write;

        let mut file = io::BufWriter::new(File::create(path)?);
        self.each(|_, image| file.write_all(image))?;
        file.flush()
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
