//! `sockstate hunt`: a trace that finds the call paths which opened the stuck connections.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::{
    followed, refuse_workload,
    session::{self, Session},
};
use crate::{
    cli::{KernelArgs, SelectArgs, StreamArgs},
    filter::{Filter, Processes},
    format::{Format, HuntReport, HuntStyle, Json},
    kernel::Hunt,
    model::{MetricLabels, Threshold},
    pipeline::{self, Limits},
    sinks::Output,
    values::{parse_duration, parse_threshold},
};

const EXAMPLES: &str = "\
Examples:
  sockstate hunt --threshold CLOSE_WAIT=10s
      until Ctrl-C: every call path and its stuck sockets
  sockstate hunt --comm python3 --duration 10m
      one program
  sockstate hunt --duration 1h --format svg -o leak.svg";

/// Find the code that opens stuck connections.
///
/// Shows the call paths of connect() and accept(), sorted by their stuck sockets.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct HuntArgs {
    /// Format of the output [default: text on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<HuntFormat>,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Stuck")]
    pub threshold: Vec<Threshold>,
    /// Limit of call paths per process and second; further ones are counted as lost.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Stuck")]
    pub rate: u32,

    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "End")]
    pub duration: Option<std::time::Duration>,

    /// Selects connections; --pid and --comm are of the process that opens them.
    #[command(flatten)]
    pub select: SelectArgs,
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// The format of a hunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HuntFormat {
    /// A report for people.
    Text,
    /// `stuck` and `resolved` records with the call path (docs/events.md).
    Json,
    /// Folded stacks, for flame graphs.
    Folded,
    /// A flame graph.
    Svg,
}

pub(super) fn run(args: &HuntArgs) -> Result<ExitCode> {
    refuse_workload(&args.select)?;
    let filter = followed(&args.select)?;
    // A hunt filters by the process that opens a connection, not by the owner of the listener.
    let hunt = Hunt { processes: filter.processes, rate: args.rate };
    let filter = Filter { processes: Processes::default(), ..filter };
    let open = || {
        let output = session::output(args.output.as_deref())?;
        let format = format(args, &output);
        Ok(Session {
            all_states: false,
            resets: false,
            filter,
            kernel: &args.kernel,
            cmdline: false,
            nat: false,
            snapshot: false,
            thresholds: Some(&args.threshold),
            hunt: Some(hunt),
            settings: pipeline::Settings {
                limits: Limits { duration: args.duration, count: None },
                metrics: None,
                leakers: 0,
                labels: MetricLabels::default(),
                nap: pipeline::SHORT_NAP,
            },
            pin: None,
            host: None,
            watch_cluster: None,
            notifier: None,
            open: session::direct(output, format, &StreamArgs::default()),
        })
    };
    session::run(open, &args.kernel)
}

fn format(args: &HuntArgs, output: &Output) -> Box<dyn Format> {
    let default = if output.is_terminal() { HuntFormat::Text } else { HuntFormat::Json };
    let report = |style| Box::new(HuntReport::new(style));
    match args.format.unwrap_or(default) {
        HuntFormat::Text => report(HuntStyle::Text),
        HuntFormat::Folded => report(HuntStyle::Folded),
        HuntFormat::Svg => report(HuntStyle::Svg),
        HuntFormat::Json => Box::new(Json::default()),
    }
}
