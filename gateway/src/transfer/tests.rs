//! The bookkeeping of imports and exports, at times of the tests' own choice.
#![allow(clippy::unwrap_used)]

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::HeaderMap;
use tidemark_protocol::{
    Bookmark, BookmarkKey, DatabaseId, Epoch, Position, RequestId, Seq, StateChecksum,
};
use tokio::time::Instant;

use super::jobs::{Busy, Jobs, KEPT, REPEATED, Stage};
use super::link::{Link, Purpose};
use super::secret::{Etag, Secret};
use super::shelf::{Download, Place, Shelf, Upload};
use super::{OnDrop, RETRIED_MAX};

const SECOND: Duration = Duration::from_secs(1);

fn database(number: u8) -> DatabaseId {
    format!("0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5{number:02x}")
        .parse()
        .unwrap()
}

fn bookmark() -> Bookmark {
    let position = Position {
        epoch: Epoch(1),
        seq: Seq(41),
        checksum: StateChecksum(0xabc),
    };
    Bookmark::issue(&BookmarkKey::new([7; 16]), database(0), position)
}

fn begun(jobs: &mut Jobs<u8, &'static str>, key: u8, now: Instant) -> super::jobs::JobId {
    jobs.begin(database(0), key, bookmark(), now).unwrap()
}

#[test]
fn end_is_told_again_for_a_while_with_the_same_remarks() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let job = begun(&mut jobs, 1, now);
    jobs.say(job, "a");
    let told = jobs.ask(job, now).unwrap();
    assert_eq!((told.messages, told.end), (vec!["a".to_owned()], None));
    jobs.say(job, "b");
    jobs.end(job, Ok("done"), now);
    jobs.end(job, Err("late".to_owned()), now);
    assert_eq!(jobs.about(database(0), &1, now), Some((job, Stage::Done)));
    for after in [Duration::ZERO, REPEATED - SECOND] {
        let told = jobs.ask(job, now + after).unwrap();
        assert_eq!(told.messages, ["b"]);
        assert_eq!(told.end, Some(Ok("done")));
    }
    assert_eq!(jobs.about(database(0), &1, now), Some((job, Stage::Over)));
    assert_eq!(jobs.ask(job, now + REPEATED), None);
    let at = bookmark().to_string();
    assert_eq!(jobs.named(database(0), &at, now), Some(job));
    assert_eq!(jobs.named(database(0), &at, now + REPEATED), None);
    assert_eq!(jobs.about(database(0), &1, now + REPEATED), None);
}

#[test]
fn second_job_of_a_database_waits_for_the_end_of_the_first() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let first = begun(&mut jobs, 1, now);
    let second = jobs.begin(database(0), 2, bookmark(), now);
    assert_eq!(second, Err(Busy));
    jobs.begin(database(1), 2, bookmark(), now).unwrap();
    jobs.end(first, Err("no".to_owned()), now);
    assert_eq!(jobs.about(database(0), &1, now), Some((first, Stage::Over)));
    begun(&mut jobs, 2, now);
    assert!(jobs.is_running(database(0)));
    assert!(!jobs.runs(first));
}

#[test]
fn jobs_from_the_same_state_have_names_and_ends_of_their_own() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let first = begun(&mut jobs, 1, now);
    jobs.end(first, Ok("first"), now);
    let second = begun(&mut jobs, 1, now);
    jobs.end(second, Ok("second"), now);
    for (job, end) in [(first, "first"), (second, "second")] {
        let told = jobs.ask(job, now).unwrap();
        assert_eq!(told.end, Some(Ok(end)));
        assert_eq!(jobs.named(database(0), &told.at, now), Some(job));
        assert_eq!(jobs.named(database(1), &told.at, now), None);
    }
    assert_eq!(jobs.named(database(0), "elsewhere", now), None);
}

#[test]
fn end_that_nobody_asks_for_is_forgotten() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let job = begun(&mut jobs, 1, now);
    jobs.end(job, Ok("done"), now);
    assert_eq!(jobs.about(database(0), &1, now + KEPT), None);
    assert_eq!(jobs.ask(job, now + KEPT), None);
    jobs.begin(database(1), 1, bookmark(), now + KEPT).unwrap();
    assert_eq!(jobs.about(database(0), &1, now), None);
}

#[test]
fn ends_that_nobody_asks_for_have_a_bound() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let ids: Vec<_> = (0..17)
        .map(|_| {
            let job = begun(&mut jobs, 1, now);
            jobs.end(job, Ok("done"), now);
            job
        })
        .collect();
    assert_eq!(jobs.ask(ids[0], now), None);
    assert!(jobs.ask(ids[1], now).is_some());
}

#[test]
fn job_whose_work_panics_ends() {
    let now = Instant::now();
    let jobs = Mutex::new(Jobs::default());
    let job = begun(&mut jobs.lock().unwrap(), 1, now);
    let work = || {
        let _ended = OnDrop(|| jobs.lock().unwrap().end(job, Err("broken".to_owned()), now));
        panic!("at work");
    };
    assert!(std::panic::catch_unwind(AssertUnwindSafe(work)).is_err());
    assert!(!jobs.lock().unwrap().is_running(database(0)));
}

#[test]
fn job_that_nobody_asks_about_is_known() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let job = begun(&mut jobs, 1, now);
    assert!(!jobs.is_unasked(job, SECOND, now + SECOND));
    assert!(jobs.is_unasked(job, SECOND, now + 2 * SECOND));
    jobs.ask(job, now + 2 * SECOND);
    assert!(!jobs.is_unasked(job, SECOND, now + 3 * SECOND));
}

#[test]
fn remarks_that_nobody_reads_have_a_bound() {
    let now = Instant::now();
    let mut jobs = Jobs::default();
    let job = begun(&mut jobs, 1, now);
    for number in 0..500 {
        jobs.say(job, number.to_string());
    }
    let told = jobs.ask(job, now).unwrap();
    assert_eq!(told.messages.len(), 100);
    assert_eq!(told.messages.last().unwrap(), "499");
}

fn place(etag: u8, expires: Instant) -> Place {
    Place {
        database: database(0),
        etag: Etag([etag; 16]),
        expires,
    }
}

fn request(number: u8) -> RequestId {
    RequestId::from_bytes([number; 16])
}

#[test]
fn links_and_files_last_until_their_time() {
    let now = Instant::now();
    let (end, secret) = (now + SECOND, Secret([1; 16]));
    let mut shelf = Shelf::default();
    shelf.announce(secret, place(1, end), now);
    let upload = Upload {
        file: "up",
        request: request(1),
        begun: None,
        expires: end,
    };
    assert!(shelf.put(place(1, end), upload.clone()));
    let download = Download {
        file: "down",
        name: "x.sql".to_owned(),
        expires: end,
    };
    shelf.offer(secret, download.clone());
    assert_eq!(shelf.place(secret, now), Some(place(1, end)));
    let etag = Etag([1; 16]);
    assert_eq!(shelf.upload(database(0), etag, now), Some(upload));
    assert_eq!(shelf.upload(database(1), etag, now), None);
    assert_eq!(shelf.download(secret, now), Some(download));
    assert_eq!(shelf.place(secret, end), None);
    assert_eq!(shelf.upload(database(0), etag, end), None);
    assert_eq!(shelf.download(secret, end), None);
}

#[test]
fn second_upload_of_a_file_leaves_the_first_with_its_request() {
    let now = Instant::now();
    let place = place(1, now + SECOND);
    let mut shelf = Shelf::default();
    for number in 1..=2 {
        let upload = Upload {
            file: number,
            request: request(number),
            begun: None,
            expires: place.expires,
        };
        assert_eq!(shelf.put(place, upload), number == 1);
    }
    let kept = shelf.upload(place.database, place.etag, now).unwrap();
    assert_eq!((kept.file, kept.request), (1, request(1)));
    shelf.remove(place.database, place.etag, request(2));
    assert!(shelf.upload(place.database, place.etag, now).is_some());
    shelf.remove(place.database, place.etag, request(1));
    assert!(shelf.upload(place.database, place.etag, now).is_none());
}

#[test]
fn file_whose_import_began_keeps_its_request_and_goes_before_that_is_forgotten() {
    let now = Instant::now();
    let place = place(1, now + 10 * RETRIED_MAX);
    let mut shelf = Shelf::default();
    let upload = Upload {
        file: "up",
        request: request(1),
        begun: None,
        expires: place.expires,
    };
    assert!(shelf.put(place, upload));
    let (of, etag) = (place.database, place.etag);
    for (named, after) in [(Some(request(2)), SECOND), (Some(request(3)), RETRIED_MAX)] {
        let begun = shelf.begin(of, etag, named, now + after).unwrap();
        assert_eq!(begun.request, request(2));
        assert_eq!(begun.begun, Some(now + SECOND));
    }
    assert!(shelf.upload(of, etag, now + RETRIED_MAX + SECOND).is_none());
}

#[test]
fn oldest_link_makes_room() {
    let now = Instant::now();
    let mut shelf = Shelf::<()>::default();
    let secret = |number: u16| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Secret(bytes)
    };
    for number in 0..1025 {
        let expires = now + SECOND * (u32::from(number) + 1);
        shelf.announce(secret(number), place(1, expires), now);
    }
    assert_eq!(shelf.place(secret(0), now), None);
    assert!(shelf.place(secret(1), now).is_some());
    assert!(shelf.place(secret(1024), now).is_some());
}

#[test]
fn secrets_and_hashes_are_hex_of_one_length() {
    let text = "00ff00ff00ff00ff00ff00ff00ff00ff";
    assert_eq!(text.parse::<Etag>().unwrap().to_string(), text);
    let upper = text.to_uppercase();
    assert_eq!(upper.parse::<Secret>().unwrap().to_string(), text);
    for bad in ["", &text[1..], "+0ff00ff00ff00ff00ff00ff00ff00ff", "é"] {
        assert!(bad.parse::<Etag>().is_err(), "{bad}");
    }
    assert_eq!(format!("{:?}", Secret([1; 16])), "Secret(..)");
}

#[test]
fn link_needs_a_host() {
    let mut headers = HeaderMap::new();
    assert!(Link::back(&headers).is_err());
    headers.insert("host", "[::1]:8787".parse().unwrap());
    let link = Link::back(&headers).unwrap();
    assert_eq!(
        link.url(Purpose::Download, Secret([0xab; 16])),
        format!(
            "http://[::1]:8787/tidemark/v1/downloads/{}",
            "ab".repeat(16)
        )
    );
}
