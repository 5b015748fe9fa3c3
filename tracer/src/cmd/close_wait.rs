//! `sockstate close-wait`: `stuck --state CLOSE_WAIT` under a shorter name.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::stuck::{self, EXAMPLES, StuckArgs};
use crate::model::{State, StateSet};

/// Show sockets that are stuck in CLOSE_WAIT.
///
/// The same as `stuck --state CLOSE_WAIT`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CloseWaitArgs {
    #[command(flatten)]
    pub stuck: StuckArgs,
}

pub(super) fn run(args: &CloseWaitArgs) -> Result<ExitCode> {
    stuck::run(&StuckArgs { state: vec![StateSet::from(State::CloseWait)], ..args.stuck.clone() })
}
