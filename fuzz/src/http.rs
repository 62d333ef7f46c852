//! Requests to a whole node over a socket: paths, query strings, headers and bodies, and whatever they lead to.
//!
//! The node lives as long as the process, and remembers: what is found may need more than its last input.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidemark_cli::fuzzing;

use crate::engine::directory;

/// The database that there is.
const CREATE: &[u8] = b"POST /client/v4/accounts/a/d1/database\n\n{\"name\":\"shop\"}";
/// Longest wait for an answer. Longer than any request is given.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of an answer that are looked at.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A node that runs.
struct Node {
    address: SocketAddr,
    _directory: TempDir,
}

static NODE: OnceLock<Node> = OnceLock::new();

/// The first line is method and target, then come headers, an empty line, and the body.
pub fn check(bytes: &[u8]) {
    let node = NODE.get_or_init(start);
    if let Some(status) = ask(node.address, bytes) {
        // 503: the node is busy, or has no place. It says so, and nothing happened.
        assert!(
            status < 500 || status == 503 || status == 504,
            "answered with {status}"
        );
    }
    if bytes.starts_with(b"DELETE") {
        let _ = ask(node.address, CREATE);
    }
}

fn start() -> Node {
    let directory = directory();
    let address = fuzzing::serve(&directory.path().join("node")).expect("a port of loopback");
    let begun = Instant::now();
    // It takes requests at once, and says no until it leads.
    while begun.elapsed() < PATIENCE {
        if ask(address, CREATE) == Some(200) {
            return Node {
                address,
                _directory: directory,
            };
        }
    }
    panic!("the node does not serve");
}

/// The status of the answer, if there is any.
fn ask(address: SocketAddr, bytes: &[u8]) -> Option<u16> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let first = parts.next()?;
    let mut rest = parts.next().unwrap_or_default();
    let mut request = first.to_vec();
    request.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    loop {
        let mut parts = rest.splitn(2, |byte| *byte == b'\n');
        let line = parts.next().unwrap_or_default();
        let Some(behind) = parts.next() else {
            break;
        };
        rest = behind;
        if line.is_empty() {
            break;
        }
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    // Last, so that nothing takes longer; a second one is refused.
    request.extend_from_slice(b"tidemark-deadline: 300ms\r\n");
    request.extend_from_slice(format!("content-length: {}\r\n\r\n", rest.len()).as_bytes());
    request.extend_from_slice(rest);

    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // It may say no before it has heard all.
    let _ = stream.write_all(&request);
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
    if let Err(error) = read {
        assert!(
            error.kind() == std::io::ErrorKind::ConnectionReset,
            "no answer in {PATIENCE:?}: {error}"
        );
    }
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    str::from_utf8(status).ok()?.parse().ok()
}
