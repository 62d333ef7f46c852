//! The Rust client of Tidemark: sessions that thread bookmarks by themselves.
//!
//! Tidemark keeps one primary and many replicas of each SQLite database. A [`Session`] lets any replica
//! answer and still reads its own writes: each answer names the state it was read from as a *bookmark*,
//! and each request carries the newest one seen.
//!
//! ```no_run
//! use tidemark_client::{Client, Error, SessionStart};
//!
//! #[derive(serde::Deserialize, Debug)]
//! struct Customer {
//!     id: i64,
//!     name: String,
//!     email: Option<String>,
//! }
//!
//! # async fn example() -> Result<(), Error> {
//! let client = Client::builder("http://127.0.0.1:8787").token("secret").build()?;
//! client.create_database("shop").await?;
//!
//! let session = client.database("shop").session(SessionStart::Unconstrained);
//! session.exec("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, email TEXT)").await?;
//! session
//!     .prepare("INSERT INTO customers (name, email) VALUES (?, ?)")
//!     .bind("Ada")
//!     .bind(None::<String>)
//!     .run()
//!     .await?;
//! let customers = session.prepare("SELECT * FROM customers").all::<Customer>().await?;
//! println!("{:?}, read in {:?}", customers.rows, customers.meta.served_by_region);
//! # Ok(())
//! # }
//! ```
//!
//! # Values
//!
//! Values travel without loss: integers with all 64 bits, reals as reals, blobs as bytes. Anything that
//! is `Into<`[`Value`]`>` can be bound; rows come back as any type that serde can deserialize, or as
//! [`Value`]s from [`Query::raw`].
//!
//! # What an error says
//!
//! ```no_run
//! # async fn example(session: tidemark_client::Session) {
//! use tidemark_client::{Error, FailureKind};
//!
//! match session.prepare("INSERT INTO orders (id) VALUES (7)").run().await {
//!     Ok(outcome) => println!("stored, {} row", outcome.meta.changes),
//!     // Nothing happened. The kind says what to do about it.
//!     Err(Error::Failed { kind: FailureKind::Sql, message, .. }) => println!("refused: {message}"),
//!     // It may have happened. Sent again under the same id it counts once.
//!     Err(Error::Unknown { request, .. }) => println!("ask again with {request}"),
//!     Err(error) => println!("{error}"),
//! }
//! # }
//! ```
//!
//! # Retries
//!
//! Every request has an id, the same at each try, and the primary counts it once. So the client tries
//! again by itself, until the deadline, when no connection could be made, when a node is overloaded or
//! unavailable, when a replica is behind, and even when contact was lost after sending. Between tries it
//! waits with growing, jittered pauses and at least as long as the server asks. With several node URLs
//! it turns to the next, at once where that can help, and away from a node that gives no sign of life.
//!
//! # The nearest node
//!
//! ```no_run
//! # async fn example() -> Result<(), tidemark_client::Error> {
//! use tidemark_client::Client;
//!
//! let client = Client::builder("https://db.example").token("secret").nearest().build()?;
//! for node in client.look_around().await {
//!     println!("{} {:?} {:?}", node.url, node.region, node.round_trip);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! With [`ClientBuilder::nearest`] the URLs that are given are a beginning: from there the client learns which
//! nodes the cluster has, measures how far they are, and asks the nearest that is healthy. It turns to the next
//! when that fails, and comes back once it answers again. Sessions keep what they promise meanwhile, as their
//! bookmark goes along. An address that leads nowhere, or to somebody else, is not used and gets no token.
//!
//! # Features
//!
//! `tls`: `https://` URLs, through rustls and the system's root certificates. Off by default.

mod admin;
mod answer;
mod atlas;
mod builder;
mod client;
mod database;
mod error;
mod exact;
mod liveness;
mod nodes;
mod query;
mod row;
mod session;
mod survey;
mod target;
mod transport;

pub use tidemark_protocol::d1::{ReadReplication, ReplicationMode};
pub use tidemark_protocol::node::{DatabaseStatus, NodeStatus, ReplicaStatus, Role, Verification};
pub use tidemark_protocol::{Delivered, FailureKind, OnMiss, RequestId, Statement, Value, Why};

pub use crate::admin::{DatabaseInfo, NewDatabase};
pub use crate::answer::{Answers, Meta, Outcome, QueryResult, RawResult, ServedBy};
pub use crate::builder::{
    ACCOUNT_DEFAULT, ANSWER_BYTES_MAX_DEFAULT, BACKOFF_MAX_DEFAULT, BACKOFF_MIN_DEFAULT,
    CONNECT_WAIT_DEFAULT, ClientBuilder, LOOK_EVERY_DEFAULT,
};
pub use crate::client::Client;
pub use crate::database::Database;
pub use crate::error::Error;
pub use crate::exact::ExactJson;
pub use crate::nodes::KnownNode;
pub use crate::query::{Batch, Query};
pub use crate::session::{Session, SessionStart};
