//! `sockstate report`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{cli::ReportArgs, draw};

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let story = super::story(&args.file, &args.select)?;
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    super::write(args.output.as_deref(), &draw::report(&story, &name))?;
    Ok(ExitCode::SUCCESS)
}
