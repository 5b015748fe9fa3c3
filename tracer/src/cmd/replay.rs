//! `sockstate replay`: what `trace` would have said, of a recording.

use std::{
    collections::VecDeque,
    io::{BufWriter, IsTerminal, Write},
    process::ExitCode,
    thread,
};

use anyhow::Result;

use super::{
    colours,
    feed::{Feed, Pace},
    filter, only_csv, with_states,
};
use crate::{
    cli::{FormatName, ReplayArgs},
    format::{Csv, EscapedCsv, Format, Table},
    model::{ConnId, Record},
    route::Router,
};

/// Bytes of lines that wait for the filter's answer.
const MOST_WAITING: usize = 64 << 20;

/// Runs it.
pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    only_csv(args.escape_formulas, args.format)?;
    let mut feed = Feed::open(&args.file)?;
    let mut replay = Replay {
        router: Router::new(with_states(&args.filter, filter(&args.filter.select)?)),
        pace: args.speed.map(Pace::new),
        way: way(args),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        forgotten: 0,
        out: BufWriter::with_capacity(1 << 16, std::io::stdout().lock()),
    };
    let result = replay.header().and_then(|()| feed.each(|record, line| replay.record(&record, line)));
    if replay.forgotten > 0 {
        message!(
            "{} lines are missing: the filter could not decide on them before {} MiB of them waited",
            replay.forgotten,
            MOST_WAITING >> 20
        );
    }
    match result.and_then(|()| Ok(replay.out.flush()?)) {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// How records are written.
enum Way {
    /// As they were.
    Lines,
    /// Made again.
    Format(Box<dyn Format>),
}

fn way(args: &ReplayArgs) -> Way {
    let is_terminal = std::io::stdout().is_terminal();
    let default = if is_terminal { FormatName::Table } else { FormatName::Json };
    match args.format.unwrap_or(default) {
        FormatName::Json => Way::Lines,
        FormatName::Csv if args.escape_formulas => Way::Format(Box::new(EscapedCsv)),
        FormatName::Csv => Way::Format(Box::new(Csv)),
        FormatName::Table => Way::Format(Box::new(Table::new(colours(args.color, is_terminal)))),
    }
}

struct Replay<W> {
    router: Router,
    pace: Option<Pace>,
    way: Way,
    /// Lines of connections that the filter cannot decide on yet, and their bytes.
    waiting: VecDeque<(ConnId, Vec<u8>)>,
    waiting_bytes: usize,
    /// Lines that there was no room for.
    forgotten: u64,
    out: W,
}

impl<W: Write> Replay<W> {
    fn header(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        if let Way::Format(format) = &mut self.way {
            format.header(&mut bytes);
        }
        Ok(self.out.write_all(&bytes)?)
    }

    /// What waited for this record comes before it.
    fn record(&mut self, record: &Record, line: &[u8]) -> Result<()> {
        if let Some(pace) = &mut self.pace {
            self.out.flush()?;
            thread::sleep(pace.until(record.time_ns()));
        }
        let conn = record.conn().map(|conn| conn.id);
        let mut bytes = Vec::new();
        let (way, waiting) = (&mut self.way, &mut self.waiting);
        let waiting_bytes = &mut self.waiting_bytes;
        let mut decided = false;
        self.router.route(record, |wanted| {
            decided = true;
            match way {
                Way::Format(format) => format.record(0, wanted, &mut bytes),
                Way::Lines if wanted.time_ns() == record.time_ns() => bytes.extend_from_slice(line),
                Way::Lines => {
                    let at = waiting.iter().position(|(of, _)| Some(*of) == conn);
                    if let Some((_, line)) = at.and_then(|at| waiting.remove(at)) {
                        *waiting_bytes -= line.len();
                        bytes.extend(line);
                    }
                }
            }
        });
        if let (Record::Transition(_), Some(conn)) = (record, conn) {
            self.keep(conn, line, decided);
        }
        Ok(self.out.write_all(&bytes)?)
    }

    /// A transition that the filter cannot decide on yet waits for another of its connection.
    fn keep(&mut self, conn: ConnId, line: &[u8], decided: bool) {
        if self.router.is_waiting(conn) {
            if let Way::Lines = self.way {
                self.wait(conn, line);
            }
        } else if !decided {
            self.waiting.retain(|(of, line)| {
                let stays = *of != conn;
                self.waiting_bytes -= if stays { 0 } else { line.len() };
                stays
            });
        }
    }

    fn wait(&mut self, conn: ConnId, line: &[u8]) {
        self.waiting.push_back((conn, line.to_owned()));
        self.waiting_bytes += line.len();
        while self.waiting_bytes > MOST_WAITING
            && let Some((_, oldest)) = self.waiting.pop_front()
        {
            self.waiting_bytes -= oldest.len();
            self.forgotten += 1;
        }
    }
}
