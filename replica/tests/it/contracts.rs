//! How fresh an answer is proved to be, and when a copy is not worth waiting for.

use std::time::{Duration, Instant};

use tidemark_protocol::{
    Bookmark, Execute, Executed, FailureKind, Freshness, OnMiss, Position, Why,
};

use crate::source::KEY;
use crate::world::{DB, World, at_least, first_value, ms, unconstrained};

/// Far enough above what a busy machine does to a test.
const LATENCY: Duration = ms(250);

/// The number of rows, with a bound on what may be missing.
fn count(bound: Duration, on_miss: OnMiss) -> Execute {
    Execute {
        freshness: Freshness::MaxStaleness(bound),
        deadline: ms(400),
        on_miss,
        ..unconstrained("SELECT count(*) FROM t")
    }
}

fn insert(world: &World) -> Position {
    let sql = "INSERT INTO t(v) VALUES ('x')";
    world.source.write(DB, sql, vec![])
}

/// A world in which everything takes [`LATENCY`] to reach the replica, which has found that out.
async fn far_world() -> World {
    let mut world = World::without_replica().await;
    world.source.state().latency = LATENCY;
    world.start().await;
    world.caught_up(DB).await;
    world
        .eventually("the trip is known", async || {
            let answer = world.execute(count(ms(60_000), OnMiss::Forward)).await;
            matches!(answer, Ok(Executed::Answer(_)))
        })
        .await;
    world
}

fn wanting(position: Position) -> Execute {
    let bookmark = Bookmark::issue(&KEY, DB, position);
    at_least("SELECT count(*) FROM t", bookmark)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_waited_for_here() {
    let world = far_world().await;
    for _ in 0..5 {
        let answer = world.answer(wanting(insert(&world))).await;
        let waited = answer.delivered.waited;
        assert!(waited > LATENCY / 2, "{waited:?}");
        assert!(waited < LATENCY * 4, "{waited:?}");
        assert_eq!(answer.delivered.forwarded, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_is_late_by_more_than_a_trip_is_not_waited_for() {
    let world = far_world().await;
    world.source.pause();
    let request = wanting(insert(&world));
    world
        .eventually("forwarded at once", async || {
            let asked = Instant::now();
            let outcome = world.execute(request.clone()).await;
            let took = asked.elapsed();
            assert_eq!(outcome, Ok(Executed::Forward(Why::Predicted)));
            assert!(took < LATENCY * 4, "{took:?}");
            took < LATENCY / 5
        })
        .await;
    // What the copy has is read here all the same.
    let here = unconstrained("SELECT count(*) FROM t");
    assert_eq!(world.value(here).await, 0);
    world.source.resume();
    world.caught_up(DB).await;
    assert_eq!(world.value(request).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_stream_is_waited_for_by_what_it_brings_before_an_answer_could_come() {
    let world = far_world().await;
    world.source.pause();
    let positions: Vec<_> = (0..200).map(|_| insert(&world)).collect();
    let far = wanting(positions[199]);
    let trickle = async {
        loop {
            world.source.trickle();
            tokio::time::sleep(ms(20)).await;
        }
    };
    let reads = async {
        world
            .eventually("the pace is known", async || {
                let asked = Instant::now();
                let outcome = world.execute(far.clone()).await;
                assert_eq!(outcome, Ok(Executed::Forward(Why::Predicted)));
                let here = world.status(DB).await;
                let begun = here.is_some_and(|(reached, _)| reached.reached(&positions[10]));
                begun && asked.elapsed() < LATENCY / 5
            })
            .await;
        let (reached, _) = world.status(DB).await.expect("a copy");
        let near = positions.iter().position(|at| *at == reached);
        let near = wanting(positions[near.expect("one of them") + 3]);
        let answer = world.answer(near).await;
        assert_eq!(answer.delivered.forwarded, None);
    };
    tokio::select! {
        () = trickle => {}
        () = reads => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_is_met_here_as_long_as_a_round_trip_allows() {
    let world = far_world().await;
    let answer = world.answer(count(ms(60_000), OnMiss::Error)).await;
    let staleness = answer.delivered.staleness.expect("it is known");
    assert!(staleness >= LATENCY, "{staleness:?}");
    let asked = Instant::now();
    let outcome = world.execute(count(LATENCY / 4, OnMiss::Forward)).await;
    assert_eq!(outcome, Ok(Executed::Forward(Why::Predicted)));
    assert!(asked.elapsed() < LATENCY / 2, "{:?}", asked.elapsed());
    // Plain reads say what they may miss as well.
    let plain = world.answer(unconstrained("SELECT 1")).await;
    assert!(plain.delivered.staleness.is_some());
}

/// The law itself: an answer within the bound has every write that is older than that.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_within_a_bound_misses_an_older_write() {
    let world = World::new().await;
    let bound = ms(150);
    let mut committed = Vec::new();
    let mut answered = 0;
    for round in 0..40 {
        if round % 10 == 5 {
            world.source.pause();
        } else if round % 10 == 8 {
            world.source.resume();
        }
        insert(&world);
        committed.push(Instant::now());
        for _ in 0..10 {
            let asked = Instant::now();
            match world.execute(count(bound, OnMiss::Forward)).await {
                Ok(Executed::Answer(answer)) => {
                    let staleness = answer.delivered.staleness.expect("it is known");
                    assert!(staleness <= bound, "{staleness:?}");
                    let due = committed.iter().filter(|at| **at + staleness <= asked);
                    let (due, seen) = (due.count(), first_value(&answer));
                    assert!(
                        seen.as_u64() >= Some(due as u64),
                        "round {round}: {seen} of {due}, {staleness:?}"
                    );
                    answered += 1;
                }
                Ok(Executed::Forward(_)) => {}
                Err(failure) => panic!("{failure}"),
            }
            tokio::time::sleep(ms(3)).await;
        }
    }
    assert!(answered > 40, "only {answered} reads were answered here");
}

/// The same while the copy comes as an image, which has what was committed when it began.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_within_a_bound_misses_a_write_from_while_an_image_came() {
    let mut world = World::new().await;
    let answers = async |world: &World| {
        let before = world.source.state().seen.answered;
        let again = async || world.source.state().seen.answered >= before + 2;
        world.eventually("asked and answered", again).await;
    };
    answers(&world).await;
    world.stop().await;
    insert(&world);
    world.source.forget();
    world.source.state().holding_images = true;
    world.start().await;
    let asked_for = async || {
        let state = world.source.state();
        state.seen.hashes.iter().any(|(id, _)| *id == DB)
    };
    world.eventually("an image begun", asked_for).await;
    let begun = world.source.position(DB);
    insert(&world);
    let committed = Instant::now();
    answers(&world).await;
    world.source.pause();
    world.source.release_images();
    world
        .eventually("the image installed", async || {
            let here = world.status(DB).await;
            here.is_some_and(|(reached, _)| reached == begun)
        })
        .await;
    let check = async |expected: u64| {
        let asked = Instant::now();
        let mut request = count(ms(60_000), OnMiss::Stale);
        request.deadline = ms(200);
        let answer = world.answer(request).await;
        let (seen, staleness) = (first_value(&answer), answer.delivered.staleness);
        assert_eq!(seen, expected, "{staleness:?}");
        let due = staleness.is_some_and(|bound| committed + bound <= asked);
        assert!(seen == 2 || !due, "{staleness:?} misses the write");
        staleness
    };
    check(1).await;
    world.source.resume();
    world.caught_up(DB).await;
    answers(&world).await;
    world
        .eventually("a proof", async || check(2).await.is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_replica_refuses_a_bound_once_that_time_has_passed() {
    let mut world = World::new().await;
    let bound = ms(600);
    world
        .eventually("a first proof", async || {
            let answer = world.execute(count(bound, OnMiss::Forward)).await;
            matches!(answer, Ok(Executed::Answer(_)))
        })
        .await;
    world.source.silence();
    let cut = Instant::now();
    insert(&world);
    world
        .eventually("refused", async || {
            let asked = cut.elapsed();
            match world.execute(count(bound, OnMiss::Error)).await {
                Ok(Executed::Answer(answer)) => {
                    assert!(
                        asked < bound,
                        "answered {asked:?} after the cut: {answer:?}"
                    );
                    false
                }
                Ok(Executed::Forward(why)) => panic!("{why:?}"),
                Err(failure) => {
                    assert_eq!(failure.kind, FailureKind::Stale, "{failure}");
                    assert!(
                        failure.message.contains("max-staleness=600000us"),
                        "{failure}"
                    );
                    true
                }
            }
        })
        .await;
    assert!(cut.elapsed() >= bound, "refused after {:?}", cut.elapsed());
    let outcome = world.execute(count(bound, OnMiss::Forward)).await;
    assert_eq!(outcome, Ok(Executed::Forward(Why::Behind)));
    let stale = world.answer(count(bound, OnMiss::Stale)).await;
    let staleness = stale
        .delivered
        .staleness
        .expect("known from before the cut");
    assert!(staleness > bound, "{staleness:?}");
    world.source.serve().await;
    world
        .eventually("fresh again", async || {
            matches!(
                world.execute(count(bound, OnMiss::Forward)).await,
                Ok(Executed::Answer(_))
            )
        })
        .await;
}

/// Heartbeats say that the source lives, not that everything came.
#[tokio::test(flavor = "multi_thread")]
async fn connected_source_that_answers_nothing_proves_nothing() {
    let world = World::new().await;
    world.source.pause();
    insert(&world);
    let bound = ms(300);
    let paused = Instant::now();
    world
        .eventually("refused", async || {
            let asked = paused.elapsed();
            match world.execute(count(bound, OnMiss::Error)).await {
                Ok(Executed::Answer(_)) => {
                    assert!(asked < bound, "answered {asked:?} after the last sign");
                    false
                }
                outcome => {
                    let kind = outcome.map_err(|failure| failure.kind);
                    assert_eq!(kind, Err(FailureKind::Stale));
                    true
                }
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn source_that_knows_no_questions_is_asked_none() {
    let mut world = World::without_replica().await;
    world.source.state().asks = false;
    world.start().await;
    world.caught_up(DB).await;
    let outcome = world.execute(count(ms(60_000), OnMiss::Forward)).await;
    assert_eq!(outcome, Ok(Executed::Forward(Why::Predicted)));
    let plain = world.answer(unconstrained("SELECT 1")).await;
    assert_eq!(plain.delivered.staleness, None);
}
