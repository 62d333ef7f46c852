//! One layer of settings: what the command line and the environment say, or what a file says.
//!
//! Every setting is declared once, here: the flag `--stop-deadline`, the variable
//! `TIDEMARK_STOP_DEADLINE` and the key `stop-deadline` of the file are the same field. Flags win over
//! variables, variables over the file, the file over [`Config::default`](super::Config).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use tidemark_protocol::{Region, Regions};

use super::quantity::{Period, Size};
use super::secret::Secret;
use super::voter::{GivenId, Voter};
use super::{Config, LogFormat, SqlLimits, StreamCompression};

/// Settings that one source gives. What it does not give is left to the next.
#[derive(Clone, Default, Debug, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Directory of this node's files [default: data]
    #[arg(long, env = "TIDEMARK_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Address to listen on; port 0 takes any free port [default: 127.0.0.1:8787]
    #[arg(long, env = "TIDEMARK_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,

    /// Base URL under which other nodes reach this one [default: http:// and the listen address]
    #[arg(long, env = "TIDEMARK_ADVERTISE", value_name = "URL")]
    pub(crate) advertise: Option<String>,

    /// Id of this node, hexadecimal: at its first start, for a voter of a cell of several
    /// [default: one of its own making]
    #[arg(long, env = "TIDEMARK_NODE_ID", value_name = "ID")]
    pub(crate) node_id: Option<GivenId>,

    /// First voters of the cell with their base URLs, all of them, the same on each (primary only;
    /// repeat it, or separate by commas) [default: this node alone]
    #[arg(
        long,
        env = "TIDEMARK_VOTER",
        value_name = "ID=URL",
        value_delimiter = ','
    )]
    pub(crate) voter: Option<Vec<Voter>>,

    /// Base URL of any member of a cell that goes on: this node becomes one of its voters, under an id that was
    /// never used in it. Counts until it votes (primary only)
    #[arg(long, env = "TIDEMARK_JOIN", value_name = "URL")]
    pub(crate) join: Option<String>,

    /// Voter whose place this node takes when it joins, hexadecimal: one that is lost, say
    #[arg(long, env = "TIDEMARK_REPLACE", value_name = "ID")]
    pub(crate) replace: Option<GivenId>,

    /// Another way to a voter of the cell than the address that the cell knows: a tunnel, say (repeat it, or separate
    /// by commas)
    #[arg(
        long,
        env = "TIDEMARK_VIA",
        value_name = "ID=URL",
        value_delimiter = ','
    )]
    pub(crate) via: Option<Vec<Voter>>,

    /// Base URLs of the voters, one of which a replica follows; one is enough as long as it lives
    /// (replica only, required; repeat it, or separate by commas)
    #[arg(
        long,
        env = "TIDEMARK_UPSTREAM",
        value_name = "URL",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "one_or_several")]
    pub(crate) upstream: Option<Vec<String>>,

    /// Region of this node, such as ENAM, WEUR or APAC [default: ENAM]
    #[arg(long, env = "TIDEMARK_REGION", value_name = "REGION")]
    pub(crate) region: Option<Region>,

    /// What is said of each region: see the sample. In the file alone, the same on all nodes.
    #[arg(skip)]
    pub(crate) regions: Option<Regions>,

    /// Name of the cluster; a data directory of another cluster is refused [default: tidemark]
    #[arg(long, env = "TIDEMARK_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<String>,

    /// Token that clients must present; other users of this machine can see it on the command line,
    /// prefer --token-file
    #[arg(
        long,
        env = "TIDEMARK_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub(crate) token: Option<Secret>,

    /// File of tokens that clients may present, one a line
    #[arg(long, env = "TIDEMARK_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Secret that the nodes of the cluster share; prefer --cluster-secret-file
    #[arg(
        long,
        env = "TIDEMARK_CLUSTER_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub(crate) cluster_secret: Option<Secret>,

    /// File with the secret that the nodes of the cluster share
    #[arg(long, env = "TIDEMARK_CLUSTER_SECRET_FILE", value_name = "FILE")]
    pub(crate) cluster_secret_file: Option<PathBuf>,

    /// What to log: a level, or levels by module as in RUST_LOG [default: RUST_LOG, then
    /// info of Tidemark itself]
    #[arg(long, env = "TIDEMARK_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// How to log [default: human]
    #[arg(long, env = "TIDEMARK_LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    /// Base URL of a collector that gets the spans of requests over OTLP, such as http://127.0.0.1:4318
    /// [default: none gets them]
    #[arg(long, env = "TIDEMARK_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,

    /// Share of the traces begun at this node that are kept, 0 to 1; a request that comes in a trace is kept if
    /// that is [default: 1]
    #[arg(long, env = "TIDEMARK_OTLP_RATIO", value_name = "SHARE")]
    pub(crate) otlp_ratio: Option<f64>,

    /// How long requests in flight may take to end after a signal to stop [default: 10s]
    #[arg(long, env = "TIDEMARK_STOP_DEADLINE", value_name = "TIME")]
    pub(crate) stop_deadline: Option<Period>,

    /// Bytes of one request's body at most [default: 32MiB]
    #[arg(long, env = "TIDEMARK_BODY_SIZE", value_name = "SIZE")]
    pub(crate) body_size: Option<Size>,

    /// Requests served at a time [default: 4096]
    #[arg(long, env = "TIDEMARK_REQUESTS", value_name = "COUNT")]
    pub(crate) requests: Option<usize>,

    /// Growth of a primary's log after which databases are checkpointed and it is cut [default: 256MiB]
    #[arg(long, env = "TIDEMARK_CHECKPOINT_EVERY", value_name = "SIZE")]
    pub(crate) checkpoint_every: Option<Size>,

    /// Page cache of each SQLite connection at most [default: 4MiB]
    #[arg(long, env = "TIDEMARK_PAGE_CACHE", value_name = "SIZE")]
    pub(crate) page_cache: Option<Size>,

    /// Reader connections of each database at most [default: 8]
    #[arg(long, env = "TIDEMARK_READERS", value_name = "COUNT")]
    pub(crate) readers: Option<usize>,

    /// Time without use after which a small database closes its files [default: 30s]
    #[arg(long, env = "TIDEMARK_IDLE_WAIT", value_name = "TIME")]
    pub(crate) idle_wait: Option<Period>,

    /// Databases that stay open though they are idle [default: 1024]
    #[arg(long, env = "TIDEMARK_OPEN_DATABASES", value_name = "COUNT")]
    pub(crate) open_databases: Option<usize>,

    /// How often a replica reads every page of each copy again and compares [default: 1h]
    #[arg(long, env = "TIDEMARK_AUDIT_EVERY", value_name = "TIME")]
    pub(crate) audit_every: Option<Period>,

    /// Bytes a second that it reads for that, about [default: 16MiB]
    #[arg(long, env = "TIDEMARK_AUDIT_RATE", value_name = "SIZE")]
    pub(crate) audit_rate: Option<Size>,

    /// How what a replica is sent is compressed on its way [default: zstd]
    #[arg(long, env = "TIDEMARK_STREAM_COMPRESSION", value_name = "METHOD")]
    pub(crate) stream_compression: Option<StreamCompression>,

    /// Bounds of SQL statements: parameters, columns, lengths and so on [default: sqlite]
    #[arg(long, env = "TIDEMARK_SQL_LIMITS", value_name = "PROFILE")]
    pub(crate) sql_limits: Option<SqlLimits>,

    /// Rows of one answer at most [default: 1000000]
    #[arg(long, env = "TIDEMARK_ANSWER_ROWS", value_name = "COUNT")]
    pub(crate) answer_rows: Option<u64>,

    /// Bytes of one answer at most [default: 64MiB]
    #[arg(long, env = "TIDEMARK_ANSWER_SIZE", value_name = "SIZE")]
    pub(crate) answer_size: Option<Size>,

    /// Bytes of one file of SQL to import at most; while it is imported it is in memory [default: 512MiB]
    #[arg(long, env = "TIDEMARK_IMPORT_SIZE", value_name = "SIZE")]
    pub(crate) import_size: Option<Size>,

    /// Bytes of all imported and exported files on this node's disk at most [default: 4GiB]
    #[arg(long, env = "TIDEMARK_SPOOL_SIZE", value_name = "SIZE")]
    pub(crate) spool_size: Option<Size>,

    /// How long such a file stays, and its link leads to it [default: 1h]
    #[arg(long, env = "TIDEMARK_SPOOL_AGE", value_name = "TIME")]
    pub(crate) spool_age: Option<Period>,
}

impl Settings {
    /// Lays this layer over `config`: what is given here replaces what was there.
    pub(crate) fn lay_over(self, config: &mut Config) {
        // Destructured, so that a new setting cannot be forgotten.
        let Self {
            data,
            listen,
            advertise,
            node_id,
            voter,
            join,
            replace,
            via,
            upstream,
            region,
            regions,
            cluster,
            token,
            token_file,
            cluster_secret,
            cluster_secret_file,
            log,
            log_format,
            otlp_endpoint,
            otlp_ratio,
            stop_deadline,
            body_size,
            requests,
            checkpoint_every,
            page_cache,
            readers,
            idle_wait,
            open_databases,
            audit_every,
            audit_rate,
            stream_compression,
            sql_limits,
            answer_rows,
            answer_size,
            import_size,
            spool_size,
            spool_age,
        } = self;
        overwrite(&mut config.data, data);
        overwrite(&mut config.listen, listen);
        overwrite(&mut config.advertise, advertise);
        overwrite(&mut config.node_id, node_id);
        overwrite(&mut config.voters, voter);
        overwrite(&mut config.join, join);
        overwrite(&mut config.replace, replace);
        overwrite(&mut config.via, via);
        overwrite(&mut config.upstreams, upstream);
        overwrite(&mut config.region, region);
        overwrite(&mut config.regions, regions);
        overwrite(&mut config.cluster, cluster);
        overwrite(&mut config.token, token);
        overwrite(&mut config.token_file, token_file);
        overwrite(&mut config.cluster_secret, cluster_secret);
        overwrite(&mut config.cluster_secret_file, cluster_secret_file);
        overwrite(&mut config.log, log);
        overwrite(&mut config.log_format, log_format);
        overwrite(&mut config.otlp_endpoint, otlp_endpoint);
        overwrite(&mut config.otlp_ratio, otlp_ratio);
        overwrite(&mut config.stop_deadline, stop_deadline);
        overwrite(&mut config.body_bytes, body_size);
        overwrite(&mut config.requests, requests);
        overwrite(&mut config.checkpoint_every_bytes, checkpoint_every);
        overwrite(&mut config.page_cache_bytes, page_cache);
        overwrite(&mut config.readers, readers);
        overwrite(&mut config.idle_wait, idle_wait);
        overwrite(&mut config.audit_every, audit_every);
        overwrite(&mut config.audit_bytes_per_second, audit_rate);
        overwrite(&mut config.stream_compression, stream_compression);
        overwrite(&mut config.open_databases, open_databases);
        overwrite(&mut config.sql_limits, sql_limits);
        overwrite(&mut config.answer_rows, answer_rows);
        overwrite(&mut config.answer_bytes, answer_size);
        overwrite(&mut config.import_bytes, import_size);
        overwrite(&mut config.spool_bytes, spool_size);
        overwrite(&mut config.spool_age, spool_age);
    }
}

/// A string, or a list of them.
fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrSeveral {
        One(String),
        Several(Vec<String>),
    }

    Ok(Some(match OneOrSeveral::deserialize(from)? {
        OneOrSeveral::One(one) => vec![one],
        OneOrSeveral::Several(several) => several,
    }))
}

fn overwrite<T>(old: &mut T, new: Option<impl Into<T>>) {
    if let Some(new) = new {
        *old = new.into();
    }
}
