//! What the HTTP face asks of a primary.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemark_engine::{Control, Database, ReadError};
use tidemark_protocol::node::{
    Answer, CreateDatabase, DatabaseInfo, DatabaseList, DatabaseStatus, ListDatabases, NodeStatus,
    Role, Verification,
};
use tidemark_protocol::render::Renderer;
use tidemark_protocol::{
    Bookmark, Catalogue, CatalogueEntry, DatabaseId, Execute, Executed, Failure, FailureKind, Node,
    PAGE_SIZE, Position, ReadContract, RequestId, Seq, Statement, Term, Value,
};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cell::Primary;
use crate::consensus::ConfirmError;
use crate::pipeline::{Line, Written, not_leading, shut_down};

/// Longest that a request waits for an election to end.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(3);

/// How long a read may hold the thread that received it, waiting for a reader included.
const INLINE_PATIENCE: Duration = Duration::from_micros(500);

/// What a read on this node came to.
enum Read {
    Done(bytes::Bytes, Position),
    Writes,
}

impl Node for Primary {
    async fn execute(&self, request: Execute) -> Result<Executed, Failure> {
        let begun = Instant::now();
        if !self.serves() {
            self.wait_for_a_leader(LEADER_WAIT_MAX.min(request.deadline / 2))
                .await;
        }
        let Some(term) = *self.serving.borrow() else {
            return self.elsewhere();
        };
        let deadline = request.deadline.saturating_sub(begun.elapsed());
        let request = Execute {
            deadline,
            ..request
        };
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        if catalogue.get(request.database).is_none() {
            return Err(no_database(&request.database.to_string()));
        }
        let line = self.line(request.database).await?;
        let seen = match check_bookmark(&catalogue, &line, &request).await {
            // A deposed leader that has not heard of it must not call a newer state lost.
            Err(failure) if failure.kind == FailureKind::LostBookmark && self.has_peers() => {
                if !self.leads(term, deadline).await {
                    return self.elsewhere();
                }
                return Err(failure);
            }
            seen => seen?,
        };
        // A write finds out by itself: without a quorum it does not commit. Unless it writes nothing.
        let writes = line.known_to_write(&request.statements);
        if !writes && !self.may_answer(&line, &request, term).await {
            return self.elsewhere();
        }
        let Some(answer) = self.run(&line, request, seen, term).await? else {
            return self.elsewhere();
        };
        let bookmark = Bookmark::issue(catalogue.bookmark_key(), line.id(), answer.position);
        Ok(Executed::Answer(Answer {
            results: answer.results,
            bookmark,
            repeated: answer.repeated,
        }))
    }

    async fn database(&self, name_or_id: &str) -> Result<Option<DatabaseInfo>, Failure> {
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        let Some(id) = catalogue.resolve(name_or_id) else {
            return Ok(None);
        };
        match catalogue.get(id) {
            Some(entry) => self.info(&catalogue, entry).await.map(Some),
            None => Ok(None),
        }
    }

    fn resolve(&self, name_or_id: &str) -> Option<DatabaseId> {
        self.catalogue()?.resolve(name_or_id)
    }

    async fn databases(&self, list: ListDatabases) -> Result<DatabaseList, Failure> {
        let catalogue = self.catalogue().ok_or_else(not_leading)?;
        let wanted = |entry: &&CatalogueEntry| {
            list.name
                .as_ref()
                .is_none_or(|part| entry.name.contains(part.as_str()))
        };
        let total = catalogue.entries().filter(wanted).count() as u64;
        let skip = usize::try_from(list.offset).unwrap_or(usize::MAX);
        let take = usize::try_from(list.limit).unwrap_or(usize::MAX);
        let mut databases = Vec::new();
        for entry in catalogue.entries().filter(wanted).skip(skip).take(take) {
            databases.push(self.listed(&catalogue, entry));
        }
        Ok(DatabaseList { databases, total })
    }

    async fn create(&self, create: CreateDatabase) -> Result<DatabaseInfo, Failure> {
        self.wait_for_a_leader(LEADER_WAIT_MAX).await;
        let term = (*self.serving.borrow()).ok_or_else(not_leading)?;
        let random = uuid::Builder::from_random_bytes(self.environment.random.bytes16());
        let uuid = DatabaseId::new(random.into_uuid());
        let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
        let insert = Statement {
            sql: "INSERT INTO databases(uuid, name, created_at, primary_location_hint, \
                  jurisdiction, replicated) VALUES (?, ?, ?, ?, ?, ?)"
                .to_owned(),
            params: vec![
                Value::Text(uuid.to_string()),
                Value::Text(create.name.clone()),
                Value::Text(timestamp(self.environment.clock.unix_ms())),
                text(create.primary_location_hint),
                text(create.jurisdiction),
                Value::Integer(i64::from(create.replicated)),
            ],
        };
        self.write_catalogue(vec![insert], create.request, term)
            .await
            .map_err(|failure| {
                if failure
                    .message
                    .starts_with("UNIQUE constraint failed: databases.name")
                {
                    Failure::new(
                        FailureKind::DatabaseExists,
                        format!("Database with name '{}' already exists", create.name),
                    )
                } else {
                    failure
                }
            })?;
        self.refresh_catalogue().await.map_err(|error| {
            // Committed all the same: a retry under the same request id finds it.
            Failure::new(FailureKind::Unknown, error.to_string())
        })?;
        // From its entry alone: nothing may fail now that it is committed.
        let catalogue = self.catalogue().ok_or_else(not_leading);
        let created = catalogue.ok().and_then(|catalogue| {
            let entry = catalogue.get(catalogue.resolve(&create.name)?)?;
            Some(self.listed(&catalogue, entry))
        });
        created.ok_or_else(|| {
            let text = format!("database '{}' was created, and deleted since", create.name);
            Failure::new(FailureKind::Unknown, text)
        })
    }

    async fn delete(
        &self,
        database: DatabaseId,
        request: Option<RequestId>,
    ) -> Result<(), Failure> {
        self.wait_for_a_leader(LEADER_WAIT_MAX).await;
        let term = (*self.serving.borrow()).ok_or_else(not_leading)?;
        let listed = self
            .catalogue()
            .is_some_and(|catalogue| catalogue.get(database).is_some());
        if !listed {
            return Err(no_database(&database.to_string()));
        }
        let delete = Statement {
            sql: "DELETE FROM databases WHERE uuid = ?".to_owned(),
            params: vec![Value::Text(database.to_string())],
        };
        // A retry that names a newer database of the same name deletes nothing: its first try counts.
        self.write_catalogue(vec![delete], request, term).await?;
        self.refresh_catalogue()
            .await
            .map_err(|error| Failure::new(FailureKind::Unknown, error.to_string()))
    }

    async fn verify(&self, database: DatabaseId) -> Result<Verification, Failure> {
        let known = database == DatabaseId::CATALOGUE
            || self
                .catalogue()
                .is_some_and(|catalogue| catalogue.get(database).is_some());
        if !known {
            return Err(no_database(&database.to_string()));
        }
        let line = self.line(database).await?;
        let source = Arc::clone(line.database());
        self.on_sql_thread(move || verify(&source)).await?
    }

    async fn status(&self) -> NodeStatus {
        let leadership = self.consensus.leadership().borrow().clone();
        let catalogue = self.catalogue();
        let databases = self.databases.all().into_iter().map(|line| {
            let entry = catalogue
                .as_ref()
                .and_then(|catalogue| catalogue.get(line.id()));
            let position = line.database().position();
            DatabaseStatus {
                uuid: line.id(),
                name: entry.map_or_else(String::new, |entry| entry.name.clone()),
                position: position.unwrap_or_else(|| line.durable()),
                damaged: position
                    .is_none()
                    .then(|| "its content is at no known position".to_owned()),
            }
        });
        NodeStatus {
            node: self.config.node,
            role: Role::Primary,
            region: self.config.region.clone(),
            leading: self.serves(),
            term: leadership.term,
            primary_url: leadership.leader.map(|leader| leader.address),
            databases: databases.collect(),
            replicas: self.followers.status(),
        }
    }

    fn upstream(&self) -> Option<String> {
        if self.serves() {
            return None;
        }
        let leader = self.consensus.leadership().borrow().leader.clone()?;
        (leader.node != self.config.node).then_some(leader.address)
    }

    fn ready(&self) -> Result<(), Failure> {
        // A follower hands on, for which it has to know what there is.
        if self.serves() || (self.upstream().is_some() && self.catalogue().is_some()) {
            Ok(())
        } else {
            Err(not_leading())
        }
    }
}

impl Primary {
    /// What to do with a request that needs a leader, which this node is not.
    fn elsewhere(&self) -> Result<Executed, Failure> {
        if self.upstream().is_some() {
            Ok(Executed::Forward)
        } else {
            Err(not_leading())
        }
    }

    /// Whether this node leads and has everything that was acknowledged.
    fn serves(&self) -> bool {
        self.serving.borrow().is_some()
    }

    /// Whether another voter could have been elected without this one.
    fn has_peers(&self) -> bool {
        self.config.voters.len() > 1
    }

    /// Whether this node, which serves under `term`, may answer a read as the leader.
    async fn may_answer(&self, line: &Line, request: &Execute, term: Term) -> bool {
        match request.read {
            ReadContract::FirstPrimary => {
                let leads = self.leads(term, request.deadline).await;
                // A replica may have shown what the readers here do not see yet.
                leads && timeout(request.deadline, line.caught_up()).await.is_ok()
            }
            ReadContract::Primary if self.has_peers() => {
                let confirmed = self.consensus.confirm_by_lease(request.deadline).await;
                self.still_leads(term, confirmed)
            }
            ReadContract::Primary
            | ReadContract::FirstUnconstrained
            | ReadContract::Bookmark(_) => true,
        }
    }

    /// Whether this node certainly still leads: nothing newer can have been acknowledged elsewhere.
    async fn leads(&self, term: Term, within: Duration) -> bool {
        let confirmed = self.consensus.confirm(within).await;
        self.still_leads(term, confirmed)
    }

    fn still_leads(&self, term: Term, confirmed: Result<(), ConfirmError>) -> bool {
        if let Err(error) = confirmed {
            tracing::warn!(%error, "leadership is not confirmed");
            return false;
        }
        // Deposed and elected again, it has yet to wait for its writers.
        self.consensus.fence().holds(term)
    }

    /// Reads where the readers are; writes where the writer is. SQLite says which it is. `None`: it wrote
    /// nothing, and this node may lead no more.
    async fn run(
        &self,
        line: &Arc<Line>,
        request: Execute,
        seen: Seq,
        term: Term,
    ) -> Result<Option<Written>, Failure> {
        if !line.known_to_write(&request.statements) {
            match self.read(line, &request).await {
                Ok(Read::Done(results, position)) => {
                    return Ok(Some(Written {
                        results,
                        position,
                        wrote: false,
                        repeated: false,
                    }));
                }
                Ok(Read::Writes) => line.note_write(&request.statements),
                // Perhaps the retry of a write that committed, such as `CREATE TABLE`: its writer knows.
                Err(failure) if failure.kind == FailureKind::Sql && request.request.is_some() => {}
                Err(failure) => return Err(failure),
            }
        }
        let deadline = request.deadline;
        let written = line.write(request, seen, term).await?;
        if !written.wrote && self.has_peers() && !self.leads(term, deadline).await {
            return Ok(None);
        }
        Ok(Some(written))
    }

    /// Short reads run where they are; one that turns long, or finds no reader free at once, starts over
    /// on a SQL thread, where it may wait.
    async fn read(&self, line: &Arc<Line>, request: &Execute) -> Result<Read, Failure> {
        let now = Instant::now();
        let deadline = now + request.deadline;
        let inline = Control {
            deadline: deadline.min(now + INLINE_PATIENCE),
            steps_max: Some(self.config.inline_steps_max),
        };
        match self.read_now(line.database(), request, inline) {
            Err(ReadError::Budget { .. } | ReadError::Busy { .. } | ReadError::Deadline) => {
                self.read_long(line, request, deadline).await
            }
            read => read_outcome(read, request.deadline),
        }
    }

    async fn read_long(
        &self,
        line: &Arc<Line>,
        request: &Execute,
        deadline: Instant,
    ) -> Result<Read, Failure> {
        // As many as there are readers: the SQL threads are the writers' too.
        let _permit = tokio::time::timeout_at(deadline.into(), line.long_reads().acquire())
            .await
            .map_err(|_| {
                Failure::new(
                    FailureKind::Overloaded,
                    "D1 DB is overloaded. Requests queued for too long.",
                )
                .retry_after(Duration::from_secs(1))
            })?
            .map_err(|_| shut_down())?;
        let (source, request) = (Arc::clone(line.database()), request.clone());
        let (answer, served_by) = (self.context.answer, self.context.served_by.clone());
        let limit = request.deadline;
        let read = move || {
            let mut sink = Renderer::new(request.shape, request.form, answer, &served_by);
            let control = Control::until(deadline);
            let read = source.read(&request.statements, &control, &mut sink);
            read.map(|position| Read::Done(sink.finish(), position))
        };
        // A read may be given up at any time: it is never of unknown outcome.
        match tokio::time::timeout_at(deadline.into(), self.on_sql_thread(read)).await {
            Ok(read) => read_outcome(read?, limit),
            Err(_) => Err(self::deadline(limit)),
        }
    }

    fn read_now(
        &self,
        database: &Database,
        request: &Execute,
        control: Control,
    ) -> Result<Read, ReadError> {
        let context = &self.context;
        let mut sink = Renderer::new(
            request.shape,
            request.form,
            context.answer,
            &context.served_by,
        );
        let position = database.read(&request.statements, &control, &mut sink)?;
        Ok(Read::Done(sink.finish(), position))
    }

    async fn on_sql_thread<A: Send + 'static>(
        &self,
        job: impl FnOnce() -> A + Send + 'static,
    ) -> Result<A, Failure> {
        let (done, answer) = oneshot::channel();
        self.environment.threads.run(Box::new(move || {
            // A caller that is gone wants no answer.
            let _ = done.send(job());
        }));
        answer.await.map_err(|_| shut_down())
    }

    /// What the catalogue knows of a database, as if it were empty.
    fn listed(&self, catalogue: &Catalogue, entry: &CatalogueEntry) -> DatabaseInfo {
        DatabaseInfo {
            uuid: entry.uuid,
            name: entry.name.clone(),
            created_at: entry.created_at.clone(),
            primary_location_hint: entry.primary_location_hint.clone(),
            jurisdiction: entry.jurisdiction.clone(),
            replicated: entry.replicated,
            file_size: PAGE_SIZE as u64,
            num_tables: 0,
            primary_region: catalogue.primary_region().clone(),
        }
    }

    async fn info(
        &self,
        catalogue: &Catalogue,
        entry: &CatalogueEntry,
    ) -> Result<DatabaseInfo, Failure> {
        let line = self.line(entry.uuid).await?;
        let tables = line.database().table_count();
        Ok(DatabaseInfo {
            file_size: line.database().file_size(),
            num_tables: tables.map_err(|error| read_failure(error, Duration::ZERO))?,
            ..self.listed(catalogue, entry)
        })
    }
}

/// What a bookmark asks of the primary: nothing, for it has everything; but it must be one of this
/// history. Gives the sequence number it names, which the next write must exceed (Lamport's rule).
async fn check_bookmark(
    catalogue: &Catalogue,
    line: &Line,
    request: &Execute,
) -> Result<Seq, Failure> {
    let ReadContract::Bookmark(bookmark) = request.read else {
        return Ok(Seq::ZERO);
    };
    let wanted = bookmark
        .verify(catalogue.bookmark_key(), request.database)
        .map_err(|error| Failure::new(FailureKind::BadBookmark, error.to_string()))?;
    let behind = |current: Option<Position>| current.is_some_and(|at| !at.reached(&wanted));
    if behind(line.database().position()) {
        // A replica may have a committed transaction before the readers here do, and hand out its
        // bookmark. Its writer here has been told all the same.
        timeout(request.deadline, line.drained())
            .await
            .map_err(|_| deadline(request.deadline))?;
    }
    let Some(current) = line.database().position() else {
        return Ok(wanted.seq);
    };
    let same_age = current.age(&wanted).is_eq();
    if behind(Some(current)) || (same_age && current != wanted) {
        return Err(Failure::new(
            FailureKind::LostBookmark,
            format!(
                "bookmark names position {wanted}, which the history of this database does not \
                 contain: it is at {current}; begin a new session"
            ),
        ));
    }
    Ok(wanted.seq)
}

fn verify(database: &Database) -> Result<Verification, Failure> {
    let internal = |error: tidemark_engine::EngineError| {
        Failure::new(FailureKind::Internal, error.to_string())
    };
    let mut snapshot = database.snapshot().map_err(internal)?;
    let computed = snapshot.checksum().map_err(internal)?;
    let position = snapshot.position();
    Ok(Verification {
        position,
        computed,
        pages: u64::from(snapshot.page_count()),
        intact: computed == position.checksum,
    })
}

fn read_outcome(read: Result<Read, ReadError>, deadline: Duration) -> Result<Read, Failure> {
    match read {
        Ok(read) => Ok(read),
        Err(ReadError::NotReadOnly { .. }) => Ok(Read::Writes),
        Err(error) => Err(read_failure(error, deadline)),
    }
}

fn read_failure(error: ReadError, limit: Duration) -> Failure {
    match error {
        ReadError::Sql(error) => Failure::new(FailureKind::Sql, error.to_string()),
        ReadError::Answer(limit) => Failure::new(FailureKind::TooLarge, limit.to_string()),
        ReadError::Deadline => deadline(limit),
        error @ ReadError::Busy { .. } => Failure::new(FailureKind::Overloaded, error.to_string())
            .retry_after(Duration::from_millis(100)),
        error @ ReadError::Damaged { .. } => Failure::new(FailureKind::Damaged, error.to_string()),
        error @ (ReadError::NotReadOnly { .. }
        | ReadError::Budget { .. }
        | ReadError::Storage(_)
        | _) => Failure::new(FailureKind::Internal, error.to_string()),
    }
}

/// A request ran out of time before anything came of it.
pub(crate) fn deadline(limit: Duration) -> Failure {
    Failure::new(
        FailureKind::Deadline,
        format!("the statements did not end within the deadline of {limit:?}; nothing happened"),
    )
}

pub(crate) fn no_database(name: &str) -> Failure {
    Failure::new(
        FailureKind::NoDatabase,
        format!("The database {name} could not be found"),
    )
}

/// ISO 8601 in UTC with milliseconds.
fn timestamp(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{time:.3}")
}
