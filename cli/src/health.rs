//! `tidemark health`: one look at a node, for the health checks of containers.
//!
//! The image holds no shell and no curl; the program asks itself. Exit code 0 is healthy, 1 is not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::config::LISTEN_DEFAULT;

/// Bytes of a refusal that are shown.
const SHOWN_BYTES_MAX: usize = 300;

/// Whom to look at.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Base URL of the node [default: that of --listen, on this machine]
    #[arg(long, env = "TIDEMARK_URL", value_name = "URL")]
    url: Option<String>,

    /// Address that the node listens on
    #[arg(long, env = "TIDEMARK_LISTEN", value_name = "ADDRESS", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,

    /// Ask only whether the process lives, and not whether it can serve
    #[arg(long)]
    alive: bool,

    /// How long the answer may take
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

impl Args {
    fn url(&self) -> String {
        let path = if self.alive { "/health" } else { "/ready" };
        match &self.url {
            Some(url) => format!("{}{path}", url.trim_end_matches('/')),
            None => format!("http://{}{path}", reached_here(self.listen)),
        }
    }
}

/// Runs the command. An error if the node is not healthy.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let url = args.url();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(args.deadline)
        .build()?;
    let answer = client.get(&url).send().await;
    let answer = answer.with_context(|| format!("ask {url}"))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let mut text = answer.text().await.unwrap_or_default();
    text.truncate(text.floor_char_boundary(SHOWN_BYTES_MAX));
    bail!("{url} answers {status}: {text}")
}

/// Where somebody on this machine reaches a listener on `address`.
fn reached_here(address: SocketAddr) -> SocketAddr {
    let any = address.ip().is_unspecified();
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(if any { Ipv4Addr::LOCALHOST } else { ip }),
        IpAddr::V6(ip) => IpAddr::V6(if any { Ipv6Addr::LOCALHOST } else { ip }),
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    fn args(listen: SocketAddr, alive: bool) -> Args {
        Args {
            url: None,
            listen,
            alive,
            deadline: Duration::from_millis(300),
        }
    }

    #[test]
    fn node_on_every_address_is_asked_on_loopback() {
        for (listen, alive, url) in [
            ("0.0.0.0:8781", false, "http://127.0.0.1:8781/ready"),
            ("[::]:80", true, "http://[::1]:80/health"),
            ("10.0.0.1:8787", true, "http://10.0.0.1:8787/health"),
        ] {
            assert_eq!(args(listen.parse().unwrap(), alive).url(), url);
        }
        let given = Args {
            url: Some("http://node/".to_owned()),
            ..args(LISTEN_DEFAULT, false)
        };
        assert_eq!(given.url(), "http://node/ready");
    }

    #[tokio::test]
    async fn node_that_lives_and_cannot_serve_is_alive_and_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let refuse = || async { (StatusCode::SERVICE_UNAVAILABLE, "no leader") };
        let router = Router::new()
            .route("/health", get(|| async { "ok" }))
            .route("/ready", get(refuse));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        run(args(address, true)).await.unwrap();
        let error = run(args(address, false)).await.unwrap_err().to_string();
        assert!(
            error.ends_with("503 Service Unavailable: no leader"),
            "{error}"
        );
        serving.abort();
        let _ = serving.await;
        run(args(address, true)).await.unwrap_err();
    }
}
