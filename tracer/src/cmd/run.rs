//! `sockstate run`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;

use super::{
    Failure, exit,
    lock::Sharing,
    print,
    reload::Reloader,
    session::{Host, Session},
    sinks, transition_filter, verify,
};
use crate::{
    files,
    model::Start,
    pipeline::Destination,
    restart::Resume,
    service::Notifier,
    settings::{self, Reading, Settings},
};

const EXAMPLES: &str = "\
Examples:
  sockstate run --example > config.toml
      an example configuration
  sockstate run --config config.toml --check
      check it
  sockstate run --config config.toml
      SIGHUP reloads it, SIGTERM stops the daemon";

/// Trace as a daemon, and deliver to the sinks of a configuration.
///
/// Each sink of the configuration file has its own format, filter and queue.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DaemonArgs {
    /// The configuration file (docs/configuration.md).
    #[arg(long, value_name = "FILE", default_value = "/etc/sockstate/config.toml")]
    pub config: PathBuf,
    /// Only check the configuration, and report all problems.
    #[arg(long)]
    pub check: bool,
    /// Only print an example configuration with every key explained.
    #[arg(long, conflicts_with = "check")]
    pub example: bool,
}

pub(super) fn run(args: &DaemonArgs) -> Result<ExitCode> {
    if args.example {
        std::io::stdout().lock().write_all(settings::example().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        return checked(&args.config, &verified(&args.config)?);
    }
    // The signal handlers come first: a service manager may send a signal while certificates and BTF are still being
    // read.
    let host = Host::start()?;
    let settings = verified(&args.config)?;
    if let Some(directory) = &settings.keys.runtime_dir {
        files::use_runtime_directory(directory);
    }
    let filter = transition_filter(&settings.filter)?;
    let kernel = settings.kernel.clone();
    let lock = kernel.lock.clone();
    let stuck = settings.stuck.clone();
    let run = settings.keys.run.clone();
    let pin = settings.keys.pin.clone();
    let path = args.config.clone();
    let open = || {
        let open = Box::new(move |start: &Start, resume: Option<Resume>| {
            let streams = sinks::streams(&settings, start, resume.as_ref())?;
            // The streams have already reported the losses of the previous process.
            let resume = resume.map(|resume| Resume { is_complete: true, waiting: 0, ..resume });
            let reloader = Reloader::new(path, settings, start.clone(), resume);
            Ok((streams, Destination::Sinks(Box::new(reloader))))
        });
        let notifier = Notifier::from_environment();
        Ok(Session { pin: pin.as_deref(), notifier, ..Session::new(filter, &run, &stuck, &kernel, open)? })
    };
    let sharing = if kernel.alongside { Sharing::Unlocked } else { Sharing::Daemon { lock: &lock } };
    host.run(open, sharing)
}

/// Reads the settings, and checks whether the system allows them.
fn verified(path: &Path) -> Result<Settings, Failure> {
    let Reading { settings, mut problems } = settings::read(path);
    // An error in the text is a usage error; otherwise this system refuses the settings.
    let code = if problems.is_empty() { exit::FAILURE } else { exit::USAGE };
    problems.extend(settings.iter().flat_map(verify::problems));
    verify::settings_or_failure(settings, problems, code)
}

fn checked(path: &Path, settings: &Settings) -> Result<ExitCode> {
    for warning in verify::warnings(settings) {
        message!("{warning}");
    }
    let names: Vec<&str> = settings.sinks.iter().map(|sink| sink.section.name.as_str()).collect();
    print([format!("{}: OK (sinks: {})\n", path.display(), names.join(", "))])?;
    Ok(ExitCode::SUCCESS)
}
