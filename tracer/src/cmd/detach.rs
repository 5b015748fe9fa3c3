//! `sockstate detach`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{
    cli::DetachArgs,
    kernel::{self, PinError},
    restart,
};

pub(super) fn run(args: &DetachArgs) -> Result<ExitCode> {
    let was_there = match kernel::unpin(&args.pin) {
        // The contents are checked before the first file is removed.
        Err(error @ PinError::Foreign { .. }) => bail!("{error}; nothing was removed"),
        result => result?,
    };
    restart::forget(&args.pin).context("cannot remove the saved state in /run/sockstate; run as root")?;
    let result = if was_there {
        "the pins are removed; the kernel programs end, unless a running sockstate still uses them"
    } else {
        "no kernel programs are pinned there"
    };
    super::print([format!("{}: {result}\n", args.pin.display())])?;
    Ok(ExitCode::SUCCESS)
}
