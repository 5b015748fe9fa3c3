//! A source of records for the viewers (`top`, `record`, `diagram --live`, ...): a recording, or a live tracer that runs in a
//! thread and is read through a pipe.

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
    transition_filter,
};
use crate::{
    cli::{FilterArgs, KernelArgs, RunArgs, SelectArgs, StreamArgs, StuckRules},
    format::Json,
    model::{Record, RecordKind, RecordKinds},
    sinks::Output,
    source::{LONGEST_LINE, Recording},
    wire::Parser,
};

/// How long the tracer of a viewer naps: a user does not see the delay, and fifty wake-ups a second cost less than one for each
/// record.
const NAP: Duration = Duration::from_millis(20);

/// The arguments of the live tracer.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) run: RunArgs,
    pub(super) stuck: StuckRules,
    pub(super) filter: FilterArgs,
    pub(super) kernel: KernelArgs,
    pub(super) stream: StreamArgs,
}

impl Wanted {
    /// Traces the selected connections without an end.
    pub(super) fn of(select: &SelectArgs, alongside: bool) -> Self {
        Self {
            run: RunArgs::default(),
            stuck: StuckRules::default(),
            filter: FilterArgs { select: select.clone(), ..FilterArgs::default() },
            kernel: KernelArgs { alongside, ..KernelArgs::default() },
            stream: StreamArgs::default(),
        }
    }
}

/// Replays records in their original timing, `speed` times as fast.
pub(super) struct Playback {
    speed: f64,
    latest_ns: Option<i64>,
}

impl Playback {
    pub(super) fn new(speed: f64) -> Self {
        Self { speed, latest_ns: None }
    }

    /// How long to wait for the record of this time.
    pub(super) fn until(&mut self, time_ns: i64) -> Duration {
        // Snapshots come first, each with the time of its last change, so times may go back.
        let latest_ns = self.latest_ns.unwrap_or(time_ns);
        let gap_ns = (time_ns - latest_ns).max(0);
        self.latest_ns = Some(latest_ns.max(time_ns));
        Duration::from_nanos(gap_ns as u64).div_f64(self.speed)
    }
}

/// A source of records.
pub(super) enum Feed {
    File(Recording),
    /// A tracer in a thread, and the pipe that it writes to.
    Live(BufReader<PipeReader>, Option<JoinHandle<Result<ExitCode>>>),
}

impl Feed {
    /// Opens a recording.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self::File(Recording::open(path)?))
    }

    /// Starts a tracer of this host, which writes existing sockets first.
    pub(super) fn live(mut wanted: Wanted) -> Result<Self> {
        wanted.run.snapshot = true;
        // Errors of the tracer are reported at once.
        transition_filter(&wanted.filter)?;
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let work = move || {
            let Wanted { run, stuck, filter, kernel, stream } = &wanted;
            let kinds = RecordKinds::of(&stream.kinds.records);
            let open = || {
                let json = Json::default().sampled(stream.sample);
                let output = session::direct(Output::pipe(writer.into())?, Box::new(json), stream);
                let mut session = Session::new(transition_filter(filter)?, run, stuck, kernel, output)?;
                session.settings.nap = NAP;
                session.all_states = kinds.contains(RecordKind::Connection);
                session.resets = kinds.contains(RecordKind::Reset);
                Ok(session)
            };
            session::run(open, kernel)
        };
        let thread =
            thread::Builder::new().name("tracer".into()).spawn(work).context("cannot start a thread")?;
        Ok(Self::Live(BufReader::with_capacity(1 << 16, reader), Some(thread)))
    }

    /// Reads the next line instead of `line`; false at the end.
    ///
    /// # Errors
    /// The recording cannot be read, or the tracer has failed.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        match self {
            Self::File(recording) => Ok(recording.next(line)?),
            Self::Live(reader, thread) => {
                line.clear();
                // If the tracer has ended, the last record may be incomplete.
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

    /// Whether a read would not wait. A file never waits.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::File(_)) || matches!(self, Self::Live(reader, _) if !reader.buffer().is_empty())
    }

    /// Waits up to `time` for data or the end. Returns whether there is any.
    pub(super) fn wait(&self, time: Duration) -> Result<bool> {
        let Self::Live(reader, _) = self else { return Ok(true) };
        let time = Timespec::try_from(time)?;
        let mut pipe = [PollFd::new(reader.get_ref(), PollFlags::IN)];
        match poll(&mut pipe, Some(&time)) {
            // After a signal the caller tries again.
            Err(Errno::INTR) => Ok(false),
            ready => Ok(ready? > 0),
        }
    }

    /// Passes all records to `take`, and reports skipped lines.
    ///
    /// # Errors
    /// The file cannot be read or is not a recording, or the tracer has failed.
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

    /// The counter of skipped lines, which another thread may use while this one reads.
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

/// The count of lines that were too long.
#[derive(Default)]
pub(super) struct Skipped {
    name: String,
    lines: Arc<AtomicU64>,
}

impl Skipped {
    /// Writes a message if lines were skipped.
    pub(super) fn report(&self) {
        match self.lines.load(Ordering::Relaxed) {
            0 => {}
            lines => message!(
                "{}: skipped {lines} lines longer than {} bytes; no record is that long",
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
        let mut playback = Playback::new(2.0);
        let seconds = [100, 40, 102, 60, 101, 106].map(|s| playback.until(s * 1_000_000_000).as_secs());
        assert_eq!(seconds, [0, 0, 1, 0, 0, 2]);
    }
}
