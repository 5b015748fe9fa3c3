//! `sockstate run`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;

use super::{
    Failure, daemon_filter, exit,
    lock::Sharing,
    print,
    reload::Reloader,
    session::{Host, Session, WatchCluster},
    sink_host::SinkHost,
    sinks, verify,
};
use crate::{
    cli::RunArgs,
    files,
    kubernetes::{KubernetesArgs, node_name},
    model::{RecordKind, Start},
    pipeline::Destination,
    restart::Resume,
    service::Notifier,
    settings::{self, Reading, Settings, Sink},
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
        let Verified { settings, sinks, .. } = verified(&args.config)?;
        sinks.end();
        return checked(&args.config, &settings);
    }
    // The signal handlers come first: a service manager may send a signal while certificates and BTF are still being
    // read.
    let host = Host::start()?;
    let Verified { settings, text, sinks } = verified(&args.config)?;
    if let Some(directory) = &settings.keys.runtime_dir {
        files::use_runtime_directory(directory);
    }
    let filter = daemon_filter(&settings.filter)?;
    let kernel = settings.kernel.clone();
    let lock = kernel.lock.clone();
    let stuck = settings.stuck.clone();
    let metrics = settings.keys.run.metrics;
    let run = RunArgs { metrics: None, ..settings.keys.run.clone() };
    let pin = settings.keys.pin.clone();
    let kubernetes = settings.kubernetes.clone();
    let host_name = settings.keys.host_name.clone().or_else(node_name);
    let path = args.config.clone();
    let host_of_sinks = sinks.clone();
    let watching = sinks.clone();
    let has = |kind| sinks::want(&settings, kind);
    let (all_states, resets) = (has(RecordKind::Connection), has(RecordKind::Reset));
    let open = || {
        let metrics = metrics.map(|address| sinks.serve_metrics(address)).transpose()?;
        let open = Box::new(move |start: &Start, resume: Option<Resume>| {
            let prepared = sinks.prepare(&path, &text, &settings, start, true)?;
            let streams = sinks::streams(&settings, &prepared, start, resume.as_ref(), &sinks)?;
            sinks.restrict_this_process();
            // The streams have already reported the losses of the previous process.
            let resume = resume.map(|resume| Resume { is_complete: true, waiting: 0, ..resume });
            let reloader = Reloader::new(path, settings, prepared.secrets, start.clone(), resume, sinks);
            Ok((streams, Destination::Sinks(Box::new(reloader))))
        });
        let notifier = Notifier::from_environment();
        let mut session = Session::new(filter, &run, &stuck, &kernel, open)?;
        session.settings.metrics = metrics;
        let watch = |args: KubernetesArgs| -> WatchCluster {
            Box::new(move |cluster, asked| watching.watch_cluster(&args, cluster, asked))
        };
        let watch_cluster = kubernetes.map(watch);
        let (pin, host) = (pin.as_deref(), host_name);
        Ok(Session { pin, host, watch_cluster, notifier, all_states, resets, ..session })
    };
    let sharing = if kernel.alongside { Sharing::Unlocked } else { Sharing::Daemon { lock: &lock } };
    let code = host.run(open, sharing);
    host_of_sinks.end();
    code
}

/// Settings that the system allows.
struct Verified {
    settings: Settings,
    text: String,
    sinks: SinkHost,
}

/// Reads the settings, and checks whether the system allows them.
fn verified(path: &Path) -> Result<Verified, Failure> {
    let Reading { settings, mut problems, text } = settings::read(path);
    // An error in the text is a usage error; otherwise this system refuses the settings.
    let code = if problems.is_empty() { exit::FAILURE } else { exit::USAGE };
    let mut sinks = SinkHost::default();
    if let Some(settings) = &settings {
        match SinkHost::start(settings) {
            Ok(started) => sinks = started,
            Err(error) => {
                let key = if settings.keys.sinks_socket.is_some() { "sinks-socket" } else { "sinks-user" };
                problems.push(settings.places.error("", key, &error));
            }
        }
    }
    match sinks.problems(path, &text, settings.as_ref()) {
        Ok(of_sinks) => {
            let metrics = settings.as_ref().and_then(|settings| settings.keys.run.metrics);
            let of_metrics = metrics.and_then(|address| sinks.metrics_problem(address));
            let of_sink = |sink: &Sink| of_sinks.get(&sink.section.name).cloned().unwrap_or_default();
            problems.extend(
                settings.iter().flat_map(|settings| verify::problems(settings, of_metrics.clone(), of_sink)),
            );
        }
        Err(error) => return Err(Failure { code: exit::FAILURE, message: error.to_string() }),
    }
    let verified = verify::settings_or_failure(settings, problems, code);
    if verified.is_err() {
        sinks.end();
    }
    Ok(Verified { settings: verified?, text, sinks })
}

fn checked(path: &Path, settings: &Settings) -> Result<ExitCode> {
    for warning in verify::warnings(settings) {
        message!("{warning}");
    }
    let names: Vec<&str> = settings.sinks.iter().map(|sink| sink.section.name.as_str()).collect();
    print([format!("{}: OK (sinks: {})\n", path.display(), names.join(", "))])?;
    Ok(ExitCode::SUCCESS)
}
