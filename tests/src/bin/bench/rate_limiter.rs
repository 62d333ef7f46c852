//! What a global limit costs in each region, and what limiters that count by themselves would let through.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rate_limiter::{Limiter, Verdict};
use tokio::task::JoinSet;

use crate::page;
use crate::world;

const REQUESTS: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
const DATABASE: &str = "rate-limits";
/// What one key asks for in a rush, all its callers together.
const RUSH: usize = 240;
/// Callers of a rush, over all regions or in one.
const CALLERS: usize = 12;

/// Measures, prints the tables, and writes them into `page`.
pub(crate) async fn run(takes: usize, page: &Path) -> anyhow::Result<()> {
    let (cluster, regions) = world::start().await?;
    let mut limiters = Vec::new();
    for region in &regions {
        limiters.push(Limiter::open(&region.near, DATABASE, REQUESTS, WINDOW).await?);
    }
    cluster.settled(Duration::from_secs(10)).await;

    let mut out =
        String::from("| region | round trip to the primary ms | a verdict p50 ms | p99 ms |\n");
    let _ = writeln!(out, "| --- | --- | --- | --- |");
    for (region, limiter) in regions.iter().zip(&limiters) {
        let mut times = Histogram::<u64>::new(3)?;
        for number in 0..=takes {
            // Of a few keys, so that the windows are as full as they may be.
            let key = format!("{} {}", region.name, number % 4);
            let begun = Instant::now();
            limiter.take(&key).await?;
            // The first one makes the connection.
            if number > 0 {
                times.record(u64::try_from(begun.elapsed().as_micros())?)?;
            }
        }
        let ms =
            |quantile| Duration::from_micros(times.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        let (name, round_trip) = (region.name, region.round_trip_ms);
        let _ = writeln!(
            out,
            "| {name} | {round_trip:.0} | {:.1} | {:.1} |",
            ms(0.5),
            ms(0.99)
        );
    }
    print!("{out}");
    page::put(page, "verdicts", &out)?;

    let mut out =
        String::from("| limiter | asked from all six regions | from one |\n| --- | --- | --- |\n");
    let everywhere = rush(&limiters, "everywhere").await?;
    let alone = rush(&limiters[..1], "alone").await?;
    let _ = writeln!(out, "| this one | {everywhere} | {alone} |");
    let share = REQUESTS as usize / regions.len();
    for (name, places) in [
        (
            "each region counts by itself to the whole limit".to_owned(),
            REQUESTS as usize,
        ),
        (
            format!("each region counts by itself to its share, {share}"),
            share,
        ),
    ] {
        let alone = local_rush(1, places);
        let _ = writeln!(
            out,
            "| {name} | {} | {alone} |",
            local_rush(regions.len(), places)
        );
    }
    print!("{out}");
    page::put(page, "admitted", &out)
}

/// How many of a rush are let in within one window.
async fn rush(limiters: &[Limiter], key: &'static str) -> anyhow::Result<usize> {
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for limiter in limiters.iter().cycle().take(CALLERS) {
        let limiter = limiter.clone();
        callers.spawn(async move {
            let mut admitted = 0;
            for _ in 0..RUSH / CALLERS {
                let verdict = limiter.take(key).await?;
                admitted += usize::from(matches!(verdict, Verdict::Admitted { .. }));
            }
            anyhow::Ok(admitted)
        });
    }
    let mut admitted = 0;
    while let Some(caller) = callers.join_next().await {
        admitted += caller??;
    }
    let took = begun.elapsed();
    anyhow::ensure!(took < WINDOW, "a rush of {took:?} is no rush");
    Ok(admitted)
}

/// The same with a limiter in each region that knows of no other.
fn local_rush(regions: usize, places: usize) -> usize {
    let mut limiters: Vec<_> = (0..regions).map(|_| Local::of(places)).collect();
    (0..RUSH)
        .filter(|number| limiters[number % regions].take())
        .count()
}

/// Exact for itself: when each of the newest requests was.
struct Local {
    places: usize,
    taken: VecDeque<Instant>,
}

impl Local {
    fn of(places: usize) -> Self {
        Self {
            places,
            taken: VecDeque::new(),
        }
    }

    fn take(&mut self) -> bool {
        let taken = &mut self.taken;
        while taken.front().is_some_and(|first| first.elapsed() >= WINDOW) {
            taken.pop_front();
        }
        let free = taken.len() < self.places;
        if free {
            taken.push_back(Instant::now());
        }
        free
    }
}
