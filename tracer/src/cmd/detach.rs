//! `sockstate detach`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    files,
    kernel::{self, PinError},
    restart,
};

const EXAMPLES: &str = "\
Examples:
  sockstate detach
      the programs of `pin = \"/sys/fs/bpf/sockstate\"`
  sockstate detach --pin /sys/fs/bpf/mine
      another directory";

/// Remove the kernel programs that a daemon has left attached.
///
/// A daemon with the key `pin` leaves them attached when it ends.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DetachArgs {
    /// The directory in the key `pin`.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sockstate")]
    pub pin: PathBuf,
    /// The directory in the key `runtime-dir`.
    #[arg(long, value_name = "DIR", default_value = files::DEFAULT_RUNTIME)]
    pub runtime_dir: PathBuf,
}

pub(super) fn run(args: &DetachArgs) -> Result<ExitCode> {
    let was_there = match kernel::unpin(&args.pin) {
        // The contents are checked before the first file is removed.
        Err(error @ PinError::Foreign { .. }) => bail!("{error}; nothing was removed"),
        result => result?,
    };
    files::use_runtime_directory(&args.runtime_dir);
    restart::forget(&args.pin).with_context(|| {
        format!("cannot remove the saved state in {}; run as root", args.runtime_dir.display())
    })?;
    let result = if was_there {
        "the pins are removed; the kernel programs end, unless a running sockstate still uses them"
    } else {
        "no kernel programs are pinned there"
    };
    super::print([format!("{}: {result}\n", args.pin.display())])?;
    Ok(ExitCode::SUCCESS)
}
