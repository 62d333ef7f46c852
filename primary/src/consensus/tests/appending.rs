//! Appends overlap, and one that is lost is sent again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use openraft::RaftNetworkV2;
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tidemark_protocol::NodeId;
use tokio::sync::mpsc;

use super::harness::*;
use super::wires::*;
use crate::consensus::cell::{Cell, CellEntry, CellPayload, CellVote, CommittedLeaderId, LogId};
use crate::consensus::network::{Peer, Purging};
use crate::consensus::wire::Answer;
use crate::consensus::{Channel, Member, Transport, TransportError};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_append_leaves_before_the_first_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    let first = commit(&wires, 1).await;
    let (node, leader, term) = wires.leader().await;
    // One follower is enough to be waited for, and to be watched.
    let others: Vec<NodeId> = recorders.keys().copied().filter(|n| *n != node).collect();
    wires.cut_off(others[0]);
    let commits = || (leader.metrics().committed >= Some(first)).then_some(());
    wait_until(commits).await;

    wires.0.hold_answers.send_replace(true);
    let (done, mut outcomes) = mpsc::unbounded_channel();
    for seq in 2..=5 {
        let before = wires.0.appends.load(Ordering::Relaxed);
        let done = done.clone();
        leader.propose(term, command(seq), move |outcome| {
            done.send((seq, outcome)).unwrap()
        });
        wait_until(|| (wires.0.appends.load(Ordering::Relaxed) > before).then_some(())).await;
    }
    drop(done);
    assert!(outcomes.try_recv().is_err(), "nothing was answered");
    wires.0.hold_answers.send_replace(false);
    for expected in 2..=5 {
        let (seq, outcome) = outcomes.recv().await.unwrap();
        assert_eq!(seq, expected);
        index(&outcome);
    }
    wires.heal();
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == [1, 2, 3, 4, 5]).then_some(())).await;
    }
    stop(&wires).await;
}

/// More than is let in flight, over a connection that breaks again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_loses_and_repeats_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (wires, recorders) = cell_of(3, root.path()).await;
    let mut seq = 0;
    for _ in 0..5 {
        let (node, ..) = wires.leader().await;
        let other = *recorders.keys().find(|other| **other != node).unwrap();
        for _ in 0..40 {
            seq += 1;
            commit(&wires, seq).await;
        }
        wires.cut_off(other);
        for _ in 0..40 {
            seq += 1;
            commit(&wires, seq).await;
        }
        wires.heal();
    }
    let expected: Vec<_> = (1..=seq).collect();
    for recorder in recorders.values() {
        wait_until(|| (recorder.seqs() == expected).then_some(())).await;
    }
    stop(&wires).await;
}

/// A transport with one connection, whose other end the test has.
struct OneChannel(Mutex<Option<Channel>>);

impl Transport for OneChannel {
    fn call(
        &self,
        _node: NodeId,
        _member: &Member,
        _request: Bytes,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        unreachable!("appends have a connection")
    }

    fn open(
        &self,
        _node: NodeId,
        _member: &Member,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Channel, TransportError>> {
        let channel = self.0.lock().unwrap().take();
        Box::pin(std::future::ready(Ok(channel.unwrap())))
    }
}

/// A leader that stood still finds the answer to what it sent before, when it has just sent on that this is
/// committed: it must not believe that the follower heard the latter.
#[tokio::test]
async fn an_answer_is_not_taken_for_one_to_a_later_message_without_entries() {
    let at = |index| LogId::new(CommittedLeaderId::new(1), index);
    let append = |before, entries: &[u64]| AppendEntriesRequest::<Cell> {
        vote: CellVote::new_committed(1, 1),
        prev_log_id: Some(at(before)),
        entries: entries
            .iter()
            .map(|index| CellEntry {
                log_id: at(*index),
                payload: CellPayload::Blank,
            })
            .collect(),
        leader_commit: None,
    };
    let answer = |upto| {
        let answer = Answer::Append(AppendEntriesResponse::PartialSuccess(Some(at(upto))));
        answer.encode().unwrap()
    };

    let (requests, mut sent) = mpsc::channel(8);
    let (answers, received) = mpsc::channel(8);
    let channel = Channel {
        requests,
        answers: received,
    };
    let mut peer = Peer {
        transport: Arc::new(OneChannel(Mutex::new(Some(channel)))),
        node: NodeId(2),
        member: Member {
            address: "http://two".to_owned(),
            incarnation: incarnation(NodeId(2)),
        },
        purging: Purging::default(),
        channel: None,
    };
    let messages = [append(3, &[4]), append(4, &[5]), append(5, &[])];
    let input = stream::iter(messages).chain(stream::pending());
    let option = RPCOption::new(Duration::from_secs(1));
    let mut appended = peer.stream_append(input, option).await.unwrap();

    assert!(appended.next().now_or_never().is_none());
    for _ in 0..3 {
        sent.try_recv().unwrap();
    }
    answers.try_send(answer(4)).unwrap();
    let first = appended.next().now_or_never().flatten();
    assert_eq!(first.unwrap().unwrap().unwrap(), Some(at(4)));
    answers.try_send(answer(5)).unwrap();
    let second = appended.next().now_or_never();
    assert!(second.is_none(), "{second:?} would vouch for the third");
    answers.try_send(answer(5)).unwrap();
    let both = appended.next().now_or_never().flatten();
    assert_eq!(both.unwrap().unwrap().unwrap(), Some(at(5)));
}
