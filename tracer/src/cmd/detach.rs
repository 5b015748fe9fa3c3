//! `sockstate detach`.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{cli::DetachArgs, kernel, restart};

/// Runs it.
pub(super) fn run(args: &DetachArgs) -> Result<ExitCode> {
    let was_there = kernel::unpin(&args.pin)?;
    restart::forget(&args.pin).context("cannot remove what it has left in /run/sockstate; run as root")?;
    let said = if was_there {
        "its programs have ended, unless a sockstate still runs with them"
    } else {
        "nothing is kept there"
    };
    super::print([format!("{}: {said}\n", args.pin.display())])?;
    Ok(ExitCode::SUCCESS)
}
