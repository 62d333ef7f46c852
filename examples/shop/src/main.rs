//! The shop as a program: one instance per region, each beside its region's node.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use shop::Shop;
use tidemark_client::Client;
use tokio::net::TcpListener;

/// A small shop on Tidemark
#[derive(Parser)]
struct Args {
    /// The nearest node of the cluster; more are turned to when it fails
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8787")]
    node: Vec<String>,
    /// Find the nearest node by oneself, from those given
    #[arg(long)]
    nearest: bool,
    /// Token of the cluster, if it wants one
    #[arg(long, env = "SHOP_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Database of the shop, made if it is not there
    #[arg(long, default_value = "shop")]
    database: String,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let (first, others) = args.node.split_first().context("--node is missing")?;
    let mut builder = Client::builder(first);
    for node in others {
        builder = builder.url(node);
    }
    if let Some(token) = args.token {
        builder = builder.token(token);
    }
    if args.nearest {
        builder = builder.nearest();
    }
    let client = builder.build()?;
    client.look_around().await;
    let shop = Shop::open(&client, &args.database)
        .await
        .with_context(|| format!("open the shop's database at {first}"))?;

    let listener = TcpListener::bind(args.listen).await.context("listen")?;
    eprintln!("The shop is open: http://{}", listener.local_addr()?);
    axum::serve(listener, shop.router()).await?;
    Ok(())
}
