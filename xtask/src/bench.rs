//! bench
/// Arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}
pub(crate) fn all(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
