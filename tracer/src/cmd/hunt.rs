//! `sockstate hunt`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    filter,
    session::{self, Hunted, Session},
};
use crate::{
    cli::{HuntArgs, HuntFormat},
    format::{Format, HuntReport, HuntStyle, Json},
    kernel::Hunt,
    model::Filter,
    pipeline::Limits,
    sinks::Output,
};

/// Runs it.
pub(super) fn run(args: &HuntArgs) -> Result<ExitCode> {
    let filter = filter(&args.select)?;
    let (pids, comms) = (filter.pids.clone(), filter.comms.clone());
    let only = |list: &[u32]| if let [pid] = list { Some(*pid) } else { None };
    let hunt = Hunt {
        // Where several are named, all are taken and the others dropped behind the ring.
        pid: only(&pids),
        comm: if let [comm] = &comms[..] { Some(comm.clone()) } else { None },
        rate: args.rate,
    };
    // Who opens a connection counts here, not whose the listener is.
    let filter = Filter { pids: Vec::new(), comms: Vec::new(), ..filter };
    let open = || {
        let output = session::output(args.output.as_deref())?;
        Ok(Session {
            filter,
            kernel: &args.kernel,
            cmdline: false,
            snapshot: false,
            thresholds: Some(&args.threshold),
            limits: Limits { duration: args.duration, count: None },
            hunt: Some(Hunted { hunt, pids, comms }),
            format: format(args, &output),
            output,
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
