//! `export`: the database as a file of SQL, of one state, to be fetched under a link.
//!
//! A request without `current_bookmark` begins one, later ones ask how it goes, as those of an import do. One
//! that nobody asks about for [`UNASKED_MAX`] is broken off, as in D1.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidemark_protocol::dump::{DumpOptions, DumpOutput};
use tidemark_protocol::{Bookmark, DatabaseId, Failure, FailureKind, Node};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{info, warn};

use super::jobs::{Busy, JobId, Told};
use super::link::{Link, Purpose};
use super::opening::{Opened, Opening};
use super::report::{Kind, Outcome, Refused, Report};
use super::secret::Secret;
use super::shelf::Download;
use super::spool::{SpoolError, SpoolWriter, Spooled};
use super::{BROKEN, HOLD, OnDrop, RUN_MAX, Transfers};
use crate::ask::Ask;
use crate::envelope;
use crate::forward::Effect;
use crate::gateway::{Gateway, check_database};
use crate::handover::settled;
use crate::metrics::Route;
use crate::query::DatabasePath;
use crate::router::{bad_path, check_account};

/// Longest that an export goes on without anybody asking about it. D1's own figure.
const UNASKED_MAX: Duration = Duration::from_secs(15);
/// Tables that may be named, each in up to [`TABLE_BYTES_MAX`].
const TABLES_MAX: usize = 1000;
const TABLE_BYTES_MAX: usize = 1024;
/// A remark is made each time that the file has grown by this.
const PART_BYTES: u64 = 8 << 20;

const NOTHING: &str = "Not currently exporting anything.";
/// D1's words for a second export.
const BUSY: &str = "Currently processing a long-running export. Cannot start a new export until that completes or times out.";
const UNASKED: &str = "Cancelled due to no poll() received in 15000ms.";

/// What an export came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ExportFile {
    name: String,
    secret: Secret,
}

/// The same for a client.
#[derive(Serialize)]
struct Exported {
    filename: String,
    signed_url: String,
}

#[derive(Deserialize)]
struct Body {
    output_format: Option<String>,
    current_bookmark: Option<String>,
    dump_options: Option<Options>,
}

/// Which of the forms of text D1 knows is asked for does not matter: the one there is can be read by both.
#[derive(Deserialize)]
struct Options {
    no_schema: Option<bool>,
    no_data: Option<bool>,
    tables: Option<Vec<String>>,
}

/// What is asked for.
pub(super) enum Wish {
    Begin(DumpOptions),
    Poll { at: String },
}

impl Wish {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        let invalid = |text: String| Failure::new(FailureKind::BadRequest, text);
        let Body {
            output_format,
            current_bookmark,
            dump_options,
        } = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("The request is malformed: {error}")))?;
        match output_format.as_deref() {
            Some("polling") => {}
            Some(other) => {
                return Err(invalid(format!(
                    "Invalid property: output_format => '{other}' is not 'polling'"
                )));
            }
            None => {
                return Err(invalid(
                    "Invalid property: output_format => Required".to_owned(),
                ));
            }
        }
        if let Some(at) = current_bookmark {
            return Ok(Self::Poll { at });
        }
        let options = dump_options.map(|options| DumpOptions {
            no_schema: options.no_schema.unwrap_or_default(),
            no_data: options.no_data.unwrap_or_default(),
            tables: options.tables.unwrap_or_default(),
        });
        let options = options.unwrap_or_default();
        let tables = &options.tables;
        if tables.len() > TABLES_MAX {
            let text = format!(
                "Invalid property: dump_options.tables => {} names, the limit is {TABLES_MAX}",
                tables.len()
            );
            return Err(invalid(text));
        }
        if let Some(long) = tables.iter().find(|name| name.len() > TABLE_BYTES_MAX) {
            let text = format!(
                "Invalid property: dump_options.tables => a name of {} bytes, the limit is {TABLE_BYTES_MAX}",
                long.len()
            );
            return Err(invalid(text));
        }
        Ok(Self::Begin(options))
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Begin(_) => Effect::Writes,
            Self::Poll { .. } => Effect::Looks,
        }
    }
}

pub(crate) async fn export<N: Node>(
    State(gateway): State<Arc<Gateway<N>>>,
    path: DatabasePath,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let work = async {
        let Path((account, database)) = path.map_err(|rejection| bad_path(&rejection))?;
        check_account(&account)?;
        check_database(&database)?;
        let ask = Ask::read(&head.headers)?;
        let body = gateway.gate.read(&head.headers, body, ask.expires).await?;
        let wish = Wish::parse(&body.bytes)?;
        let opening = Opening {
            head: &head,
            body: &body.bytes,
            ask: &ask,
            database: &database,
            effect: wish.effect(),
        };
        let (database, at) = match opening.open(&gateway).await? {
            Opened::Elsewhere(response) => return Ok(response),
            Opened::Here(database, at) => (database, at),
        };
        let link = Link::back(&head.headers)?;
        let job = match wish {
            Wish::Begin(options) => match begin(&gateway, database, options, at)? {
                Ok(job) => Some(job),
                Err(Busy) => {
                    let refused = Outcome::<Exported>::Refused(Refused::new(Kind::Export, BUSY));
                    return Ok(envelope::success(&refused, None));
                }
            },
            Wish::Poll { at } => {
                let state = gateway.transfers.state();
                state.exports.named(database, &at, Instant::now())
            }
        };
        let answer = told(&gateway.transfers, job, &ask, &link).await?;
        Ok(envelope::success(&answer, None))
    };
    gateway.answer(Route::Export, &head, work).await
}

/// Begins one.
fn begin<N: Node>(
    gateway: &Arc<Gateway<N>>,
    database: DatabaseId,
    options: DumpOptions,
    at: Bookmark,
) -> Result<Result<JobId, Busy>, Failure> {
    let transfers = &gateway.transfers;
    transfers.spool()?;
    let mut state = transfers.state();
    if state.exports.is_running(database) {
        return Ok(Err(Busy));
    }
    let place = Arc::new(transfers.enter()?);
    let job = match state.exports.begin(database, (), at, Instant::now()) {
        Ok(job) => job,
        Err(Busy) => return Ok(Err(Busy)),
    };
    state.exports.say(job, "Starting export...");
    drop(state);
    let gateway = Arc::clone(gateway);
    let ended = {
        let transfers = Arc::clone(&gateway.transfers);
        OnDrop(move || {
            let end = Err(BROKEN.to_owned());
            transfers.state().exports.end(job, end, Instant::now());
            transfers.tell_end();
        })
    };
    let run = async move {
        run(&gateway, database, options, job, place).await;
        drop(ended);
    };
    // Let go: what goes wrong in it, a panic of the node included, is its end.
    drop(tokio::spawn(run));
    Ok(Ok(job))
}

async fn run<N: Node>(
    gateway: &Gateway<N>,
    database: DatabaseId,
    options: DumpOptions,
    job: JobId,
    place: Arc<OwnedSemaphorePermit>,
) {
    let (no_schema, no_data) = (options.no_schema, options.no_data);
    let tables = options.tables.len();
    info!(%database, no_schema, no_data, tables, "export begins");
    let transfers = &gateway.transfers;
    let outcome = write(gateway, database, options, job, place).await;
    let now = Instant::now();
    let end = match outcome {
        Ok((file, bookmark)) => {
            info!(%database, bytes = file.bytes(), %bookmark, "export ended");
            let name = format!("{database}.{bookmark}.sql");
            let secret = Secret(gateway.handles.random.bytes16());
            let age_max = transfers.spool().map(|spool| spool.config().age_max);
            let expires = now + age_max.unwrap_or_default();
            let download = Download {
                file,
                name: name.clone(),
                expires,
            };
            transfers.state().shelf.offer(secret, download);
            transfers.expire_later(expires);
            Ok(ExportFile { name, secret })
        }
        Err(failure) => {
            warn!(%database, kind = failure.kind.name(), %failure, "export failed");
            Err(failure.message)
        }
    };
    transfers.state().exports.end(job, end, now);
    transfers.tell_end();
}

/// The file as it is being written, by a SQL thread.
#[derive(Default)]
struct Sink {
    /// None once it is taken away, or after an error.
    writer: Option<SpoolWriter>,
    error: Option<SpoolError>,
    parts: u64,
}

impl Sink {
    /// Whether it could be written. Says so when one more part is full.
    fn write(&mut self, piece: &[u8]) -> Option<bool> {
        let writer = self.writer.as_mut()?;
        if let Err(error) = writer.write(piece) {
            self.error = Some(error);
            self.writer = None;
            return None;
        }
        let parts = writer.bytes() / PART_BYTES;
        Some(std::mem::replace(&mut self.parts, parts) < parts)
    }
}

async fn write<N: Node>(
    gateway: &Gateway<N>,
    database: DatabaseId,
    options: DumpOptions,
    job: JobId,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<(Arc<Spooled>, Bookmark), Failure> {
    let transfers = Arc::clone(&gateway.transfers);
    let spool = Arc::clone(transfers.spool()?);
    let made = tokio::task::spawn_blocking(move || spool.create()).await;
    let sink = Arc::new(Mutex::new(Sink {
        writer: Some(made.expect("making a file does not panic")?),
        ..Sink::default()
    }));
    let unasked = Arc::new(AtomicBool::new(false));
    let output: DumpOutput = {
        let (sink, unasked) = (Arc::clone(&sink), Arc::clone(&unasked));
        Box::new(move |piece| {
            // As long as a SQL thread has this, the export goes on, whoever waits for it.
            let _ = &place;
            let now = Instant::now();
            if transfers.state().exports.is_unasked(job, UNASKED_MAX, now) {
                unasked.store(true, Ordering::Relaxed);
                return false;
            }
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(part_is_full) = sink.write(&piece) else {
                return false;
            };
            if part_is_full {
                let message = format!("Uploaded part {}", sink.parts);
                transfers.state().exports.say(job, message);
            }
            true
        })
    };
    let export = gateway.node.export(database, options, RUN_MAX, output);
    let exported = settled(RUN_MAX, export).await;
    let Sink { writer, error, .. } =
        std::mem::take(&mut *sink.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(error) = error {
        return Err(error.into());
    }
    if unasked.load(Ordering::Relaxed) {
        return Err(Failure::new(FailureKind::Deadline, UNASKED));
    }
    let bookmark = exported?.bookmark;
    let writer = writer.expect("it is there unless there was an error");
    Ok((writer.finish(), bookmark))
}

/// How an export goes, in a while.
async fn told(
    transfers: &Transfers,
    job: Option<JobId>,
    ask: &Ask,
    link: &Link,
) -> Result<Outcome<Exported>, Failure> {
    let Some(job) = job else {
        return Ok(Outcome::Refused(Refused::new(Kind::Export, NOTHING)));
    };
    let until = Instant::now() + HOLD.min(ask.remaining()? / 2);
    let running = |state: &super::State| state.exports.runs(job);
    transfers.while_running(until, running).await;
    let told = transfers.state().exports.ask(job, Instant::now());
    let Some(Told { at, messages, end }) = told else {
        return Ok(Outcome::Refused(Refused::new(Kind::Export, NOTHING)));
    };
    let end = end.map(|end| {
        end.map(|ExportFile { name, secret }| Exported {
            filename: name,
            signed_url: link.url(Purpose::Download, secret),
        })
    });
    let told = Told { at, messages, end };
    Ok(Outcome::Told(Report::new(Kind::Export, told)))
}
