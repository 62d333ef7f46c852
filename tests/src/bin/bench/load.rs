//! A closed-loop load generator: each connection sends its next request when the last was answered.
//!
//! Requests are bytes made beforehand and answers are only read as far as HTTP needs, so that the
//! generator costs little beside the server on the same cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Makes the bytes of the n-th request of a connection.
pub(crate) type Request = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// What one round gave.
pub(crate) struct Round {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    pub(crate) micros: Histogram<u64>,
}

/// Loads `address` over `connections` for `duration`. Any answer but 200 is an error.
pub(crate) async fn run(
    address: SocketAddr,
    connections: u64,
    duration: Duration,
    request: Request,
) -> anyhow::Result<Round> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|connection| tokio::spawn(one(address, connection, start + duration, request.clone())))
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

async fn one(
    address: SocketAddr,
    connection: u64,
    until: Instant,
    request: Request,
) -> anyhow::Result<Histogram<u64>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut micros = Histogram::new(3)?;
    let mut buffer = vec![0; 256 << 10];
    let mut number = connection << 32;
    while Instant::now() < until {
        let bytes = request(number);
        number += 1;
        let sent = Instant::now();
        stream.write_all(&bytes).await?;
        read_answer(&mut stream, &mut buffer).await?;
        micros.record(u64::try_from(sent.elapsed().as_micros())?.max(1))?;
    }
    Ok(micros)
}

pub(crate) async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        anyhow::ensure!(read > 0, "the server closed the connection");
        filled += read;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(body) = answer.parse(&buffer[..filled])? else {
            continue;
        };
        let status = answer.code.unwrap_or(0);
        let length = answer
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| {
                std::str::from_utf8(header.value)
                    .ok()?
                    .parse::<usize>()
                    .ok()
            });
        match length {
            Some(length) if filled < body + length => continue,
            Some(_) => {}
            // Chunked: ends with an empty chunk.
            None if !buffer[..filled].ends_with(b"0\r\n\r\n") => continue,
            None => {}
        }
        let text = String::from_utf8_lossy(&buffer[body..filled.min(body + 300)]);
        anyhow::ensure!(status == 200, "status {status}: {text}");
        return Ok(());
    }
}

/// The bytes of a POST with a JSON body.
pub(crate) fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
