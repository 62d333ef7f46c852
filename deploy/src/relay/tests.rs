//! The relay between real sockets on loopback. Times are bounded below exactly and above generously.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

/// Time within which anything that must happen does happen.
const SOON: Duration = Duration::from_secs(10);
/// Time in which something that must not happen would have happened.
const A_WHILE: Duration = Duration::from_millis(200);

struct Way {
    relay: Relay,
    near: TcpStream,
    far: TcpStream,
}

async fn way(link: Link) -> Way {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(loopback).await.unwrap();
    let target = listener.local_addr().unwrap();
    let relay = Relay::start(loopback, target, link, 1).await.unwrap();
    let near = TcpStream::connect(relay.address()).await.unwrap();
    let (far, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    Way { relay, near, far }
}

async fn read(from: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    timeout(SOON, from.read_exact(&mut buffer))
        .await
        .expect("bytes arrive")
        .unwrap();
    buffer
}

async fn silent(from: &mut TcpStream) -> bool {
    timeout(A_WHILE, from.read_u8()).await.is_err()
}

#[tokio::test]
async fn bytes_arrive_in_order_and_are_counted() {
    let mut way = way(Link {
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(3),
        bytes_per_second: None,
    })
    .await;
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 4])
        .collect();
    let expected = sent.clone();
    let (mut reader, mut writer) = way.near.into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let got = read(&mut way.far, expected.len()).await;
    assert!(got == expected, "bytes arrived damaged or out of order");
    assert_eq!(
        way.far.read(&mut [0]).await.unwrap(),
        0,
        "the end arrives after the last byte"
    );
    writing.await.unwrap();
    // The other direction is still open.
    way.far.write_all(b"well received").await.unwrap();
    let mut answer = [0; 13];
    timeout(SOON, reader.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"well received");
    assert_eq!(
        way.relay.traffic(),
        Traffic {
            connections: 1,
            bytes_to_target: 3_000_000,
            bytes_from_target: 13
        }
    );
}

#[tokio::test]
async fn delay_is_paid_once_per_way_and_twice_for_the_handshake() {
    let delay = Duration::from_millis(100);
    let opened = std::time::Instant::now();
    let mut way = way(Link::with_delay(delay)).await;
    way.near.write_all(b"a").await.unwrap();
    read(&mut way.far, 1).await;
    assert!(
        opened.elapsed() >= 3 * delay,
        "first byte after {:?}",
        opened.elapsed()
    );

    let sent = std::time::Instant::now();
    way.near.write_all(b"b").await.unwrap();
    read(&mut way.far, 1).await;
    let there = sent.elapsed();
    assert!(
        there >= delay && there < 2 * delay,
        "one way took {there:?}, expected {delay:?}"
    );
    way.far.write_all(b"c").await.unwrap();
    read(&mut way.near, 1).await;
    assert!(
        sent.elapsed() >= 2 * delay,
        "round trip took {:?}",
        sent.elapsed()
    );

    way.relay.set_link(Link::default());
    let sent = std::time::Instant::now();
    way.near.write_all(b"d").await.unwrap();
    read(&mut way.far, 1).await;
    assert!(
        sent.elapsed() < delay,
        "without delay it took {:?}",
        sent.elapsed()
    );
}

#[tokio::test]
async fn delayed_bytes_do_not_wait_for_each_other() {
    let delay = Duration::from_millis(150);
    let mut way = way(Link::with_delay(delay)).await;
    let sent = std::time::Instant::now();
    for _ in 0..20 {
        way.near.write_all(b"a").await.unwrap();
        tokio::task::yield_now().await;
    }
    read(&mut way.far, 20).await;
    assert!(
        sent.elapsed() < 10 * delay,
        "twenty chunks took {:?}",
        sent.elapsed()
    );
}

#[tokio::test]
async fn cut_stops_one_direction_and_healing_delivers_what_waited() {
    let mut way = way(Link::default()).await;
    way.near.write_all(b"1").await.unwrap();
    read(&mut way.far, 1).await;

    way.relay.cut(Direction::ToTarget);
    way.near.write_all(b"2").await.unwrap();
    way.far.write_all(b"x").await.unwrap();
    assert_eq!(
        read(&mut way.near, 1).await,
        b"x",
        "the other direction is open"
    );
    assert!(silent(&mut way.far).await, "a byte came through a cut");

    way.relay.heal(Direction::ToTarget);
    assert_eq!(read(&mut way.far, 1).await, b"2");
}

#[tokio::test]
async fn cut_holds_back_the_end_of_a_connection() {
    let mut way = way(Link::default()).await;
    way.relay.cut_both();
    drop(way.near);
    assert!(silent(&mut way.far).await, "the end came through a cut");
    way.relay.heal_both();
    assert_eq!(
        timeout(SOON, way.far.read(&mut [0]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn new_connection_waits_until_both_directions_are_open() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(loopback).await.unwrap();
    let target = listener.local_addr().unwrap();
    let relay = Relay::start(loopback, target, Link::default(), 1)
        .await
        .unwrap();
    relay.cut(Direction::FromTarget);
    let _near = TcpStream::connect(relay.address()).await.unwrap();
    assert!(
        timeout(A_WHILE, listener.accept()).await.is_err(),
        "connected through a cut"
    );
    relay.heal(Direction::FromTarget);
    timeout(SOON, listener.accept())
        .await
        .expect("connects once healed")
        .unwrap();
}

#[tokio::test]
async fn cut_bounds_what_is_held() {
    let mut way = way(Link::default()).await;
    way.relay.cut_both();
    let block = vec![7; 1 << 20];
    let mut taken = 0_usize;
    // Kernel buffers take some too; without a bound this would never end.
    while let Ok(written) = timeout(A_WHILE, way.near.write(&block)).await {
        taken += written.unwrap();
        assert!(
            taken < 64 << 20,
            "{taken} bytes were taken while nothing could leave"
        );
    }
    way.relay.heal_both();
    let reading = tokio::spawn(async move { read(&mut way.far, taken).await.len() });
    assert_eq!(timeout(SOON, reading).await.unwrap().unwrap(), taken);
}

#[tokio::test]
async fn bandwidth_slows_a_transfer() {
    let mut way = way(Link {
        bytes_per_second: NonZeroU64::new(1_000_000),
        ..Link::default()
    })
    .await;
    let sent = std::time::Instant::now();
    way.near.write_all(&[1; 200_000]).await.unwrap();
    read(&mut way.far, 200_000).await;
    assert!(
        sent.elapsed() >= Duration::from_millis(190),
        "took {:?}",
        sent.elapsed()
    );
}

#[tokio::test]
async fn refused_connection_ends() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let target = TcpListener::bind(loopback)
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let relay = Relay::start(loopback, target, Link::default(), 1)
        .await
        .unwrap();
    let mut near = TcpStream::connect(relay.address()).await.unwrap();
    let ended = timeout(SOON, near.read(&mut [0])).await.expect("ends");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn dropping_the_relay_ends_its_connections() {
    let mut way = way(Link::default()).await;
    drop(way.relay);
    let ended = timeout(SOON, way.near.read(&mut [0])).await.expect("ends");
    assert!(matches!(ended, Ok(0) | Err(_)));
}

#[tokio::test]
async fn damage_changes_bytes_in_its_direction_alone_until_it_is_mended() {
    let mut way = way(Link::default()).await;
    way.relay.damage(Direction::ToTarget, NonZeroU64::new(100));
    let sent = vec![7; 100_000];
    way.near.write_all(&sent).await.unwrap();
    let got = read(&mut way.far, sent.len()).await;
    let changed = got.iter().filter(|byte| **byte != 7).count() as u64;
    assert_eq!(way.relay.damaged(Direction::ToTarget), changed);
    assert!((500..2000).contains(&changed), "{changed} of 100000");

    way.far.write_all(&sent).await.unwrap();
    assert!(read(&mut way.near, sent.len()).await == sent);
    assert_eq!(way.relay.damaged(Direction::FromTarget), 0);

    way.relay.damage(Direction::ToTarget, None);
    way.near.write_all(&sent).await.unwrap();
    assert!(read(&mut way.far, sent.len()).await == sent);
}
