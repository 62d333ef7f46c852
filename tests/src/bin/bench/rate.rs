//! An open-loop load generator: requests are due at fixed times, whether or not those before them were answered.
//!
//! A request that has to wait for its connection, because the server has not answered the one before, counts from
//! when it was due: a server that stands still for a second does not get away with one slow answer. One that leaves
//! late because the generator's timer fired late counts from when it left: that is not the server's fault.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::load::{Request, Round, read_answer};

/// Sends `per_second` requests to `address` over so many `connections` for `duration`. Any answer but 200 is an error.
pub(crate) async fn run(
    address: SocketAddr,
    connections: u32,
    per_second: u32,
    duration: Duration,
    request: Request,
) -> anyhow::Result<Round> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|connection| {
            let share = Share {
                first: start + Duration::from_secs(1) * connection / per_second,
                every: Duration::from_secs(1) * connections / per_second,
                end: start + duration,
                number: u64::from(connection) << 32,
            };
            tokio::spawn(one(address, share, request.clone()))
        })
        .collect();
    let mut micros = Histogram::new(3)?;
    for task in tasks {
        micros.add(task.await??)?;
    }
    Ok(Round {
        requests: micros.len(),
        elapsed: start.elapsed(),
        micros,
    })
}

/// One connection's part of the schedule.
struct Share {
    first: Instant,
    every: Duration,
    end: Instant,
    number: u64,
}

async fn one(
    address: SocketAddr,
    share: Share,
    request: Request,
) -> anyhow::Result<Histogram<u64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut micros = Histogram::new(3)?;
    let mut buffer = vec![0; 256 << 10];
    let (mut due, mut number) = (share.first, share.number);
    while due < share.end {
        let mut from = due;
        if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
            from = Instant::now();
        }
        stream.write_all(&request(number)).await?;
        read_answer(&mut stream, &mut buffer).await?;
        micros.record(u64::try_from(from.elapsed().as_micros())?.max(1))?;
        due += share.every;
        number += 1;
    }
    Ok(micros)
}
