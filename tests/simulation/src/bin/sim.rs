//! Runs simulated clusters, one seed after another, and stops at the first violation.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tidemark_simulation::{Options, Outcome, run};
use tracing_subscriber::EnvFilter;

/// Lines of a run's log that are shown when it fails.
const LINES_SHOWN: usize = 60;

/// Run simulated clusters, one seed after another, until enough minutes are simulated or something is wrong.
#[derive(Parser, Debug)]
#[command(max_term_width = 100)]
struct Args {
    /// First seed; the next is one more [default: drawn]
    #[arg(long)]
    seed: Option<u64>,

    /// Cluster-minutes to simulate
    #[arg(long, default_value_t = 10)]
    minutes: u64,

    /// Run this one seed, in this process, and print what became of it as JSON
    #[arg(long, requires = "seed")]
    once: bool,

    /// Go on after a violation
    #[arg(long)]
    keep_going: bool,

    /// Break every node at this point of the product
    #[arg(long = "break", value_name = "POINT")]
    broken: Vec<String>,

    /// Seconds under faults of each run [default: of the seed]
    #[arg(long)]
    work: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.seed {
        Some(seed) if args.once => once(seed, &args),
        first => several(
            first.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            &args,
        ),
    }
}

/// One seed, in this process.
fn once(seed: u64, args: &Args) -> anyhow::Result<ExitCode> {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let options = Options {
        broken: args.broken.clone(),
        work: args.work.map(Duration::from_secs),
    };
    let simulated = mad_turmoil::time::SimClocksGuard::init();
    // A thread of its own: what the main thread has drawn by now depends on its surroundings.
    let running = std::thread::spawn(move || run(seed, &options));
    let outcome = running.join();
    drop(simulated);
    let Ok(outcome) = outcome else {
        bail!("seed {seed}: the simulation itself panicked");
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    out.flush()?;
    let code = u8::from(outcome.violation.is_some());
    Ok(ExitCode::from(code))
}

/// One seed after another, each in a process of its own.
fn several(first: u64, args: &Args) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe()?;
    let mut out = std::io::stdout();
    writeln!(out, "seeds from {first}")?;
    let mut total = Total::default();
    let enough_ms = args.minutes * 60_000;
    for seed in first.. {
        if total.simulated_ms >= enough_ms {
            break;
        }
        let mut command = Command::new(&program);
        command.args(["--once", "--seed", &seed.to_string()]);
        for point in &args.broken {
            command.args(["--break", point]);
        }
        if let Some(work) = args.work {
            command.args(["--work", &work.to_string()]);
        }
        let done = command
            .stdin(Stdio::null())
            .output()
            .context("run a seed")?;
        let text = String::from_utf8_lossy(&done.stdout);
        let outcome = serde_json::from_str::<Outcome>(text.trim());
        let violation = match &outcome {
            Ok(outcome) => {
                total.add(outcome);
                outcome.violation.clone()
            }
            Err(_) => Some(format!("the process ended with {}", done.status)),
        };
        if let Some(violation) = violation {
            total.violations += 1;
            let log = String::from_utf8_lossy(&done.stderr);
            let lines: Vec<_> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            writeln!(out, "{shown}\nVIOLATION, seed {seed}: {violation}")?;
            writeln!(out, "replay: tidemark-sim --once --seed {seed}")?;
            if !args.keep_going {
                writeln!(out, "{total}")?;
                return Ok(ExitCode::FAILURE);
            }
        }
        if total.runs.is_multiple_of(50) {
            writeln!(out, "seed {seed}: {total}")?;
        }
    }
    writeln!(out, "{total}")?;
    Ok(ExitCode::from(u8::from(total.violations > 0)))
}

/// What all runs came to.
#[derive(Default)]
struct Total {
    runs: u64,
    simulated_ms: u64,
    terms: usize,
    violations: u64,
    faults: BTreeMap<String, u64>,
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.simulated_ms += outcome.simulated_ms;
        self.terms += outcome.terms;
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            runs,
            simulated_ms,
            terms,
            violations,
            faults,
        } = self;
        let minutes = simulated_ms / 60_000;
        let all: u64 = faults.values().sum();
        write!(
            f,
            "{runs} runs, {minutes} cluster-minutes, {terms} terms with a leader, {violations} violations, \
             {all} faults: {faults:?}"
        )
    }
}
