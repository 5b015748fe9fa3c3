//! `sockstate trace`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    filter,
    session::{self, Session},
    union,
};
use crate::{
    cli::{Colour, FormatName, TraceArgs},
    format::{Csv, Format, Json, Table},
    metrics::Server,
    model::Filter,
    pipeline::Limits,
    sinks::Output,
};

/// Runs it.
pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    let filter = Filter { from: union(&args.from), to: union(&args.to), ..filter(&args.select)? };
    let open = || {
        let output = session::output(args.output.as_deref())?;
        Ok(Session {
            filter,
            kernel: &args.kernel,
            cmdline: args.cmdline,
            snapshot: args.snapshot,
            thresholds: (!args.no_stuck).then_some(&args.threshold),
            limits: Limits { duration: args.duration, count: args.count },
            hunt: None,
            metrics: args.metrics.map(Server::start).transpose()?,
            format: format(args, &output),
            output,
        })
    };
    session::run(open, args.kernel.alongside)
}

/// json for machines, table for people.
fn format(args: &TraceArgs, output: &Output) -> Box<dyn Format> {
    let default = if output.is_terminal() { FormatName::Table } else { FormatName::Json };
    match args.format.unwrap_or(default) {
        FormatName::Json => Box::new(Json::default()),
        FormatName::Csv => Box::new(Csv),
        FormatName::Table => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Box::new(Table::new(match args.color {
                Colour::Always => true,
                Colour::Never => false,
                Colour::Auto => output.is_terminal() && !no_color,
            }))
        }
    }
}
