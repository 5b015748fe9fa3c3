//! `sockstate trace`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    colours, only_csv,
    session::{self, Session},
    transition_filter,
};
use crate::{
    cli::TraceArgs,
    format::{Format, FormatName, FormatOptions},
    sinks::Output,
};

pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    only_csv(args.escape_formulas, args.format)?;
    let filter = transition_filter(&args.filter)?;
    let open = || {
        let output = session::output(args.output.as_deref())?;
        let format = format(args, &output);
        Session::new(filter, &args.run, &args.stuck, &args.kernel, session::direct(output, format))
    };
    session::run(open, args.kernel.alongside)
}

/// The chosen format; by default a table on a terminal, otherwise JSON.
fn format(args: &TraceArgs, output: &Output) -> Box<dyn Format> {
    let is_terminal = output.is_terminal();
    let options =
        FormatOptions { colour: colours(args.color, is_terminal), escape_formulas: args.escape_formulas };
    args.format.unwrap_or_else(|| FormatName::default(is_terminal)).make(options)
}
