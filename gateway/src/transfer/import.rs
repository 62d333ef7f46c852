//! `import`: a file of SQL runs as one transaction.
//!
//! 1. `init` with the md5 of a file: a link to upload it under; or, if it is here already, as `ingest`.
//! 2. `ingest`: the file begins to run, unless it does already, and the answer is that of a poll.
//! 3. `poll`: what was said since the last one, after at most [`HOLD`], sooner at the end. The end of a job is told to
//!    those who have its bookmark, once and again for half a minute: an answer may be lost. In D1 it is told once.
//!
//! An `ingest` that is sent again joins the run of its file, or is told its end, unless the file is there once more.
//! An `init` joins a run, or an end that went well and that nobody knows; else it begins anew.
//!
//! D1 breaks an import off that nobody asks about; here it goes on, and its end is forgotten in time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidemark_protocol::node::{Answer, Execute, Executed};
use tidemark_protocol::render::{AnswerShape, ValueForm};
use tidemark_protocol::{
    Bookmark, DatabaseId, Failure, FailureKind, Freshness, Node, OnMiss, ReadContract, RequestId,
    Rules, Statement,
};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::jobs::{Busy, JobId, Stage};
use super::link::{Link, Purpose};
use super::opening::{Opened, Opening};
use super::report::{Kind, Outcome, Refused, Report};
use super::secret::{Etag, Secret};
use super::shelf::{Place, Upload};
use super::spool::Spooled;
use super::{BROKEN, HOLD, OnDrop, RUN_MAX, Transfers, file_name};
use crate::ask::Ask;
use crate::envelope;
use crate::forward::Effect;
use crate::gateway::{Gateway, check_database};
use crate::handover::settled;
use crate::metrics::Route;
use crate::query::DatabasePath;
use crate::router::{bad_path, check_account};

/// D1's words for a poll that comes too late.
const NOTHING: &str = "Not currently importing anything.";
/// D1's words for a second import.
const BUSY: &str = "Currently processing a long-running import.";
/// For how long a node remembers at least that a request id took effect.
const REMEMBERED_MIN: Duration = Duration::from_secs(14 * 60);
/// The answer that is repeated where the first was too large to be kept.
const FORGOTTEN: &[u8] = b"[]";
/// What is known then.
const META_FORGOTTEN: &str = r#"{"duration":0,"changes":0,"last_row_id":0,"changed_db":true,"size_after":0,"rows_read":0,"rows_written":0}"#;
/// What some editors write before the text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What an import came to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Imported {
    num_queries: u64,
    meta: Box<RawValue>,
    final_bookmark: String,
    /// An earlier try did it, and its answer is forgotten.
    #[serde(skip)]
    is_forgotten: bool,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Init(Etag),
    Ingest { etag: Etag, filename: String },
    Poll { at: String },
}

/// As text, so that what is wrong is said in our own words.
#[derive(Deserialize)]
struct Body {
    action: Option<String>,
    etag: Option<String>,
    filename: Option<String>,
    current_bookmark: Option<String>,
}

impl Action {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        let invalid = |text: String| Failure::new(FailureKind::BadRequest, text);
        let Body {
            action,
            etag,
            filename,
            current_bookmark,
        } = serde_json::from_slice(body)
            .map_err(|error| invalid(format!("The request is malformed: {error}")))?;
        let required = |name: &str| invalid(format!("Invalid property: {name} => Required"));
        let etag = || {
            let etag = etag.as_deref().ok_or_else(|| required("etag"))?;
            etag.parse()
                .map_err(|error| invalid(format!("Invalid property: etag => {error}")))
        };
        match action.as_deref() {
            Some("init") => Ok(Self::Init(etag()?)),
            Some("ingest") => Ok(Self::Ingest {
                etag: etag()?,
                filename: filename.ok_or_else(|| required("filename"))?,
            }),
            Some("poll") => Ok(Self::Poll {
                at: current_bookmark.ok_or_else(|| required("current_bookmark"))?,
            }),
            Some(other) => Err(invalid(format!(
                "Invalid property: action => '{other}' is none of 'init', 'ingest' and 'poll'"
            ))),
            None => Err(required("action")),
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Init(_) | Self::Ingest { .. } => Effect::Writes,
            Self::Poll { .. } => Effect::Looks,
        }
    }
}

/// Where to send a file.
#[derive(Serialize)]
struct Invited {
    success: bool,
    #[serde(rename = "type")]
    kind: Kind,
    filename: String,
    upload_url: String,
    messages: [&'static str; 0],
}

pub(crate) async fn import<N: Node>(
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
        let action = Action::parse(&body.bytes)?;
        let opening = Opening {
            head: &head,
            body: &body.bytes,
            ask: &ask,
            database: &database,
            effect: action.effect(),
        };
        let (database, at) = match opening.open(&gateway).await? {
            Opened::Elsewhere(response) => return Ok(response),
            Opened::Here(database, at) => (database, at),
        };
        let now = Instant::now();
        let job = match action {
            Action::Poll { at } => gateway.transfers.state().imports.named(database, &at, now),
            Action::Ingest { etag, filename } if filename != file_name(database, etag) => {
                return Ok(refusal(missing(&filename)));
            }
            Action::Init(etag) | Action::Ingest { etag, .. } => {
                let step = if matches!(action, Action::Init(_)) {
                    Step::Init
                } else {
                    Step::Ingest
                };
                match begin(&gateway, database, etag, step, &ask, at)? {
                    Begun::Job(job) => Some(job),
                    Begun::Busy => return Ok(refusal(Refused::new(Kind::Import, BUSY))),
                    Begun::NoFile if step == Step::Init => {
                        let link = Link::back(&head.headers)?;
                        return invite(&gateway, &link, database, etag);
                    }
                    Begun::NoFile => return Ok(refusal(missing(&file_name(database, etag)))),
                }
            }
        };
        let answer = told(&gateway.transfers, job, &ask).await?;
        Ok(envelope::success(&answer, None))
    };
    gateway.answer(Route::Import, &head, work).await
}

fn refusal(refused: Refused) -> Response {
    envelope::success(&Outcome::<Imported>::Refused(refused), None)
}

/// Which request would have a file run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Init,
    Ingest,
}

/// Whether a file runs.
enum Begun {
    Job(JobId),
    /// Another one of the database does.
    Busy,
    /// It is not here.
    NoFile,
}

fn invite<N: Node>(
    gateway: &Gateway<N>,
    link: &Link,
    database: DatabaseId,
    etag: Etag,
) -> Result<Response, Failure> {
    let transfers = &gateway.transfers;
    let secret = Secret(gateway.handles.random.bytes16());
    let now = Instant::now();
    let place = Place {
        database,
        etag,
        expires: now + transfers.spool()?.config().age_max,
    };
    transfers.state().shelf.announce(secret, place, now);
    let invited = Invited {
        success: true,
        kind: Kind::Import,
        filename: file_name(database, etag),
        upload_url: link.url(Purpose::Upload, secret),
        messages: [],
    };
    Ok(envelope::success(&invited, None))
}

/// Has a file run, unless it does already, or has and that is what is asked about.
fn begin<N: Node>(
    gateway: &Arc<Gateway<N>>,
    database: DatabaseId,
    etag: Etag,
    step: Step,
    ask: &Ask,
    at: Bookmark,
) -> Result<Begun, Failure> {
    let transfers = &gateway.transfers;
    let now = Instant::now();
    let mut state = transfers.state();
    let is_here = state.shelf.upload(database, etag, now).is_some();
    match state.imports.about(database, &etag, now) {
        Some((job, Stage::Running)) => return Ok(Begun::Job(job)),
        // A file that is here came after what ended, or is to be tried again.
        Some((job, stage)) if !is_here && (step == Step::Ingest || stage == Stage::Done) => {
            return Ok(Begun::Job(job));
        }
        _ => {}
    }
    if !is_here {
        return Ok(Begun::NoFile);
    }
    if state.imports.is_running(database) {
        return Ok(Begun::Busy);
    }
    let place = transfers.enter()?;
    let Some(upload) = state.shelf.begin(database, etag, ask.request, now) else {
        return Ok(Begun::NoFile);
    };
    let job = match state.imports.begin(database, etag, at, now) {
        Ok(job) => job,
        Err(Busy) => return Ok(Begun::Busy),
    };
    state.imports.say(job, "Starting import...");
    drop(state);
    transfers.expire_later(upload.expires);
    let gateway = Arc::clone(gateway);
    let ended = {
        let transfers = Arc::clone(transfers);
        OnDrop(move || {
            let end = Err(BROKEN.to_owned());
            transfers.state().imports.end(job, end, Instant::now());
            transfers.tell_end();
        })
    };
    let run = async move {
        run(&gateway, database, etag, upload, job).await;
        drop(ended);
        drop(place);
    };
    // Let go: what goes wrong in it, a panic of the node included, is its end.
    drop(tokio::spawn(run));
    Ok(Begun::Job(job))
}

async fn run<N: Node>(
    gateway: &Gateway<N>,
    database: DatabaseId,
    etag: Etag,
    upload: Upload<Arc<Spooled>>,
    job: JobId,
) {
    let Upload {
        file,
        request,
        begun,
        ..
    } = upload;
    // Should it wait for long, its first try must still be remembered when its turn comes.
    let until = begun.map_or(RUN_MAX, |begun| {
        (begun + REMEMBERED_MIN).saturating_duration_since(Instant::now())
    });
    let deadline = RUN_MAX.min(until);
    let bytes = file.bytes();
    info!(%database, bytes, %request, "import begins");
    let outcome = execute(gateway, database, file, request, deadline).await;
    match &outcome {
        Ok(Imported { num_queries, .. }) => info!(%database, %request, num_queries, "import ended"),
        Err(failure) => {
            warn!(%database, %request, kind = failure.kind.name(), %failure, "import failed")
        }
    }
    let mut state = gateway.transfers.state();
    // What may yet come to be by the same file is not uploaded again, and counts once.
    if !outcome
        .as_ref()
        .is_err_and(|failure| failure.kind.retryable())
    {
        state.shelf.remove(database, etag, request);
    }
    if let Ok(imported) = &outcome {
        let message = if imported.is_forgotten {
            "Processed by an earlier request.".to_owned()
        } else {
            format!("Processed {} queries.", imported.num_queries)
        };
        state.imports.say(job, message);
    }
    let end = outcome.map_err(|failure| failure.message);
    state.imports.end(job, end, Instant::now());
    drop(state);
    gateway.transfers.tell_end();
}

async fn execute<N: Node>(
    gateway: &Gateway<N>,
    database: DatabaseId,
    file: Arc<Spooled>,
    request: RequestId,
    deadline: Duration,
) -> Result<Imported, Failure> {
    let read = spawn_blocking(move || text_of(&file));
    let sql = read.await.expect("reading a file does not panic")?;
    let execute = Execute {
        database,
        statements: vec![Statement {
            sql,
            params: Vec::new(),
        }],
        request: Some(request),
        read: ReadContract::Primary,
        freshness: Freshness::Any,
        deadline,
        on_miss: OnMiss::Error,
        shape: AnswerShape::default(),
        form: ValueForm::D1,
        rules: Rules::Script,
    };
    match settled(deadline, gateway.node.execute(execute)).await? {
        Executed::Answer(answer) => imported(&answer),
        Executed::Forward(_) => {
            let text = "another node leads by now, and nothing was imported";
            Err(Failure::new(FailureKind::Unavailable, text))
        }
    }
}

fn text_of(file: &Spooled) -> Result<String, Failure> {
    let bytes = std::fs::read(file.path()).map_err(|error| {
        let text = format!("this node cannot read the file that was uploaded: {error}");
        Failure::new(FailureKind::Internal, text)
    })?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        let text = format!("the file is not UTF-8: byte {at} is 0x{byte:02x}");
        Failure::new(FailureKind::BadRequest, text)
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// The one element of a script's answer.
#[derive(Deserialize)]
struct Element {
    num_queries: u64,
    meta: Box<RawValue>,
}

fn imported(answer: &Answer) -> Result<Imported, Failure> {
    let final_bookmark = answer.bookmark.to_string();
    if answer.repeated && &answer.results[..] == FORGOTTEN {
        let meta = RawValue::from_string(META_FORGOTTEN.to_owned());
        return Ok(Imported {
            num_queries: 0,
            meta: meta.expect("it is JSON"),
            final_bookmark,
            is_forgotten: true,
        });
    }
    let read: Result<[Element; 1], _> = serde_json::from_slice(&answer.results);
    let [Element { num_queries, meta }] = read.map_err(|error| {
        // It is done all the same.
        let text = format!("the import took effect, but its answer cannot be read: {error}");
        Failure::new(FailureKind::Internal, text)
    })?;
    Ok(Imported {
        num_queries,
        meta,
        final_bookmark,
        is_forgotten: false,
    })
}

/// How an import goes, in a while.
async fn told(
    transfers: &Transfers,
    job: Option<JobId>,
    ask: &Ask,
) -> Result<Outcome<Imported>, Failure> {
    let Some(job) = job else {
        return Ok(Outcome::Refused(Refused::new(Kind::Import, NOTHING)));
    };
    let until = Instant::now() + HOLD.min(ask.remaining()? / 2);
    let running = |state: &super::State| state.imports.runs(job);
    transfers.while_running(until, running).await;
    let told = transfers.state().imports.ask(job, Instant::now());
    Ok(match told {
        Some(told) => Outcome::Told(Report::new(Kind::Import, told)),
        None => Outcome::Refused(Refused::new(Kind::Import, NOTHING)),
    })
}

fn missing(filename: &str) -> Refused {
    let shown: String = filename.chars().take(100).collect();
    Refused::new(
        Kind::Import,
        format!("Input file {shown} missing or invalid"),
    )
}
