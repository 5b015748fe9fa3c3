//! `sockstate trace`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    colours, only_csv,
    session::{self, Session},
    transitions,
};
use crate::{
    cli::{FormatName, TraceArgs},
    format::{Csv, EscapedCsv, Format, Json, Table},
    sinks::Output,
};

pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    only_csv(args.escape_formulas, args.format)?;
    let filter = transitions(&args.filter)?;
    let open = || {
        let output = session::output(args.output.as_deref())?;
        let format = format(args, &output);
        Session::new(filter, &args.run, &args.stuck, &args.kernel, session::direct(output, format))
    };
    session::run(open, args.kernel.alongside)
}

/// The chosen format; by default a table on a terminal, otherwise JSON.
fn format(args: &TraceArgs, output: &Output) -> Box<dyn Format> {
    let default = if output.is_terminal() { FormatName::Table } else { FormatName::Json };
    match args.format.unwrap_or(default) {
        FormatName::Json => Box::new(Json::default()),
        FormatName::Csv if args.escape_formulas => Box::new(EscapedCsv),
        FormatName::Csv => Box::new(Csv),
        FormatName::Table => Box::new(Table::new(colours(args.color, output.is_terminal()))),
    }
}
