//! Ports for nodes that must keep theirs over a restart.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below the range from which Linux takes ports of outgoing connections (32768 to 60999): one of
/// those could take the port of a node while it is down.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Ports given out by this process.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A loopback address that nobody listens on and that is given to nobody else in this process.
pub(crate) fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(1)))
}

/// The first of `count` ports in a row that nobody listens on, on loopback, and that are given to nobody
/// else in this process.
pub fn free_ports(count: u16) -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let first = fastrand::u16(RANGE);
        let ports = first..first + count;
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if ports
            .clone()
            .all(|port| !given.contains(&port) && free(port))
        {
            given.extend(ports);
            return first;
        }
    }
}
