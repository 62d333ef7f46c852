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
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = fastrand::u16(RANGE);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if !given.contains(&port) && TcpListener::bind(address).is_ok() {
            given.insert(port);
            return address;
        }
    }
}
