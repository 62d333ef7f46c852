//! `tidemark verify`.

/// What to verify.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {}

/// Compares nodes.
pub(crate) async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("verify is not there yet")
}
