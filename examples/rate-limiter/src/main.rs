//! A service that answers each key at most so often, as a program: one instance per region, beside its region's node.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::routing::get;
use axum::{Router, middleware};
use clap::Parser;
use rate_limiter::Limiter;
use tidemark_client::Client;
use tokio::net::TcpListener;

/// A service that answers each API key at most so often, in all regions together
#[derive(Parser)]
struct Args {
    /// A node of the cluster; the nearest is asked
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8787")]
    node: String,
    /// Token of the cluster, if it wants one
    #[arg(long, env = "RATE_LIMITER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Requests of one key
    #[arg(long, default_value = "100")]
    requests: u32,
    /// In any so many seconds
    #[arg(long, default_value = "60")]
    seconds: u64,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:3001")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut builder = Client::builder(&args.node).nearest();
    if let Some(token) = args.token {
        builder = builder.token(token);
    }
    let client = builder.build()?;
    client.look_around().await;
    let window = Duration::from_secs(args.seconds);
    let limiter = Limiter::open(&client, "rate-limits", args.requests, window)
        .await
        .with_context(|| format!("open the limiter's database at {}", args.node))?;

    let router = Router::new()
        .route("/", get(async || "served\n"))
        .layer(middleware::from_fn_with_state(limiter, rate_limiter::limit));
    let listener = TcpListener::bind(args.listen).await.context("listen")?;
    eprintln!(
        "curl -i -H 'x-api-key: me' http://{}",
        listener.local_addr()?
    );
    axum::serve(listener, router).await?;
    Ok(())
}
