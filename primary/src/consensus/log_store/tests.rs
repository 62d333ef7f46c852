use openraft::type_config::TypeConfigExt;

use super::*;

fn options(directory: &Path) -> LogOptions {
    LogOptions {
        directory: directory.join("log"),
        node: NodeId(1),
        cache_bytes: 0,
        cache_entries: 0,
        segment_bytes: SEGMENT_BYTES_MIN,
        is_used: false,
    }
}

/// A disk that has failed once may have lost what it was given: nothing after that can be trusted.
#[tokio::test]
async fn a_failed_flush_is_told_to_who_waits_and_is_final() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = options(directory.path());
    let failure = Failure::new();
    let mut log = LogStore::open(&options, None, Fence::default(), failure.clone()).expect("opens");
    log.save_vote(&CellVote::new(1, 1))
        .await
        .expect("the disk works");

    let (append, appended) = Cell::oneshot();
    let (vote, voted) = oneshot::channel();
    let waiting = Waiting {
        appends: vec![IOFlushed::signal(append)],
        entries: 1,
        votes: vec![vote],
        bytes: 0,
    };
    let flushed = Flushed {
        waiting,
        end: 0,
        begun: Instant::now(),
        shared: log.shared.clone(),
        is_sent: false,
    };
    Callback::send(
        OnFlushed::Tell(flushed),
        Err(io::Error::other("the disk is on fire")),
    );

    for result in [appended.await.expect("told"), voted.await.expect("told")] {
        assert_eq!(
            result.expect_err("it failed").to_string(),
            "the disk is on fire"
        );
    }
    assert!(
        failure
            .get()
            .is_some_and(|fatal| fatal.to_string().contains("on fire"))
    );
    let refused = log.save_vote(&CellVote::new(2, 1)).await;
    assert!(refused.expect_err("final").to_string().contains("on fire"));
}

/// Whoever fills raft-log's queue waits for its thread, which needs the lock that is held then.
#[tokio::test]
async fn appending_waits_before_the_queue_is_full_until_it_is_flushed_or_will_never_be() {
    for segment_bytes in [1, SEGMENT_BYTES_MIN, 64 << 20, u64::MAX] {
        let ahead = ahead_bytes_max(segment_bytes);
        let pieces = ahead + 2 * PIECE_BYTES + (64 << 20);
        let segment_bytes = segment_bytes.max(SEGMENT_BYTES_MIN);
        assert!(SEGMENT_REQUESTS * (pieces / segment_bytes) < QUEUE_REQUESTS);
        assert!(pieces < QUEUE_BYTES as u64);
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let options = options(directory.path());
    let log = LogStore::open(&options, None, Fence::default(), Failure::new()).expect("opens");
    let shared = log.shared.clone();
    let ends = shared.ends.load(Ordering::Relaxed) + shared.ahead_bytes_max + 9;
    shared.ends.store(ends, Ordering::Relaxed);
    for end in [ends - shared.ahead_bytes_max, u64::MAX] {
        let mut waiting = std::pin::pin!(log.room());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        shared.flushed(end);
        waiting.await;
        shared.ends.fetch_add(1, Ordering::Relaxed);
    }
}
