//! What a node is told at its start: flags, environment, file, defaults, and what can be wrong.

mod quantity;
mod secret;
mod settings;
mod voter;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tidemark_gateway::{Limits, SpoolConfig};
use tidemark_protocol::node::Role;
use tidemark_protocol::{NodeId, Region, Regions, render::AnswerBounds};

pub(crate) use self::quantity::Period;
pub(crate) use self::secret::{Secret, SecretFileError};
pub(crate) use self::settings::Settings;
pub(crate) use self::voter::{GivenId, Voter};

/// Where a node keeps its files unless told otherwise.
pub(crate) const DATA_DEFAULT: &str = "data";
/// Where a node listens unless told otherwise.
pub(crate) const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT_DEFAULT);
/// The port of a single node, and of the first node of a dev cluster.
pub(crate) const PORT_DEFAULT: u16 = 8787;
/// Region of a node that names none.
pub(crate) const REGION_DEFAULT: &str = "ENAM";
/// Name of a cluster that was given none.
pub(crate) const CLUSTER_DEFAULT: &str = "tidemark";
/// Time that requests in flight have to end after a signal to stop.
pub(crate) const STOP_DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// Share of the traces begun at a node that are kept, once there is a collector for them.
pub(crate) const OTLP_RATIO_DEFAULT: f64 = 1.0;
/// Folder of files that are imported and exported, in a node's directory.
const SPOOL: &str = "spool";
/// Longest name of a cluster, in bytes.
const CLUSTER_LENGTH_MAX: usize = 64;
/// Least page cache that SQLite can work with reasonably, in bytes.
const PAGE_CACHE_BYTES_MIN: u64 = 64 << 10;
/// Most page cache per connection, in bytes.
const PAGE_CACHE_BYTES_MAX: u64 = 64 << 30;

/// How a node writes its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// Bounds of SQL statements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SqlLimits {
    /// About those of SQLite
    #[default]
    Sqlite,
    /// Those of Cloudflare's D1, for trying what is meant to run there
    D1,
}

/// How what a replica is sent is compressed on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StreamCompression {
    /// A page that was sent before costs little more than what of it has changed
    #[default]
    Zstd,
    /// For a replica next to its primary
    None,
}

/// Everything a node is told at its start.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Config {
    /// Root of the node's files. Made if it is not there.
    pub(crate) data: PathBuf,
    /// Where HTTP is served. A port of 0 becomes any free one; `<data>/listen` tells which.
    pub(crate) listen: SocketAddr,
    /// Base URL under which other nodes reach this one. `None`: from `listen`.
    pub(crate) advertise: Option<String>,
    /// This node, at its first start. `None`: an id of its own making. Later it must be the same.
    pub(crate) node_id: Option<NodeId>,
    /// First voters of the cell, this node among them. None: this node alone.
    pub(crate) voters: Vec<Voter>,
    /// A member of the cell to join, instead of beginning one. Counts until this node votes.
    pub(crate) join: Option<String>,
    /// The voter whose place it takes. `None`: it is one more.
    pub(crate) replace: Option<NodeId>,
    /// Other ways to voters than the addresses that the cell knows. None: as the cell knows them.
    pub(crate) via: Vec<Voter>,
    /// Voters that a replica looks at for the one that leads. None on a primary.
    pub(crate) upstreams: Vec<String>,
    /// Where the node is.
    pub(crate) region: Region,
    /// What lies in which jurisdiction. Must be the same on all nodes.
    pub(crate) regions: Regions,
    /// Guards against a data directory of another cluster.
    pub(crate) cluster: String,
    /// One token of clients.
    pub(crate) token: Option<Secret>,
    /// More tokens of clients. With no token at all only loopback is listened on.
    pub(crate) token_file: Option<PathBuf>,
    /// What nodes show each other.
    pub(crate) cluster_secret: Option<Secret>,
    /// The same, in a file.
    pub(crate) cluster_secret_file: Option<PathBuf>,
    /// What is logged. `None`: `RUST_LOG`, then `info`.
    pub(crate) log: Option<String>,
    /// How it is logged.
    pub(crate) log_format: LogFormat,
    /// Base URL of a collector that gets spans over OTLP. `None`: there are none.
    pub(crate) otlp_endpoint: Option<String>,
    /// Share of the traces begun here that are kept, 0 to 1. What came in a trace is kept if that is.
    pub(crate) otlp_ratio: f64,
    /// Longest wait for requests in flight at a stop. What is not done then is broken off: a client
    /// whose write it was learns that its outcome is unknown.
    pub(crate) stop_deadline: Duration,
    /// Bytes of one request's body at most. A larger one is refused with 413.
    pub(crate) body_bytes: u64,
    /// Requests served at a time. More are refused with 429.
    pub(crate) requests: usize,
    /// Growth of a primary's log after which all databases are checkpointed and the log is cut, in
    /// bytes. More: a longer recovery and a larger log, less writing twice.
    pub(crate) checkpoint_every_bytes: u64,
    /// Page cache of each connection at most, in bytes. Taken as it fills.
    pub(crate) page_cache_bytes: u64,
    /// Reader connections of each database at most. Reads beyond wait for one.
    pub(crate) readers: usize,
    /// Time without use after which a small database closes its files.
    pub(crate) idle_wait: Duration,
    /// How often a replica audits each copy.
    pub(crate) audit_every: Duration,
    /// Bytes a second that it reads for that, about.
    pub(crate) audit_bytes_per_second: u64,
    /// Databases of a primary that stay open though they are idle.
    pub(crate) open_databases: usize,
    /// Of replicas.
    pub(crate) stream_compression: StreamCompression,
    /// Bounds of SQL statements: parameters, columns, lengths and so on.
    pub(crate) sql_limits: SqlLimits,
    /// Rows of one answer at most. A larger one fails.
    pub(crate) answer_rows: u64,
    /// Bytes of one answer at most. A larger one fails.
    pub(crate) answer_bytes: u64,
    /// Bytes of one file to import at most, which is in memory meanwhile. A larger one is refused with 413.
    pub(crate) import_bytes: u64,
    /// Bytes of all files in transit at most. What comes beyond is refused with 429.
    pub(crate) spool_bytes: u64,
    /// How long a file in transit stays.
    pub(crate) spool_age: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let engine = tidemark_engine::Options::default();
        let answer = AnswerBounds::default();
        let limits = Limits::default();
        let spool = SpoolConfig::new(PathBuf::new());
        Self {
            data: PathBuf::from(DATA_DEFAULT),
            listen: LISTEN_DEFAULT,
            advertise: None,
            node_id: None,
            voters: Vec::new(),
            join: None,
            replace: None,
            via: Vec::new(),
            upstreams: Vec::new(),
            region: REGION_DEFAULT.parse().expect("a region name"),
            regions: Regions::default(),
            cluster: CLUSTER_DEFAULT.to_owned(),
            token: None,
            token_file: None,
            cluster_secret: None,
            cluster_secret_file: None,
            log: None,
            log_format: LogFormat::default(),
            otlp_endpoint: None,
            otlp_ratio: OTLP_RATIO_DEFAULT,
            stop_deadline: STOP_DEADLINE_DEFAULT,
            body_bytes: limits.body_bytes_max as u64,
            requests: limits.requests_max,
            checkpoint_every_bytes: tidemark_primary::PERSIST_EVERY_BYTES,
            page_cache_bytes: u64::from(engine.cache_kib) << 10,
            readers: engine.readers_max,
            idle_wait: tidemark_primary::IDLE_WAIT,
            audit_every: tidemark_replica::AUDIT_EVERY,
            audit_bytes_per_second: tidemark_replica::AUDIT_RATE,
            open_databases: tidemark_primary::OPEN_MAX,
            stream_compression: StreamCompression::default(),
            sql_limits: SqlLimits::default(),
            answer_rows: answer.rows_max,
            answer_bytes: answer.bytes_max as u64,
            import_bytes: spool.import_bytes_max,
            spool_bytes: spool.bytes_max,
            spool_age: spool.age_max,
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Problem {
    #[error(
        "listen: {listen} can be reached from other machines and no token is set: set token-file, \
         or listen on a loopback address"
    )]
    OpenToAll { listen: SocketAddr },
    #[error(
        "listen: {listen} can be reached from other machines and no cluster secret is set: anybody \
         could follow the databases; set cluster-secret-file, or listen on a loopback address"
    )]
    OpenStream { listen: SocketAddr },
    #[error(
        "advertise: is not set, and other nodes cannot reach {listen}: set it to this node's URL"
    )]
    AdvertiseMissing { listen: SocketAddr },
    #[error("{setting}: '{url}' is not of the form http://HOST or http://HOST:PORT")]
    Url { setting: &'static str, url: String },
    #[error("voter: {got} voters are listed: a cell has 1, 3 or 5")]
    VoterCount { got: usize },
    #[error("voter: {node} is listed twice")]
    VoterTwice { node: NodeId },
    #[error("voter: {node} is not listed, which is this node's id")]
    VoterMissing { node: NodeId },
    #[error("voter: is set, but a replica has no vote")]
    VoterOfReplica,
    #[error("{setting}: is set, but a replica is in no cell")]
    CellOfReplica { setting: &'static str },
    #[error(
        "join: is set to '{url}', and first voters are listed: a node begins a cell or joins one"
    )]
    JoinAndVoters { url: String },
    #[error(
        "replace: is set to {node}, but join is not: only a node that joins takes another's place"
    )]
    ReplaceAlone { node: NodeId },
    #[error("upstream: is not set: a replica needs the URL of its primary")]
    UpstreamMissing,
    #[error("upstream: is set to '{url}', but a primary follows nobody")]
    UpstreamOfPrimary { url: String },
    #[error(
        "cluster: '{name}' is not a cluster name: want 1 to {max} ASCII letters, digits, '-' or '_'",
        max = CLUSTER_LENGTH_MAX
    )]
    ClusterName { name: String },
    #[error("otlp-ratio: is {got}, expected 0 to 1")]
    Ratio { got: f64 },
    #[error("{setting} and {setting}-file are both set: keep one")]
    TwoSecrets { setting: &'static str },
    #[error("{setting}: is {got}, expected {min} to {max}")]
    OutOfRange {
        setting: &'static str,
        got: u64,
        min: u64,
        max: u64,
    },
}

/// All that is wrong with a configuration, at once.
#[derive(Debug)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used:")?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// A configuration cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file '{path}'")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot understand the configuration file '{path}'")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error(transparent)]
    Problems(#[from] Problems),
}

impl Config {
    /// Defaults, with the file over them, with flags and environment over that; validated.
    pub(crate) fn load(
        file: Option<&Path>,
        settings: Settings,
        role: Role,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            read_file(path)?.lay_over(&mut config);
        }
        settings.lay_over(&mut config);
        config.validate(role)?;
        Ok(config)
    }

    /// Tells all that is wrong, for a node of this role.
    pub(crate) fn validate(&self, role: Role) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let listen = self.listen;
        if !listen.ip().is_loopback() {
            if self.token.is_none() && self.token_file.is_none() {
                problems.push(Problem::OpenToAll { listen });
            }
            let secret = self.cluster_secret.is_some() || self.cluster_secret_file.is_some();
            if role == Role::Primary && !secret {
                problems.push(Problem::OpenStream { listen });
            }
        }
        match &self.advertise {
            None if listen.ip().is_unspecified() && self.voters.is_empty() => {
                problems.push(Problem::AdvertiseMissing { listen });
            }
            Some(url) if !is_base_url(url) => {
                problems.push(Problem::Url {
                    setting: "advertise",
                    url: url.clone(),
                });
            }
            None | Some(_) => {}
        }
        self.validate_voters(role, &mut problems);
        self.validate_join(role, &mut problems);
        if role == Role::Replica && self.upstreams.is_empty() {
            problems.push(Problem::UpstreamMissing);
        }
        for url in &self.upstreams {
            match role {
                Role::Primary => problems.push(Problem::UpstreamOfPrimary { url: url.clone() }),
                Role::Replica if !is_base_url(url) => problems.push(Problem::Url {
                    setting: "upstream",
                    url: url.clone(),
                }),
                Role::Replica => {}
            }
        }
        let name_fits = (1..=CLUSTER_LENGTH_MAX).contains(&self.cluster.len())
            && self
                .cluster
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !name_fits {
            problems.push(Problem::ClusterName {
                name: self.cluster.clone(),
            });
        }
        if self.cluster_secret.is_some() && self.cluster_secret_file.is_some() {
            problems.push(Problem::TwoSecrets {
                setting: "cluster-secret",
            });
        }
        if let Some(url) = self.otlp_endpoint.as_ref().filter(|url| !is_base_url(url)) {
            problems.push(Problem::Url {
                setting: "otlp-endpoint",
                url: url.clone(),
            });
        }
        if !(0.0..=1.0).contains(&self.otlp_ratio) {
            let got = self.otlp_ratio;
            problems.push(Problem::Ratio { got });
        }
        for (setting, got, min, max) in [
            ("body-size", self.body_bytes, 1 << 10, 1 << 30),
            ("requests", self.requests as u64, 1, 1 << 20),
            (
                "checkpoint-every",
                self.checkpoint_every_bytes,
                1 << 20,
                1 << 40,
            ),
            (
                "page-cache",
                self.page_cache_bytes,
                PAGE_CACHE_BYTES_MIN,
                PAGE_CACHE_BYTES_MAX,
            ),
            ("readers", self.readers as u64, 1, 1024),
            ("idle-wait (seconds)", self.idle_wait.as_secs(), 1, 86_400),
            (
                "audit-every (seconds)",
                self.audit_every.as_secs(),
                1,
                31 * 86_400,
            ),
            ("audit-rate", self.audit_bytes_per_second, 1 << 16, 1 << 34),
            ("open-databases", self.open_databases as u64, 1, 1 << 20),
            ("answer-rows", self.answer_rows, 1, u64::MAX),
            ("answer-size", self.answer_bytes, 1 << 10, 1 << 30),
            ("import-size", self.import_bytes, 1 << 10, 1 << 30),
            ("spool-size", self.spool_bytes, 1 << 20, 1 << 50),
        ] {
            if !(min..=max).contains(&got) {
                problems.push(Problem::OutOfRange {
                    setting,
                    got,
                    min,
                    max,
                });
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(problems))
        }
    }

    fn validate_voters(&self, role: Role, problems: &mut Vec<Problem>) {
        if self.voters.is_empty() {
            return;
        }
        if role == Role::Replica {
            problems.push(Problem::VoterOfReplica);
        }
        if !matches!(self.voters.len(), 1 | 3 | 5) {
            let got = self.voters.len();
            problems.push(Problem::VoterCount { got });
        }
        for (at, Voter { node, url }) in self.voters.iter().enumerate() {
            if self.voters[..at].iter().any(|before| before.node == *node) {
                problems.push(Problem::VoterTwice { node: *node });
            }
            if !is_base_url(url) {
                problems.push(Problem::Url {
                    setting: "voter",
                    url: url.clone(),
                });
            }
        }
        if let Some(node) = self.node_id
            && !self.voters.iter().any(|voter| voter.node == node)
        {
            problems.push(Problem::VoterMissing { node });
        }
    }

    fn validate_join(&self, role: Role, problems: &mut Vec<Problem>) {
        if role == Role::Replica {
            let given = [
                ("join", self.join.is_some()),
                ("replace", self.replace.is_some()),
            ];
            let given = given.into_iter().filter(|(_, given)| *given);
            problems.extend(given.map(|(setting, _)| Problem::CellOfReplica { setting }));
        }
        let urls = self.join.iter().map(|url| ("join", url));
        let urls = urls.chain(self.via.iter().map(|voter| ("via", &voter.url)));
        for (setting, url) in urls.filter(|(_, url)| !is_base_url(url)) {
            problems.push(Problem::Url {
                setting,
                url: url.clone(),
            });
        }
        match (&self.join, self.replace) {
            (Some(url), _) if !self.voters.is_empty() => {
                problems.push(Problem::JoinAndVoters { url: url.clone() });
            }
            (None, Some(node)) => problems.push(Problem::ReplaceAlone { node }),
            _ => {}
        }
    }

    /// [`Config::via`], by node.
    pub(crate) fn ways(&self) -> HashMap<NodeId, String> {
        let ways = self.via.iter();
        ways.map(|way| (way.node, way.url.clone())).collect()
    }

    /// The tokens that clients may present.
    pub(crate) fn tokens(&self) -> Result<Vec<String>, SecretFileError> {
        let mut tokens = match &self.token_file {
            Some(path) => Secret::read_file(path)?,
            None => Vec::new(),
        };
        tokens.extend(self.token.clone());
        Ok(tokens
            .iter()
            .map(|token| token.reveal().to_owned())
            .collect())
    }

    /// What nodes show each other; empty when nothing is asked for.
    pub(crate) fn cluster_secret(&self) -> Result<String, SecretFileError> {
        let secret = match &self.cluster_secret_file {
            Some(path) => Secret::read_file(path)?.into_iter().next(),
            None => self.cluster_secret.clone(),
        };
        Ok(secret
            .map(|secret| secret.reveal().to_owned())
            .unwrap_or_default())
    }

    /// Bounds on requests.
    pub(crate) fn limits(&self) -> Limits {
        let body_bytes_max = usize::try_from(self.body_bytes).expect("validated: at most 1 GiB");
        let Limits {
            bodies_bytes_max,
            query,
            ..
        } = Limits::default();
        Limits {
            body_bytes_max,
            bodies_bytes_max: bodies_bytes_max.max(body_bytes_max),
            requests_max: self.requests,
            query,
        }
    }

    /// How databases are opened.
    pub(crate) fn engine(&self) -> tidemark_engine::Options {
        let cache_kib = u32::try_from(self.page_cache_bytes >> 10)
            .expect("validated: at most PAGE_CACHE_BYTES_MAX");
        tidemark_engine::Options {
            cache_kib,
            readers_max: self.readers,
            limits: match self.sql_limits {
                SqlLimits::Sqlite => tidemark_engine::Limits::default(),
                SqlLimits::D1 => tidemark_engine::Limits::strict_d1(),
            },
            ..Default::default()
        }
    }

    /// Bounds on files in transit, in a folder of the node's directory.
    pub(crate) fn spool(&self, home: &Path) -> SpoolConfig {
        SpoolConfig {
            bytes_max: self.spool_bytes,
            import_bytes_max: self.import_bytes,
            age_max: self.spool_age,
            ..SpoolConfig::new(home.join(SPOOL))
        }
    }

    /// Bounds of one answer.
    pub(crate) fn answer(&self) -> AnswerBounds {
        let bytes_max = usize::try_from(self.answer_bytes).expect("validated: at most 1 GiB");
        AnswerBounds {
            rows_max: self.answer_rows,
            bytes_max,
        }
    }
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

/// The settings of a file that has this text.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|source| ConfigError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Whether it is `http://HOST` or `http://HOST:PORT`, perhaps with a slash behind. Nodes talk plain
/// HTTP to each other; encryption between regions is the network's (WireGuard, a service mesh).
fn is_base_url(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("http://") else {
        return false;
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        // The colon may belong to an IPv6 address in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "80"),
    };
    let host_fits = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'[' | b']' | b':')
    };
    !host.is_empty()
        && host.bytes().all(host_fits)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests;
