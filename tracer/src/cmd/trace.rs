//! `sockstate trace`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::{
    Failure, colours, only_csv, only_of_connections,
    session::{self, Session},
    terminal_width, transition_filter,
};
use crate::{
    cli::{Colour, FilterArgs, KernelArgs, RunArgs, StreamArgs, StuckRules},
    format::{Format, FormatName, FormatOptions},
    model::{RecordKind, RecordKinds},
    sinks::Output,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  sockstate
      every transition, live
  sockstate --to CLOSE_WAIT
      connections that the peer has closed
  sockstate --local-port 443 --format json
      one service, as NDJSON
  sockstate --comm nginx --snapshot
      one program, existing sockets first
  sockstate --remote 10.0.0.0/8 --output t.json
      one network, into a file
  sockstate stuck
      stuck sockets, holders, reasons
  sockstate sockets --state CLOSE_WAIT
      like ss, for all namespaces, with ages and holders
  sockstate top
      a live screen
  sockstate explain CLOSE_WAIT
      what a state means, and who must act
  sockstate doctor
      what works here, and what to do about the rest

Exit status:
  0  ended by a signal, --duration, --count or a closed pipe
  1  the output failed; doctor: tracing does not work
  2  bad arguments
  3  this kernel cannot trace
  4  privileges are missing
  5  run: another daemon is tracing";

/// Trace transitions (what plain `sockstate` does).
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct TraceArgs {
    /// Format of the output [default: table on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<FormatName>,
    /// In CSV, put ' before cells that a spreadsheet would read as a formula: =, +, -, @, tab.
    #[arg(long, help_heading = "Output")]
    pub escape_formulas: bool,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the table; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    #[command(flatten)]
    pub stream: StreamArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub stuck: StuckRules,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub kernel: KernelArgs,
}

pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    only_csv(args.escape_formulas, args.format)?;
    only_of_connections(&args.stream)?;
    let kinds = RecordKinds::of(&args.stream.kinds.records);
    if let Some(problem) = args.format.and_then(|format| format.problem(kinds)) {
        let todo = "name one of the two with '--records', or choose another '--format'";
        return Err(Failure::usage(format!("{problem}: {todo}")).into());
    }
    let filter = transition_filter(&args.filter)?;
    let open = || {
        let output = session::output(args.output.as_deref())?;
        let format = format(args, kinds, &output);
        let output = session::direct(output, format, &args.stream);
        let session = Session::new(filter, &args.run, &args.stuck, &args.kernel, output)?;
        let all_states = kinds.contains(RecordKind::Connection);
        Ok(Session { all_states, resets: kinds.contains(RecordKind::Reset), ..session })
    };
    session::run(open, &args.kernel)
}

/// The chosen format; by default a table on a terminal, otherwise JSON.
fn format(args: &TraceArgs, kinds: RecordKinds, output: &Output) -> Box<dyn Format> {
    let is_terminal = output.is_terminal();
    let options = FormatOptions {
        colour: colours(args.color, is_terminal),
        width: is_terminal.then_some(terminal_width),
        escape_formulas: args.escape_formulas,
        sample: args.stream.sample,
        ..FormatOptions::of(kinds)
    };
    args.format.unwrap_or_else(|| FormatName::default(is_terminal)).make(options)
}
