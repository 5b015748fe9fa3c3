//! `sockstate record`: writes records into a compressed file, which the viewers read.

use std::{
    io::{BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;

use super::{
    feed::{Feed, Wanted},
    only_of_connections,
};
use crate::{
    cli::{FilterArgs, KernelArgs, RunArgs, StreamArgs, StuckRules},
    files,
};

/// Level of zstd: fast enough for any load.
const LEVEL: i32 = 3;
/// How often the file is flushed: a crash loses at most the records of this time.
const FLUSH: Duration = Duration::from_secs(1);

pub(super) const EXAMPLES: &str = "\
Examples:
  sockstate record --duration 10m night.zst
      all transitions of ten minutes, and the existing sockets
  sockstate replay night.zst
      show it as `sockstate` shows a trace
  sockstate replay --speed 10 --to CLOSE_WAIT night.zst
      ten times as fast, only these transitions
  sockstate report night.zst -o night.html
      write an HTML report";

/// Record every transition into a compressed file.
///
/// replay, stuck, diagram, timeline, top and report read the file without root.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct RecordArgs {
    /// The file to write; an existing one is replaced.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
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

pub(super) fn run(args: &RecordArgs) -> Result<ExitCode> {
    only_of_connections(&args.stream)?;
    let path = args.file.display();
    let file = files::create(&args.file).with_context(|| format!("cannot open {path} for writing"))?;
    let wanted = Wanted {
        run: args.run.clone(),
        stuck: args.stuck.clone(),
        filter: args.filter.clone(),
        kernel: args.kernel.clone(),
        stream: args.stream.clone(),
    };
    let mut feed = Feed::live(wanted)?;
    let failed = || format!("cannot write to {path}");
    let mut out = zstd::Encoder::new(BufWriter::new(file), LEVEL).with_context(failed)?;
    let mut line = Vec::new();
    let mut flushed_at = Instant::now();
    let (mut records, mut bytes) = (0_u64, 0_u64);
    loop {
        if !feed.is_ready() && (flushed_at.elapsed() >= FLUSH || !feed.wait(FLUSH)?) {
            out.flush().with_context(failed)?;
            flushed_at = Instant::now();
        }
        if !feed.next(&mut line)? {
            break;
        }
        out.write_all(&line).with_context(failed)?;
        records += 1;
        bytes += line.len() as u64;
    }
    out.finish().and_then(|mut file| file.flush()).with_context(failed)?;
    if std::io::stderr().is_terminal() {
        message!(info: "{records} records, {bytes} bytes before compression, in {path}");
    }
    Ok(ExitCode::SUCCESS)
}
