//! `sockstate top`.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Args, builder::PossibleValuesParser};
use ratatui::{
    DefaultTerminal,
    crossterm::{
        event::{self, DisableMouseCapture, EnableMouseCapture, Event},
        execute,
    },
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{
    Failure, MAX_STORY_BYTES, MAX_WAITING, colours,
    feed::{Feed, Playback, Wanted},
    filter, too_large,
};
use crate::{
    cli::{Colour, SelectArgs, StuckRules},
    examiner::Examiner,
    explain::Texts,
    filter::Filter,
    kernel,
    model::{ConnId, Owner, Record, Threshold},
    pipeline::{monotonic_ns, now_ns},
    route::Router,
    source::{CounterReader, Counters, SocketKey},
    tui::App,
    values::{parse_speed, parse_threshold},
    wire::Parser,
};

/// Bytes of lines in one block.
const BLOCK: usize = 64 << 10;
/// Limit of waiting blocks. When it is reached, the tracer waits, and its large ring takes the events.
const WAITING: usize = 64;
/// Minimum time between two redraws.
const FRAME: Duration = Duration::from_millis(200);
/// How long the loop reads records before it handles keys.
const TURN: Duration = Duration::from_millis(50);

/// Lines of records, or the error that ends them.
type Block = Result<Vec<u8>>;

const EXAMPLES: &str = "\
Examples:
  sockstate top
      this host; ? shows the keys
  sockstate top --comm nginx
      one program
  sockstate top --from night.zst --speed 10
      a recording, ten times as fast";

/// Watch the sockets of this host or of a recording.
///
/// States, rates, leaking processes, each socket's history, and what to do.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// Show this recording instead of this host.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Play in real time (1), or FACTOR times as fast [default: without waiting].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed, requires = "from")]
    pub speed: Option<f64>,
    /// Do not ask whether a daemon is tracing.
    #[arg(long, conflicts_with = "from")]
    pub alongside: bool,
    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, conflicts_with = "from")]
    pub threshold: Vec<Threshold>,
    /// Language of explanations [default: the language of the locale, or en].
    #[arg(long, value_name = "LANG", value_parser = PossibleValuesParser::new(Texts::CODES))]
    pub lang: Option<String>,
    #[command(flatten)]
    pub select: SelectArgs,
}

pub(super) fn run(args: &TopArgs) -> Result<ExitCode> {
    if !io::stdout().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal; use `sockstate stuck` or `sockstate sockets` without one",
        )
        .into());
    }
    let texts = args.lang.as_deref().map_or_else(Texts::of_locale, Texts::of);
    let (source, feed) = match &args.from {
        Some(path) => (path.display().to_string(), Feed::open(path)?),
        None => ("live".to_owned(), Feed::live(wanted(args))?),
    };
    // A recording says nothing about the sockets of this host.
    let examiner = match args.from {
        Some(_) => Examiner::default(),
        None => Examiner::start().context("cannot start a thread")?,
    };
    let counters = match args.from {
        Some(_) => CounterReader::default(),
        None => CounterReader::start(monotonic_ns).context("cannot start a thread")?,
    };
    // Only the threads of the tracer, of the examiner and of the counters need capabilities.
    if let Err(error) = kernel::drop_privileges() {
        message!("cannot drop capabilities: {error}");
    }
    let skipped = feed.skipped();
    let (sender, blocks) = sync_channel(WAITING);
    let speed = args.speed;
    thread::Builder::new().name("hang-up".into()).spawn(end_with_terminal)?;
    thread::Builder::new().name("feed".into()).spawn(move || read(feed, speed, &sender))?;
    // Messages of the tracer's start must appear before the screen covers the terminal.
    let Ok(first) = blocks.recv() else { return Ok(ExitCode::SUCCESS) };
    let mut screen = Screen {
        app: App::new(source, texts, colours(Colour::Auto, true)),
        parser: Parser::default(),
        // The tracer has filtered, and follows names.
        router: Router::new(if args.from.is_some() { filter(&args.select)? } else { Filter::default() }),
        is_live: args.from.is_none(),
        end_ns: 0,
        examiner,
        counters,
    };
    if args.from.is_some() {
        screen.app.bound(MAX_STORY_BYTES);
    }
    screen.take(&first?)?;
    let mut terminal = ratatui::try_init().context("cannot use this terminal")?;
    // Without a mouse there are keys.
    let _ = execute!(io::stdout(), EnableMouseCapture);
    let result = screen.run(&mut terminal, &blocks);
    let _ = execute!(io::stdout(), DisableMouseCapture);
    ratatui::restore();
    skipped.report();
    result.map(|()| ExitCode::SUCCESS)
}

fn wanted(args: &TopArgs) -> Wanted {
    let stuck = StuckRules { threshold: args.threshold.clone(), no_stuck: false };
    Wanted { stuck, ..Wanted::of(&args.select, args.alongside) }
}

/// Hands over whole lines; a recording's at the pace that they were written at, where that is wanted.
fn read(mut feed: Feed, speed: Option<f64>, sender: &SyncSender<Block>) {
    let (mut line, mut block) = (Vec::new(), Vec::new());
    let mut pace = speed.map(|speed| (Playback::new(speed), Parser::default()));
    loop {
        match feed.next(&mut line) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        }
        let mut waits = false;
        if let Some((pace, parser)) = &mut pace
            && let Ok(Some(record)) = parser.parse(&line)
        {
            let time = pace.until(record.time_ns());
            waits = !time.is_zero();
            if waits && !block.is_empty() && sender.send(Ok(std::mem::take(&mut block))).is_err() {
                return;
            }
            thread::sleep(time);
        }
        block.extend_from_slice(&line);
        let is_due = waits || block.len() >= BLOCK || matches!(feed, Feed::Live(..)) && !feed.is_ready();
        if is_due && sender.send(Ok(std::mem::take(&mut block))).is_err() {
            return;
        }
    }
    // The receiver learns of the end when the channel closes.
    let _ = sender.send(Ok(block));
}

/// What is shown, and what it is made of.
struct Screen {
    app: App,
    parser: Parser,
    router: Router,
    is_live: bool,
    end_ns: i64,
    /// Looks at the socket of the detail view.
    examiner: Examiner,
    /// Reads the counters of the socket of the detail view.
    counters: CounterReader<ConnId>,
}

impl Screen {
    fn take(&mut self, block: &[u8]) -> Result<()> {
        for line in block.split_inclusive(|byte| *byte == b'\n') {
            let Some(record) = self.parser.parse(line).map_err(Failure::usage)? else { continue };
            let app = &mut self.app;
            let mut show = |record: &Record| {
                self.end_ns = self.end_ns.max(record.time_ns());
                app.record(record);
            };
            // The live tracer has already applied the filter.
            if self.is_live {
                show(&record);
            } else {
                self.router.route(&record, show);
            }
        }
        let is_full = self.app.is_full() || self.router.waiting() > MAX_WAITING;
        if is_full { Err(too_large(self.app.source().as_ref(), self.app.is_full()).into()) } else { Ok(()) }
    }

    fn now_ns(&self) -> i64 {
        if self.is_live { now_ns() } else { self.end_ns }
    }

    /// Asks about the socket of the detail view, and takes answers; true if there was one.
    fn examine(&mut self) -> bool {
        if self.is_live
            && let Some(question) = self.app.question()
        {
            self.examiner.enqueue(question);
        }
        let answers = self.examiner.examined();
        let is_new = !answers.is_empty();
        answers.into_iter().for_each(|answer| self.app.answer(answer));
        self.count() || is_new
    }

    /// The same for the counters of this socket.
    fn count(&mut self) -> bool {
        let answer = self.counters.answer();
        let is_new = !answer.is_empty();
        for (conn, counters, read_ns) in answer {
            let traffic = if let Counters::Of(traffic) = counters { Some(traffic) } else { None };
            self.app.counted(conn, traffic, read_ns);
        }
        if self.counters.is_running()
            && !self.counters.is_busy()
            && let Some(conn) = self.app.uncounted()
            && let Some(netns) = conn.subject.netns
        {
            let pid = conn.subject.owner.as_ref().map(Owner::pid);
            self.counters.ask(vec![(conn.id, SocketKey { netns, pid, tuple: conn.tuple })]);
        }
        is_new
    }

    fn run(&mut self, terminal: &mut DefaultTerminal, blocks: &Receiver<Block>) -> Result<()> {
        self.app.second(self.now_ns());
        let (mut second_at, mut drawn_at) = (Instant::now(), None::<Instant>);
        let mut changed = true;
        let mut open = true;
        loop {
            let turn = Instant::now();
            while open && turn.elapsed() < TURN {
                match blocks.try_recv() {
                    Ok(block) => {
                        self.take(&block?)?;
                        changed = true;
                    }
                    Err(TryRecvError::Empty) => break,
                    // The tracer has ended after a signal.
                    Err(TryRecvError::Disconnected) if self.is_live => return Ok(()),
                    Err(TryRecvError::Disconnected) => {
                        open = false;
                        self.app.second(self.now_ns());
                        self.app.end();
                        changed = true;
                    }
                }
            }
            changed |= self.examine();
            if second_at.elapsed() >= Duration::from_secs(1) {
                second_at = Instant::now();
                self.app.second(self.now_ns());
                changed = true;
            }
            if changed && drawn_at.is_none_or(|at| at.elapsed() >= FRAME) {
                terminal.draw(|frame| self.app.draw(frame)).context("cannot draw")?;
                drawn_at = Some(Instant::now());
                changed = false;
            }
            while event::poll(if changed { FRAME / 4 } else { FRAME }).context("cannot read the keyboard")? {
                match event::read().context("cannot read the keyboard")? {
                    Event::Key(key) if self.app.key(key) => return Ok(()),
                    Event::Mouse(mouse) => self.app.mouse(mouse),
                    _ => {}
                }
                // Redraw at once after a key.
                terminal.draw(|frame| self.app.draw(frame)).context("cannot draw")?;
                drawn_at = Some(Instant::now());
                if turn.elapsed() >= FRAME {
                    break;
                }
            }
        }
    }
}

/// Ends the process when its terminal is closed: crossterm 0.29 reads the end of its input forever, and the tracer handles SIGHUP.
fn end_with_terminal() {
    let stdin = io::stdin();
    let gone = PollFlags::HUP | PollFlags::ERR;
    loop {
        let mut keyboard = [PollFd::new(&stdin, PollFlags::empty())];
        let polled = poll(&mut keyboard, None);
        if polled.is_ok() && keyboard[0].revents().intersects(gone) {
            // The terminal is gone, so there is nothing to restore.
            std::process::exit(0);
        }
        // poll() was interrupted by a signal.
        thread::sleep(FRAME);
    }
}
