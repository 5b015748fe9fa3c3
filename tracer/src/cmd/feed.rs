//! Records for those who look at them: of a recording, or of a tracer in a thread of its own, through a pipe. The reader sees the
//! same either way, and only what is written.

use std::{
    io::{BufRead, BufReader, PipeReader},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    Failure,
    session::{self, Session},
    transitions,
};
use crate::{
    cli::{FilterArgs, KernelArgs, RunArgs, SelectArgs, StuckRules},
    format::Json,
    model::Record,
    sinks::Output,
    source::{LONGEST_LINE, Recording},
    wire::Parser,
};

/// Nobody sees the difference on a screen, and to look fifty times a second costs less than for each record.
const NAP: Duration = Duration::from_millis(20);

/// What a tracer for somebody who looks is told.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) run: RunArgs,
    pub(super) stuck: StuckRules,
    pub(super) filter: FilterArgs,
    pub(super) kernel: KernelArgs,
}

impl Wanted {
    /// All of these connections, until it is ended.
    pub(super) fn of(select: &SelectArgs, alongside: bool) -> Self {
        Self {
            run: RunArgs::default(),
            stuck: StuckRules::default(),
            filter: FilterArgs { select: select.clone(), ..FilterArgs::default() },
            kernel: KernelArgs { alongside, ..KernelArgs::default() },
        }
    }
}

/// Lets as much time pass as between the records, by a factor.
pub(super) struct Pace {
    speed: f64,
    latest_ns: Option<i64>,
}

impl Pace {
    pub(super) fn new(speed: f64) -> Self {
        Self { speed, latest_ns: None }
    }

    /// How long to wait for the record of this time.
    pub(super) fn until(&mut self, time_ns: i64) -> Duration {
        // Sockets that were there first are reported out of order, each as of when it was last seen to change.
        let latest_ns = self.latest_ns.unwrap_or(time_ns);
        let gap_ns = (time_ns - latest_ns).max(0);
        self.latest_ns = Some(latest_ns.max(time_ns));
        Duration::from_nanos(gap_ns as u64).div_f64(self.speed)
    }
}

/// Where records come from.
pub(super) enum Feed {
    /// A file.
    File(Recording),
    /// A tracer.
    Live(BufReader<PipeReader>, Option<JoinHandle<Result<ExitCode>>>),
}

impl Feed {
    /// Those that were written before.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self::File(Recording::open(path)?))
    }

    /// Those of this host, from now on, behind the sockets that exist.
    pub(super) fn live(mut wanted: Wanted) -> Result<Self> {
        wanted.run.snapshot = true;
        // Its errors are reported at once.
        transitions(&wanted.filter)?;
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let work = move || {
            let Wanted { run, stuck, filter, kernel } = &wanted;
            let open = || {
                let output = session::direct(Output::pipe(writer.into())?, Box::new(Json::default()));
                let mut session = Session::new(transitions(filter)?, run, stuck, kernel, output)?;
                session.settings.nap = NAP;
                Ok(session)
            };
            session::run(open, kernel.alongside)
        };
        let thread =
            thread::Builder::new().name("tracer".into()).spawn(work).context("cannot start a thread")?;
        Ok(Self::Live(BufReader::with_capacity(1 << 16, reader), Some(thread)))
    }

    /// Reads the next line instead of `line`; false at the end.
    ///
    /// # Errors
    /// It cannot be read, or the tracer has failed.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        match self {
            Self::File(recording) => Ok(recording.next(line)?),
            Self::Live(reader, thread) => {
                line.clear();
                // A last record may be cut where the tracer has ended before all of it was read.
                if reader.read_until(b'\n', line)? > 0 && line.ends_with(b"\n") {
                    return Ok(true);
                }
                match thread.take().map(JoinHandle::join) {
                    Some(Ok(result)) => result.map(|_| false),
                    Some(Err(_)) => anyhow::bail!("the tracer has failed"),
                    None => Ok(false),
                }
            }
        }
    }

    /// Whether bytes are there without waiting; a file never waits.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::File(_)) || matches!(self, Self::Live(reader, _) if !reader.buffer().is_empty())
    }

    /// Waits for `time` at most; whether something, or the end, is there.
    pub(super) fn wait(&self, time: Duration) -> Result<bool> {
        let Self::Live(reader, _) = self else { return Ok(true) };
        let time = Timespec::try_from(time)?;
        let mut pipe = [PollFd::new(reader.get_ref(), PollFlags::IN)];
        match poll(&mut pipe, Some(&time)) {
            // A signal: the caller looks again.
            Err(Errno::INTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Reads all that comes, and hands it on; says what it skipped.
    ///
    /// # Errors
    /// It cannot be read, is no recording, or the tracer has failed.
    pub(super) fn each(&mut self, mut take: impl FnMut(Record, &[u8]) -> Result<()>) -> Result<()> {
        let (mut parser, mut line) = (Parser::default(), Vec::new());
        while self.next(&mut line)? {
            let record = parser.parse(&line).map_err(|error| self.wrong(&error))?;
            if let Some(record) = record {
                take(record, &line)?;
            }
        }
        self.skipped().report();
        Ok(())
    }

    /// The lines that are skipped, also while another thread reads.
    pub(super) fn skipped(&self) -> Skipped {
        match self {
            Self::File(recording) => {
                Skipped { name: recording.name().to_owned(), lines: recording.skipped() }
            }
            Self::Live(..) => Skipped::default(),
        }
    }

    fn wrong(&self, error: &dyn std::fmt::Display) -> Failure {
        match self {
            Self::File(recording) => {
                Failure::usage(format!("{}, line {}: {error}", recording.name(), recording.line()))
            }
            Self::Live(..) => Failure::usage(error),
        }
    }
}

/// Lines of a recording that are too long.
#[derive(Default)]
pub(super) struct Skipped {
    name: String,
    lines: Arc<AtomicU64>,
}

impl Skipped {
    /// Says how many there are, if any.
    pub(super) fn report(&self) {
        match self.lines.load(Ordering::Relaxed) {
            0 => {}
            lines => message!(
                "{}: skipped {lines} lines of more than {} bytes, which no record has",
                self.name,
                LONGEST_LINE
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_once_whatever_the_order() {
        let mut pace = Pace::new(2.0);
        let seconds = [100, 40, 102, 60, 101, 106].map(|s| pace.until(s * 1_000_000_000).as_secs());
        assert_eq!(seconds, [0, 0, 1, 0, 0, 2]);
    }
}
