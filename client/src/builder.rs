//! How a client is set up.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use tidemark_protocol::OnMiss;
use tidemark_protocol::contract::{DEADLINE_DEFAULT, DEADLINE_MAX};
use tidemark_protocol::env::Random;
use uuid::Uuid;

use crate::client::{Client, Settings};
use crate::error::Error;
use crate::nodes::Nodes;

/// Account in the paths when none is given. A cluster serves one account whatever its name.
pub const ACCOUNT_DEFAULT: &str = "tidemark";
/// How long one node may take to accept a connection.
pub const CONNECT_WAIT_DEFAULT: Duration = Duration::from_secs(2);
/// First wait before another try.
pub const BACKOFF_MIN_DEFAULT: Duration = Duration::from_millis(20);
/// Longest wait before another try, unless the server asks for a longer one.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(1);
/// Bytes of one answer: above the server's own default bound, so that this one only stops a stranger.
pub const ANSWER_BYTES_MAX_DEFAULT: usize = 128 << 20;
/// Time between two looks at the cluster of a client that asks the nearest node.
pub const LOOK_EVERY_DEFAULT: Duration = Duration::from_secs(10);
/// Below this it would be a flood.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(100);
/// Idle connections are given up before a server or a balancer in between is likely to.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Sets up a [`Client`].
#[must_use = "a builder does nothing until build() is called"]
pub struct ClientBuilder {
    urls: Vec<String>,
    token: Option<String>,
    account: String,
    deadline: Duration,
    connect_wait: Duration,
    on_miss: Option<OnMiss>,
    backoff_min: Duration,
    backoff_max: Duration,
    answer_bytes_max: usize,
    random: Arc<dyn Random>,
    nearest: bool,
    look_every: Duration,
}

impl ClientBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            urls: vec![url],
            token: None,
            account: ACCOUNT_DEFAULT.to_owned(),
            deadline: DEADLINE_DEFAULT,
            connect_wait: CONNECT_WAIT_DEFAULT,
            on_miss: None,
            backoff_min: BACKOFF_MIN_DEFAULT,
            backoff_max: BACKOFF_MAX_DEFAULT,
            answer_bytes_max: ANSWER_BYTES_MAX_DEFAULT,
            random: Arc::new(SystemRandom),
            nearest: false,
            look_every: LOOK_EVERY_DEFAULT,
        }
    }

    /// Another node to ask when the ones before it cannot be reached.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.urls.push(url.into());
        self
    }

    /// Asks the nearest healthy node of the cluster, whichever was given. Default: nodes are asked in the order in
    /// which they were given, and no others.
    ///
    /// The client learns the others from those given, probes a few of them every [`Self::look_every`] while it is
    /// in use, beside its requests, and turns to the nearest. A node that fails is left at once, and for longer if
    /// it fails again. The first requests go to the node that was given first: [`Client::look_around`] waits for
    /// the first look.
    ///
    /// Nodes say by `--advertise` where clients reach them. The token goes to whomever the nodes that were given
    /// name, once it has said that it is that node of their cluster; and unencrypted only if one of those given is
    /// asked so.
    pub fn nearest(mut self) -> Self {
        self.nearest = true;
        self
    }

    /// Time between two looks at the cluster, give or take a quarter, with [`Self::nearest`]. Default 10 s.
    pub fn look_every(mut self, time: Duration) -> Self {
        self.look_every = time;
        self
    }

    /// The bearer token. Default: none is sent.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The account in the paths. Default [`ACCOUNT_DEFAULT`].
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = account.into();
        self
    }

    /// How long a request may take, retries included, unless it says otherwise. Default 10 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long one node may take to accept a connection before the next is asked. Default 2 s.
    pub fn connect_wait(mut self, wait: Duration) -> Self {
        self.connect_wait = wait;
        self
    }

    /// What a replica does that has not reached a session's bookmark in time, unless a request says
    /// otherwise. Default: the server's, which is to ask the primary.
    pub fn on_miss(mut self, rule: OnMiss) -> Self {
        self.on_miss = Some(rule);
        self
    }

    /// Shortest and longest wait before another try. Waits double from one to the other, with jitter.
    /// Default 20 ms to 1 s.
    pub fn backoff(mut self, min: Duration, max: Duration) -> Self {
        self.backoff_min = min;
        self.backoff_max = max;
        self
    }

    /// Bytes of the longest answer to take. Default 128 MiB.
    pub fn answer_bytes_max(mut self, bytes: usize) -> Self {
        self.answer_bytes_max = bytes;
        self
    }

    /// Where request ids come from. Default: the operating system's randomness.
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.random = random;
        self
    }

    /// The client. Nothing is sent. Every fault of the settings is reported at once.
    pub fn build(self) -> Result<Client, Error> {
        let mut faults = Vec::new();
        let mut nodes = Vec::with_capacity(self.urls.len());
        for url in &self.urls {
            match base_url(url) {
                Ok(base) if nodes.contains(&base) => {}
                Ok(base) => nodes.push(base),
                Err(fault) => faults.push(fault),
            }
        }
        let authorization = self.token.as_deref().and_then(|token| {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            match value {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    Some(value)
                }
                Err(_) => {
                    faults.push("token has characters that a header cannot hold".to_owned());
                    None
                }
            }
        });
        let account_shaped = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if self.account.is_empty() || !self.account.bytes().all(account_shaped) {
            faults.push(format!(
                "account '{}' is not made of ASCII letters, digits, '-' and '_'",
                self.account
            ));
        }
        if self.deadline.is_zero() || self.deadline > DEADLINE_MAX {
            faults.push(format!(
                "deadline {:?} is not in 1ns..={DEADLINE_MAX:?}",
                self.deadline
            ));
        }
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            faults.push(format!(
                "backoff from {:?} to {:?} does not grow from above zero",
                self.backoff_min, self.backoff_max
            ));
        }
        if self.look_every < LOOK_EVERY_MIN {
            faults.push(format!(
                "a look at the cluster every {:?} is less than {LOOK_EVERY_MIN:?} apart",
                self.look_every
            ));
        }
        if !faults.is_empty() {
            return Err(Error::config(faults.join("; ")));
        }

        install_tls_provider();
        let http = reqwest::Client::builder()
            .connect_timeout(self.connect_wait)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            // A node never redirects; following one would carry the token to a stranger.
            .redirect(Policy::none())
            .user_agent(concat!("tidemark-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::config(format!("set up HTTP: {error}")))?;
        Ok(Client::new(Settings {
            http,
            nodes: if self.nearest {
                Nodes::nearest(nodes, self.look_every)
            } else {
                Nodes::in_order(nodes)
            },
            authorization,
            account: self.account,
            deadline: self.deadline,
            on_miss: self.on_miss,
            backoff_min: self.backoff_min,
            backoff_max: self.backoff_max,
            answer_bytes_max: self.answer_bytes_max,
            random: self.random,
        }))
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token.
        f.debug_struct("ClientBuilder")
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// `url` without a trailing slash, if it can be asked.
pub(crate) fn base_url(url: &str) -> Result<String, String> {
    let parsed = Url::parse(url).map_err(|error| format!("'{url}' is not a URL: {error}"))?;
    match parsed.scheme() {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => return Err(format!("'{url}' needs this crate's feature 'tls'")),
        scheme => return Err(format!("'{url}' has scheme '{scheme}', expected 'http'")),
    }
    if !parsed.has_host() || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(format!(
            "'{url}' is not a node's base URL: want http://host:port"
        ));
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

/// reqwest leaves the choice of the cryptography to the process. Respects one that was made.
#[cfg(feature = "tls")]
fn install_tls_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing a race to another thread leaves a provider as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(not(feature = "tls"))]
fn install_tls_provider() {}

/// The operating system's randomness.
struct SystemRandom;

impl Random for SystemRandom {
    fn bytes16(&self) -> [u8; 16] {
        Uuid::new_v4().into_bytes()
    }
}
