//! At stake: a limit is one. However many ask at once, wherever they ask, and whatever their clocks show.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::routing::get;
use axum::{Router, middleware};
use rate_limiter::{API_KEY, LEFT, Limiter, Verdict, limit};
use tidemark_tests::{Cluster, Place, Seed};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::PROGRAM;

const LIMIT: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_MS: i64 = 60_000;
const DATABASE: &str = "rate-limits";

async fn cluster() -> Cluster {
    let places = [
        Place::near("WEUR"),
        Place::at("APAC", Duration::from_millis(15)),
    ];
    Cluster::start(PROGRAM, &places).await
}

/// A limiter at each node, counting by these clocks.
async fn limiters(cluster: &Cluster, clocks: &[Arc<AtomicI64>]) -> Vec<Limiter> {
    let mut limiters = Vec::new();
    for (node, clock) in cluster.nodes().zip(clocks.iter().cycle()) {
        let client = Cluster::client(node);
        let limiter = Limiter::open(&client, DATABASE, LIMIT, WINDOW).await;
        let clock = Arc::clone(clock);
        let limiter = limiter.expect("opened").deadline(Duration::from_secs(30));
        limiters.push(limiter.clock(Arc::new(move || clock.load(Ordering::Relaxed))));
    }
    limiters
}

/// All ask at once, so often each. Returns when those count that were let in.
async fn rush(limiters: &[Limiter], callers: usize, times: usize) -> Vec<i64> {
    let mut rush = JoinSet::new();
    for limiter in limiters {
        for _ in 0..callers {
            let limiter = limiter.clone();
            rush.spawn(async move {
                let mut admitted = Vec::new();
                for _ in 0..times {
                    match limiter.take("customer").await.expect("a verdict") {
                        Verdict::Admitted { at_ms, left } => {
                            assert!(left < LIMIT);
                            admitted.push(at_ms);
                        }
                        Verdict::Refused { retry_after } => assert!(retry_after <= WINDOW),
                    }
                }
                admitted
            });
        }
    }
    rush.join_all().await.concat()
}

/// Panics if any window holds more than the limit.
fn check_windows(mut admitted: Vec<i64>) {
    admitted.sort_unstable();
    for window in admitted.windows(LIMIT as usize + 1) {
        let (first, last) = (window[0], window[LIMIT as usize]);
        let apart = last - first;
        assert!(apart >= WINDOW_MS, "{} within {apart} ms", window.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_window_holds_more_than_the_limit_and_none_less_than_it_may() {
    let cluster = cluster().await;
    let clock = Arc::new(AtomicI64::new(1_000_000));
    let limiters = limiters(&cluster, &[Arc::clone(&clock)]).await;
    let mut admitted = Vec::new();
    // 60 requests every ten seconds, for three windows: far too many.
    for round in 0..18 {
        clock.store(1_000_000 + 10_000 * round, Ordering::Relaxed);
        admitted.extend(rush(&limiters, 4, 5).await);
    }
    check_windows(admitted.clone());
    assert_eq!(
        admitted.len(),
        3 * LIMIT as usize,
        "every place was given away"
    );

    // Other keys have places of their own, and refusals write nothing.
    let before = cluster.primary.api().status().await.expect("a status");
    assert!(rush(&limiters, 1, 1).await.is_empty());
    let after = cluster.primary.api().status().await.expect("a status");
    assert_eq!(before.databases, after.databases);
    let other = limiters[1].take("somebody else").await.expect("a verdict");
    assert!(
        matches!(other, Verdict::Admitted { left: 99, .. }),
        "{other:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_and_jump_let_nobody_in_too_early() {
    let seed = Seed::of("clocks_that_differ_and_jump_let_nobody_in_too_early");
    let mut random = seed.stream(0);
    let cluster = cluster().await;
    let clocks = [0, -20_000, 15_000].map(|skew| Arc::new(AtomicI64::new(1_000_000 + skew)));
    let limiters = limiters(&cluster, &clocks).await;
    let mut admitted = Vec::new();
    for _ in 0..15 {
        admitted.extend(rush(&limiters, 4, 4).await);
        for clock in &clocks {
            clock.fetch_add(random.i64(-5_000..30_000), Ordering::Relaxed);
        }
    }
    check_windows(admitted.clone());
    assert!(admitted.len() >= LIMIT as usize, "{}", admitted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn layer_counts_all_regions_together_and_says_when_to_come_back() {
    let cluster = cluster().await;
    let mut services = Vec::new();
    for node in cluster.nodes() {
        let client = Cluster::client(node);
        let limiter = Limiter::open(&client, DATABASE, 10, WINDOW).await;
        let layer = middleware::from_fn_with_state(limiter.expect("opened"), limit);
        let router = Router::new()
            .route("/", get(async || "served"))
            .layer(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        services.push(format!("http://{address}/"));
    }
    let http = reqwest::Client::new();
    let ask = async |service: &String| {
        let answer = http.get(service).header(API_KEY, "me").send().await;
        answer.expect("an answer")
    };
    for (number, service) in services.iter().cycle().take(10).enumerate() {
        let answer = ask(service).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[LEFT], (9 - number).to_string());
    }
    for service in &services {
        let answer = ask(service).await;
        assert_eq!(answer.status(), 429);
        let wait = answer.headers()["retry-after"].to_str().expect("a text");
        let wait: u64 = wait.parse().expect("whole seconds");
        assert!((1..=60).contains(&wait), "{wait}");
    }
    let nobody = http.get(&services[0]).send().await.expect("an answer");
    assert_eq!(nobody.status(), 401);
}
