//! `tidemark shell`.

/// What the shell is told.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

/// Runs the shell.
pub(crate) async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("the shell is not there yet")
}
