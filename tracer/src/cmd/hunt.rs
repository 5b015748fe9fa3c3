//! `sockstate hunt`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    followed,
    session::{self, Session},
};
use crate::{
    cli::{HuntArgs, HuntFormat},
    format::{Format, HuntReport, HuntStyle, Json},
    kernel::Hunt,
    model::Filter,
    pipeline::{self, Limits},
    sinks::Output,
};

pub(super) fn run(args: &HuntArgs) -> Result<ExitCode> {
    let filter = followed(&args.select)?;
    // A hunt filters by the process that opens a connection, not by the owner of the listener.
    let hunt = Hunt { pids: filter.pids, comms: filter.comms, rate: args.rate };
    let filter = Filter { pids: Vec::new(), comms: Vec::new(), ..filter };
    let open = || {
        let output = session::output(args.output.as_deref())?;
        let format = format(args, &output);
        Ok(Session {
            filter,
            kernel: &args.kernel,
            cmdline: false,
            snapshot: false,
            thresholds: Some(&args.threshold),
            hunt: Some(hunt),
            settings: pipeline::Settings {
                limits: Limits { duration: args.duration, count: None },
                metrics: None,
                leakers: 0,
                nap: pipeline::SHORT_NAP,
            },
            pin: None,
            open: session::direct(output, format),
        })
    };
    session::run(open, args.kernel.alongside)
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
