//! `tidemark shell`: SQL typed or piped in; out come rows, and where they came from.
//!
//! 1. [`run`] connects and opens a database.
//! 2. Text comes from `--command`, from a terminal ([`editor`], whole statements), or from a pipe (lines,
//!    until [`statement::is_complete`]).
//! 3. [`Console::submit`] does what it says and writes the answer ([`render`]).
//!
//! At a terminal an error is shown and the next statement awaited; elsewhere the first one ends the
//! program with exit code 1.

mod console;
mod directive;
mod editor;
mod render;
mod statement;

use std::io::{self, BufRead, BufReader, IsTerminal as _, Write};
use std::time::Duration;

use anyhow::Context as _;
use tidemark_client::Client;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use self::console::{Console, Flow, Form};
use self::directive::Scope;
use self::editor::{Keyboard, Typed};
pub(crate) use self::render::blank_table;
use crate::token::TokenArgs;

/// How long the greeting waits for the node before the prompt comes without it.
const GREETING_WAIT: Duration = Duration::from_secs(2);

/// What the shell is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Base URL of a node; more than one are tried in order
    #[arg(
        long = "url",
        env = "TIDEMARK_URL",
        value_name = "URL",
        value_delimiter = ','
    )]
    #[arg(default_value = "http://127.0.0.1:8787")]
    urls: Vec<String>,

    #[command(flatten)]
    token: TokenArgs,

    /// Database to open, by name or UUID [default: the only one there is]
    #[arg(long, short, env = "TIDEMARK_DATABASE", value_name = "NAME")]
    database: Option<String>,

    /// How fresh reads are: unconstrained, primary, none, or a bookmark to start from
    #[arg(long, value_name = "HOW", default_value = "unconstrained")]
    session: Scope,

    /// How long a request may take, retries included
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    deadline: Duration,

    /// Run this SQL or order and leave; may be given several times
    #[arg(long = "command", short, value_name = "SQL")]
    commands: Vec<String>,

    /// Write one JSON document per result instead of tables
    #[arg(long)]
    json: bool,
}

/// Runs the shell.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let interactive = args.commands.is_empty() && io::stdin().is_terminal();
    let form = match (args.json, interactive) {
        (true, _) => Form::Json,
        (false, true) => Form::Dialogue,
        (false, false) => Form::Tables,
    };
    let mut console = Console::new(connect(&args)?, form, args.session.clone());
    let database = args.database.as_deref();
    let outcome = if interactive {
        talk(&mut console, database).await
    } else {
        console.start(database).await?;
        obey(&mut console, &args.commands).await
    };
    match outcome {
        // Whoever read the rows has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

fn connect(args: &Args) -> anyhow::Result<Client> {
    let mut urls = args.urls.iter();
    let first = urls.next().context("no --url was given")?;
    let mut builder = Client::builder(first).deadline(args.deadline);
    for url in urls {
        builder = builder.url(url);
    }
    if let Some(token) = args.token.read()? {
        builder = builder.token(token.reveal());
    }
    Ok(builder.build()?)
}

/// A dialogue at a terminal.
async fn talk(console: &mut Console, database: Option<&str>) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match timeout(GREETING_WAIT, console.greet()).await {
        Ok(Ok(who)) => writeln!(out, "{who}; .help tells what can be done here")?,
        Ok(Err(error)) => eprintln!("the node does not tell its status: {error:#}"),
        Err(_) => eprintln!("no node has answered in {GREETING_WAIT:?} yet"),
    }
    if let Err(error) = console.start(database).await {
        eprintln!("error: {error:#}");
    }
    let mut keyboard = Keyboard::open().context("open the terminal")?;
    loop {
        let prompt = console.prompt();
        // Typing blocks, so it is lent to a thread that may be.
        let typed;
        (keyboard, typed) = spawn_blocking(move || {
            let typed = keyboard.read(&prompt);
            (keyboard, typed)
        })
        .await?;
        match typed.context("read the terminal")? {
            Typed::Text(text) => match console.submit(&text, &mut out).await {
                Ok(Flow::Continue) => {}
                Ok(Flow::Quit) => return Ok(()),
                Err(error) if is_broken_pipe(&error) => return Err(error),
                Err(error) => eprintln!("error: {error:#}"),
            },
            Typed::Dropped => {}
            Typed::End => return Ok(()),
        }
    }
}

/// The given commands, or else what comes through the pipe, up to the first error.
async fn obey(console: &mut Console, commands: &[String]) -> anyhow::Result<()> {
    let mut out = io::stdout();
    if commands.is_empty() {
        return read_pipe(console, Box::new(BufReader::new(io::stdin())), &mut out).await;
    }
    for command in commands {
        if console.submit(command, &mut out).await? == Flow::Quit {
            break;
        }
    }
    Ok(())
}

/// Lines, gathered until they are a whole statement or an order.
async fn read_pipe(
    console: &mut Console,
    mut pipe: Box<dyn BufRead + Send>,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let mut text = String::new();
    loop {
        let length;
        (pipe, text, length) = spawn_blocking(move || {
            let length = pipe.read_line(&mut text);
            (pipe, text, length)
        })
        .await?;
        let length = length.context("read standard input")?;
        let ended = length == 0;
        // Orders stand on a line of their own, after remarks perhaps.
        let order = statement::skip_blank(&text);
        if order.starts_with('.') {
            text = order.to_owned();
        }
        // The last statement needs no semicolon.
        if ended || text.starts_with('.') || statement::is_complete(&text) {
            // Remarks before the end are no statement.
            let is_blank = statement::skip_blank(&text).is_empty();
            if !is_blank && console.submit(&text, out).await? == Flow::Quit {
                return Ok(());
            }
            text.clear();
        }
        if ended {
            return Ok(());
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests;
