//! The shell without its keyboard: takes orders and SQL, writes answers.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use tidemark_client::{Answers, Batch, Client, Database, NodeStatus, Query, Session, SessionStart};

use super::directive::{Directive, HELP, Scope};
use super::render;

/// Longest file that `.read` sends: a server takes no more in one request.
const FILE_BYTES_MAX: u64 = 32 << 20;

const TABLES: &str = "SELECT name, type FROM sqlite_schema \
    WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_' ORDER BY name";
const SCHEMA: &str = "SELECT sql FROM sqlite_schema \
    WHERE sql IS NOT NULL AND (?1 IS NULL OR name = ?1 COLLATE NOCASE OR tbl_name = ?1 COLLATE NOCASE) \
    ORDER BY tbl_name, type DESC, name";

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    Continue,
    Quit,
}

/// How answers are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Tables and summaries, for a person at a terminal.
    Dialogue,
    /// Tables alone; summaries go to standard error, so that a pipe carries rows only.
    Tables,
    /// One JSON document per result.
    Json,
}

/// What the shell is connected to and how it shows it.
pub(crate) struct Console {
    client: Client,
    form: Form,
    scope: Scope,
    timing: bool,
    open: Option<Open>,
    /// Region that answered last.
    region: Option<String>,
}

/// The database in use.
struct Open {
    database: Database,
    /// `None` under [`Scope::None`].
    session: Option<Session>,
}

impl Open {
    fn prepare(&self, sql: &str) -> Query {
        match &self.session {
            Some(session) => session.prepare(sql),
            None => self.database.prepare(sql),
        }
    }

    fn exec(&self, sql: &str) -> Batch {
        match &self.session {
            Some(session) => session.exec(sql),
            None => self.database.exec(sql),
        }
    }
}

impl Console {
    pub(crate) fn new(client: Client, form: Form, scope: Scope) -> Self {
        Self {
            client,
            form,
            scope,
            timing: false,
            open: None,
            region: None,
        }
    }

    /// Opens `name`; without one, the only database there is.
    pub(crate) async fn start(&mut self, name: Option<&str>) -> anyhow::Result<()> {
        if let Some(name) = name {
            return self.open(name).await;
        }
        let databases = self
            .client
            .list_databases()
            .await
            .context("list databases")?;
        if let [only] = databases.as_slice() {
            self.use_database(&only.name);
        }
        Ok(())
    }

    /// What the node that answers says of itself.
    pub(crate) async fn greet(&mut self) -> anyhow::Result<String> {
        let status = self.client.node_status().await?;
        self.region = Some(status.region.to_string());
        Ok(format!(
            "{} {} of {}",
            status.region,
            if status.leading { "primary" } else { "replica" },
            // The catalogue is a database of the cell, not of its users.
            render::counted(
                status
                    .databases
                    .iter()
                    .filter(|database| !database.name.is_empty())
                    .count() as u64,
                "database"
            )
        ))
    }

    pub(crate) fn prompt(&self) -> String {
        let database = self
            .open
            .as_ref()
            .map_or("tidemark", |open| open.database.name());
        match &self.region {
            Some(region) => format!("{database}@{region}> "),
            None => format!("{database}> "),
        }
    }

    /// Does what `text` says: an order if it begins with a dot, SQL otherwise.
    pub(crate) async fn submit(
        &mut self,
        text: &str,
        out: &mut (dyn Write + Send),
    ) -> anyhow::Result<Flow> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Flow::Continue);
        }
        if !text.starts_with('.') {
            self.run(text, out).await?;
            return Ok(Flow::Continue);
        }
        match text.parse()? {
            Directive::Bookmark => self.bookmark(out)?,
            Directive::Create(name) => {
                self.client.create_database(name.as_str()).await?;
                self.use_database(&name);
            }
            Directive::Databases => self.databases(out).await?,
            Directive::Help => writeln!(out, "{HELP}")?,
            Directive::Open(name) => self.open(&name).await?,
            Directive::Quit => return Ok(Flow::Quit),
            Directive::Read(path) => {
                let sql = read_file(&path)?;
                self.run(&sql, out).await?;
            }
            Directive::Schema(table) => self.schema(table, out).await?,
            Directive::Session(scope) => {
                self.scope = scope;
                if let Some(open) = self.open.take() {
                    self.use_database(open.database.name());
                }
            }
            Directive::Status => self.status(out).await?,
            Directive::Tables => {
                let result = self.opened()?.prepare(TABLES).raw().await?;
                if let Some(table) = render::table(&result) {
                    writeln!(out, "{table}")?;
                }
            }
            Directive::Timing(on) => {
                self.timing = on.unwrap_or(!self.timing);
                writeln!(out, "timing is {}", if self.timing { "on" } else { "off" })?;
            }
        }
        Ok(Flow::Continue)
    }

    async fn run(&mut self, sql: &str, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let request = self.client.new_request_id();
        let batch = self.opened()?.exec(sql).request_id(request);
        let started = Instant::now();
        let outcome = if self.form == Form::Dialogue {
            tokio::select! {
                outcome = batch => outcome,
                _ = tokio::signal::ctrl_c() => {
                    bail!("given up waiting; request {request} may still take effect")
                }
            }
        } else {
            // Ctrl-C ends a script, as everywhere.
            batch.await
        };
        let took = started.elapsed();
        let answers = match outcome {
            Ok(answers) => answers,
            Err(error) => {
                if self.form == Form::Json {
                    writeln!(out, "{}", render::json_failure(&error))?;
                }
                return Err(error.into());
            }
        };

        if let Some(served_by) = &answers.served_by {
            self.region = Some(render::harmless(&served_by.region));
        }
        for result in &answers.results {
            if self.form == Form::Json {
                writeln!(out, "{}", render::json(result)?)?;
            } else if let Some(table) = render::table(result) {
                writeln!(out, "{table}")?;
            }
        }
        self.summarise(&answers, took, out)?;
        Ok(())
    }

    fn summarise(
        &self,
        answers: &Answers,
        took: std::time::Duration,
        out: &mut (dyn Write + Send),
    ) -> std::io::Result<()> {
        let mut lines = match self.form {
            Form::Json => return Ok(()),
            Form::Dialogue | Form::Tables => render::summary(answers, took),
        };
        if self.timing {
            lines.push('\n');
            lines.push_str(&render::costs(answers, took));
        }
        if self.form == Form::Dialogue {
            writeln!(out, "{lines}")
        } else {
            eprintln!("{lines}");
            Ok(())
        }
    }

    fn opened(&self) -> anyhow::Result<&Open> {
        self.open
            .as_ref()
            .context("no database is open: see .databases, then .open NAME, or .create NAME")
    }

    async fn open(&mut self, name: &str) -> anyhow::Result<()> {
        // So that a wrong name shows now and not at the first query.
        let info = self.client.describe_database(name).await?;
        self.use_database(&info.name);
        Ok(())
    }

    fn use_database(&mut self, name: &str) {
        let database = self.client.database(name);
        let start = match &self.scope {
            Scope::Unconstrained => Some(SessionStart::Unconstrained),
            Scope::Primary => Some(SessionStart::Primary),
            Scope::From(bookmark) => Some(SessionStart::Bookmark(bookmark.to_string())),
            Scope::None => None,
        };
        let session = start.map(|start| database.session(start));
        self.open = Some(Open { database, session });
    }

    fn bookmark(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let open = self.opened()?;
        let Some(session) = &open.session else {
            bail!("there is no session: see .session");
        };
        match session.bookmark() {
            Some(bookmark) => writeln!(out, "{bookmark}")?,
            None => writeln!(out, "nothing was read or written yet")?,
        }
        Ok(())
    }

    async fn databases(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let mut table = render::blank_table();
        table.set_header(["name", "uuid", "created"]);
        for database in self.client.list_databases().await? {
            let row = [&database.name, &database.uuid, &database.created_at];
            table.add_row(row.map(|text| render::harmless(text)));
        }
        writeln!(out, "{table}")?;
        Ok(())
    }

    async fn schema(
        &self,
        name: Option<String>,
        out: &mut (dyn Write + Send),
    ) -> anyhow::Result<()> {
        let schema = self
            .opened()?
            .prepare(SCHEMA)
            .bind(name)
            .all::<String>()
            .await?;
        for sql in schema.rows {
            writeln!(out, "{};", render::harmless(&sql))?;
        }
        Ok(())
    }

    async fn status(&self, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let NodeStatus {
            node,
            role,
            region,
            leading,
            term,
            primary_url,
            databases,
            replicas,
            // `tidemark cell status` shows it.
            cell: _,
        } = self.client.node_status().await?;
        writeln!(
            out,
            "node {node}, {role:?} in {region}, {}, term {term}, primary at {}",
            if leading { "leading" } else { "not leading" },
            primary_url.as_deref().unwrap_or("an unknown place")
        )?;
        let mut table = render::blank_table();
        table.set_header(["database", "position", "damaged"]);
        for database in databases {
            let name = match database.name.as_str() {
                "" => "(catalogue)",
                name => name,
            };
            let damaged = database.damaged.unwrap_or_default();
            table.add_row([name, &database.position.to_string(), &damaged]);
        }
        writeln!(out, "{table}")?;
        if !replicas.is_empty() {
            let mut table = render::blank_table();
            table.set_header(["replica", "region", "databases", "behind", "confirm lag"]);
            for replica in replicas {
                table.add_row([
                    replica.node.to_string(),
                    replica.region.to_string(),
                    replica.databases.to_string(),
                    render::counted(replica.behind, "transaction"),
                    format!("{} ms", replica.confirm_lag_ms),
                ]);
            }
            writeln!(out, "{table}")?;
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("read '{shown}'"))?
        .len();
    if size > FILE_BYTES_MAX {
        bail!("'{shown}' has {size} bytes, at most {FILE_BYTES_MAX} can be one transaction");
    }
    std::fs::read_to_string(path).with_context(|| format!("read '{shown}'"))
}
