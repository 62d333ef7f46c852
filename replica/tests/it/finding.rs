//! Several nodes might lead: the replica finds the one that does, wherever it was told to begin.

use tidemark_protocol::node::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{DB, World};

/// A voter that leads nothing and says who does. Returns its base URL.
async fn follower(leader: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let refusal = format!(
        "HTTP/1.1 503 Service Unavailable\r\ntidemark-leader: {leader}\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0
            {
            }
            // One that has gone is told nothing.
            let _ = stream.write_all(refusal.as_bytes()).await;
        }
    });
    url
}

/// A base URL that nobody answers at.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_is_found_through_a_node_that_does_not_lead() {
    let mut world = World::without_replica().await;
    let leader = world.source.url();
    world.upstreams = vec![follower(&leader).await];
    world.start().await;
    world.caught_up(DB).await;
    assert_eq!(world.node().upstream(), Some(leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_nodes_are_tried_until_one_leads() {
    let mut world = World::without_replica().await;
    let (leader, dead) = (world.source.url(), nobody().await);
    // It still believes in a leader that is gone.
    let mistaken = follower(&dead).await;
    world.upstreams = vec![nobody().await, mistaken, leader.clone()];
    world.start().await;
    world.caught_up(DB).await;
    assert_eq!(
        world.node().upstream(),
        Some(leader),
        "requests go there too"
    );
}
