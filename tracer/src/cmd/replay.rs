//! `sockstate replay`: writes a recording as `trace` would have written it.

use std::{
    collections::VecDeque,
    io::{BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use anyhow::Result;
use clap::Args;

use super::{
    Failure, colours,
    feed::{Feed, Playback},
    filter, only_csv,
    record::EXAMPLES,
    terminal_width, with_states,
};
use crate::{
    cli::{Colour, FilterArgs, KindArgs},
    format::{Format, FormatName, FormatOptions},
    model::{ConnId, Record, RecordKind, RecordKinds},
    route::Router,
    values::parse_speed,
};

/// Limit of bytes of lines that wait for the filter's decision.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Show the records of a recording in the formats of `trace`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// A recording: the output of `record`, of `trace --format json`, or of a file sink; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Format of the output [default: table on a terminal, otherwise json: the lines of the recording].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<FormatName>,
    /// In CSV, put ' before cells that a spreadsheet would read as a formula: =, +, -, @, tab.
    #[arg(long, help_heading = "Output")]
    pub escape_formulas: bool,
    /// Colour the table; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// Play in real time (1), or FACTOR times as fast [default: without waiting].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed, help_heading = "Output")]
    pub speed: Option<f64>,
    #[command(flatten)]
    pub kinds: KindArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
}

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    only_csv(args.escape_formulas, args.format)?;
    let named = &args.kinds.records;
    let kinds = if named.is_empty() { RecordKinds::ALL } else { RecordKinds::of(named) };
    if let Some(problem) = args.format.and_then(|format| format.problem(RecordKinds::of(named))) {
        let todo = "name one of the two with '--records', or choose another '--format'";
        return Err(Failure::usage(format!("{problem}: {todo}")).into());
    }
    let mut feed = Feed::open(&args.file)?;
    let mut replay = Replay {
        kinds,
        router: Router::new(with_states(&args.filter, filter(&args.filter.select)?)),
        playback: args.speed.map(Playback::new),
        format: format(args, RecordKinds::of(named)),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        forgotten: 0,
        out: BufWriter::with_capacity(1 << 16, std::io::stdout().lock()),
    };
    let result = replay.header().and_then(|()| feed.each(|record, line| replay.record(&record, line)));
    if replay.forgotten > 0 {
        message!(
            "{} lines are left out: the filter could not decide on them while {} MiB of later lines waited",
            replay.forgotten,
            MAX_WAITING_BYTES >> 20
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

fn format(args: &ReplayArgs, kinds: RecordKinds) -> Box<dyn Format> {
    let is_terminal = std::io::stdout().is_terminal();
    let options = FormatOptions {
        colour: colours(args.color, is_terminal),
        width: is_terminal.then_some(terminal_width),
        escape_formulas: args.escape_formulas,
        ..FormatOptions::of(kinds)
    };
    args.format.unwrap_or_else(|| FormatName::default(is_terminal)).make(options)
}

struct Replay<W> {
    kinds: RecordKinds,
    router: Router,
    playback: Option<Playback>,
    format: Box<dyn Format>,
    /// Lines of connections that the filter cannot decide on yet, and their bytes.
    waiting: VecDeque<(ConnId, Vec<u8>)>,
    waiting_bytes: usize,
    /// Lines that were dropped because too many waited.
    forgotten: u64,
    out: W,
}

impl<W: Write> Replay<W> {
    fn header(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.format.header(&mut bytes);
        Ok(self.out.write_all(&bytes)?)
    }

    /// Writes a record, after the lines that waited for it.
    fn record(&mut self, record: &Record, line: &[u8]) -> Result<()> {
        if let Some(playback) = &mut self.playback {
            self.out.flush()?;
            thread::sleep(playback.until(record.time_ns()));
        }
        if !self.kinds.contains(RecordKind::of(record)) {
            return Ok(());
        }
        let conn = record.conn().map(|conn| conn.id);
        let mut bytes = Vec::new();
        let (format, waiting) = (&mut self.format, &mut self.waiting);
        let waiting_bytes = &mut self.waiting_bytes;
        let mut decided = false;
        self.router.route(record, |wanted| {
            decided = true;
            if !format.is_of_lines() {
                return format.record(0, wanted, &mut bytes);
            }
            if wanted.time_ns() == record.time_ns() {
                return format.line(wanted, line, &mut bytes);
            }
            let index = waiting.iter().position(|(of, _)| Some(*of) == conn);
            if let Some((_, line)) = index.and_then(|index| waiting.remove(index)) {
                *waiting_bytes -= line.len();
                format.line(wanted, &line, &mut bytes);
            }
        });
        if let (Record::Transition(_), Some(conn)) = (record, conn) {
            self.keep(conn, line, decided);
        }
        Ok(self.out.write_all(&bytes)?)
    }

    /// Keeps a transition that the filter cannot decide on until a later record of its connection decides.
    fn keep(&mut self, conn: ConnId, line: &[u8], decided: bool) {
        if self.router.is_waiting(conn) {
            if self.format.is_of_lines() {
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
        while self.waiting_bytes > MAX_WAITING_BYTES
            && let Some((_, oldest)) = self.waiting.pop_front()
        {
            self.waiting_bytes -= oldest.len();
            self.forgotten += 1;
        }
    }
}
