//! `sockstate report`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::record::EXAMPLES;
use crate::{cli::SelectArgs, draw};

/// Write an HTML report of a recording.
///
/// States over time, leaks, busiest processes, times in each state, slowest closes.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// A recording: the output of `record`, of `trace --format json`, or of a file sink; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub select: SelectArgs,
}

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let story = super::story(&args.file, &args.select)?;
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    super::write(args.output.as_deref(), &draw::report(&story, &name))?;
    Ok(ExitCode::SUCCESS)
}
