//! The subcommands: they connect the other modules, and turn errors into messages and exit codes.

mod close_wait;
mod command_line;
mod completions;
mod detach;
mod diagram;
mod doctor;
mod explain;
mod feed;
mod hunt;
mod lock;
mod look;
mod man;
mod memory;
mod record;
mod reload;
mod replay;
mod report;
mod reread;
mod run;
mod secrets;
mod session;
mod sink_host;
mod sink_process;
mod sink_reach;
mod sinks;
mod sockets;
mod stuck;
mod timeline;
mod top;
mod trace;
mod verify;

use std::{ffi::OsString, path::Path, process::ExitCode, rc::Rc, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
pub use command_line::command;
pub use man::page as man_page;

use crate::{
    cli::{Colour, FilterArgs, SelectArgs, StreamArgs},
    display::endpoint,
    enrich::{Cgroups, Netns},
    files,
    filter::{Filter, Place, PlaceArgs},
    format::FormatName,
    kernel::KernelError,
    messages,
    model::{ConnId, RecordKind, printable},
    route::Router,
    sinks::process::ARGUMENT,
    story::{ConnHistory, MAX_STEPS, Story},
};

/// Traces every TCP state transition of this host, live, with the process that owns the socket.
#[derive(Debug, Parser)]
#[command(name = "sockstate", version, after_long_help = trace::EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one, trace.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of trace.
    #[command(flatten)]
    pub trace: trace::TraceArgs,
}

/// Lists the subcommands: the name in CamelCase, and the type of the arguments in the file of the subcommand. The file
/// also has `run`; the doc comment of the type is the help text of the subcommand.
macro_rules! subcommands {
    ($($name:ident($file:ident::$args:ident),)*) => {
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $($name(Box<$file::$args>),)*
        }

        impl Command {
            fn run(&self) -> Result<ExitCode> {
                match self {
                    $(Self::$name(args) => $file::run(args),)*
                }
            }
        }
    };
}

// In the order of `sockstate --help`.
subcommands! {
    Trace(trace::TraceArgs),
    Run(run::DaemonArgs),
    Detach(detach::DetachArgs),
    Stuck(stuck::StuckArgs),
    CloseWait(close_wait::CloseWaitArgs),
    Sockets(sockets::SocketsArgs),
    Hunt(hunt::HuntArgs),
    Record(record::RecordArgs),
    Replay(replay::ReplayArgs),
    Diagram(diagram::DiagramArgs),
    Timeline(timeline::TimelineArgs),
    Report(report::ReportArgs),
    Top(top::TopArgs),
    Explain(explain::ExplainArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Exit codes; `trace.rs` explains them to users.
pub mod exit {
    /// The output failed, `doctor` found that nothing works, or any other error.
    pub const FAILURE: u8 = 1;
    /// Bad arguments.
    pub const USAGE: u8 = 2;
    /// The kernel cannot trace.
    pub const KERNEL: u8 = 3;
    /// Privileges are missing.
    pub const PRIVILEGE: u8 = 4;
    /// Another daemon is tracing, and this instance is a daemon, too.
    pub const SECOND: u8 = 5;
}

/// How long the process waits at its end for a standard error that blocks.
const LAST_MESSAGES: Duration = Duration::from_millis(500);

/// An error with the exit code that belongs to it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl ToString) -> Self {
        Self { code: exit::USAGE, message: message.to_string() }
    }
}

impl From<KernelError> for Failure {
    fn from(error: KernelError) -> Self {
        let code = match error {
            KernelError::Privilege { .. } | KernelError::Refused { .. } => exit::PRIVILEGE,
            KernelError::Btf(_) | KernelError::Unsupported { .. } | KernelError::Adopt { .. } => exit::KERNEL,
        };
        Self { code, message: error.to_string() }
    }
}

/// Runs the command line: the program's name, then its arguments.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::unwind::abort_on_panic();
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|argument| argument == ARGUMENT) {
        return sink_process::main();
    }
    let cli = command_line::parse(args);
    let result = cli.command.as_ref().map_or_else(|| trace::run(&cli.trace), Command::run);
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            message!(error: "{}", chain(&error));
            let code = error.downcast_ref::<Failure>().map_or(exit::FAILURE, |failure| failure.code);
            ExitCode::from(code)
        }
    };
    messages::flush(LAST_MESSAGES);
    code
}

/// An error with its causes. Many errors have the text of their cause already.
fn chain(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Refuses a filter by what only a daemon knows.
fn refuse_workload(args: &SelectArgs) -> Result<(), Failure> {
    if args.workloads.workload.is_empty() {
        return Ok(());
    }
    Err(Failure::usage(
        "only `sockstate run` with [kubernetes] knows the workload of a pod: use --pod 'NAME-*', or the filter of the \
         configuration",
    ))
}

/// The filter for a look at existing sockets: names and paths are resolved now.
fn filter(args: &SelectArgs) -> Result<Filter, Failure> {
    let PlaceArgs { netns, cgroup } = &args.place;
    let netns = netns.as_deref().map(Netns::find).transpose().map_err(Failure::usage)?;
    let tree = |path: &str| Cgroups::find(Path::new("/"))?.tree(path);
    let cgroup = cgroup.as_deref().map(tree).transpose().map_err(Failure::usage)?;
    Ok(filter_at(args, Place { netns, named_netns: None, cgroup }))
}

/// The filter for a command that runs for some time: names and paths may lead to something that is created later.
fn followed(args: &SelectArgs) -> Result<Filter, Failure> {
    let PlaceArgs { netns, cgroup } = &args.place;
    let netns = netns.as_deref().map(Netns::follow).transpose().map_err(Failure::usage)?;
    let tree = |path: &str| Cgroups::find(Path::new("/"))?.tree_or_future(path);
    let cgroup = cgroup.as_deref().map(tree).transpose().map_err(Failure::usage)?;
    let (netns, named_netns) = match netns {
        Some(Netns::Inode(inode)) => (Some(inode), None),
        Some(Netns::Named(name)) => (None, Some(Rc::new(name))),
        None => (None, None),
    };
    Ok(filter_at(args, Place { netns, named_netns, cgroup }))
}

fn filter_at(args: &SelectArgs, place: Place) -> Filter {
    Filter {
        ends: args.ends.clone(),
        processes: args.processes.clone(),
        place,
        workloads: args.workloads.clone(),
        ..Filter::default()
    }
}

/// The filter of a command that traces, and does not ask the API server of Kubernetes.
fn transition_filter(args: &FilterArgs) -> Result<Filter, Failure> {
    refuse_workload(&args.select)?;
    daemon_filter(args)
}

/// The filter of [`followed`], with states.
fn daemon_filter(args: &FilterArgs) -> Result<Filter, Failure> {
    Ok(with_states(args, followed(&args.select)?))
}

fn with_states(args: &FilterArgs, filter: Filter) -> Filter {
    Filter { states: (&args.states).into(), ..filter }
}

/// Messages about the network namespace and the cgroup that a filter names, if they do not exist yet.
fn awaited(filter: &Filter) -> Vec<String> {
    let name = filter.place.named_netns.iter().filter(|name| name.now().is_none());
    let cgroup = filter.place.cgroup.iter().filter(|tree| tree.id == 0);
    name.map(|name| format!("network namespace {}", name.path().display()))
        .chain(cgroup.map(|tree| format!("cgroup {}", tree.path)))
        .map(|what| format!("waiting for {what}, which does not exist yet"))
        .collect()
}

/// Whether to use colours.
fn colours(choice: Colour, is_terminal: bool) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match choice {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => is_terminal && !no_color,
    }
}

/// The width of the terminal that shows standard output; `None` if that is no terminal, or has no width.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Refuses `--escape-formulas` for formats other than CSV.
fn only_csv(escape_formulas: bool, format: Option<FormatName>) -> Result<(), Failure> {
    if escape_formulas && format.is_none_or(|format| format.name != "csv") {
        return Err(Failure::usage("--escape-formulas needs --format csv"));
    }
    Ok(())
}

/// Refuses `--interim` without records of connections.
fn only_of_connections(stream: &StreamArgs) -> Result<(), Failure> {
    if stream.interim.is_some() && !stream.kinds.records.contains(&RecordKind::Connection) {
        return Err(Failure::usage(
            "--interim reports connections that go on: it needs --records connections",
        ));
    }
    Ok(())
}

/// Limit of memory for the connections of a recording, approximately.
const MAX_STORY_BYTES: usize = 1 << 30;

/// Limit of connections of a recording that a filter cannot decide on yet.
const MAX_WAITING: usize = 1 << 20;

/// The error for a recording with too many open connections.
fn too_large(path: &Path, story_is_full: bool) -> Failure {
    if !story_is_full {
        return Failure::usage(format!(
            "{}: more than {MAX_WAITING} connections of this recording cannot be matched with the filter yet; use another one, for \
             example --port or --netns",
            path.display()
        ));
    }
    Failure::usage(format!(
        "{}: the open connections of this recording take more than {} MiB of memory; select some of them, for example with --port or \
                 --netns",
        path.display(),
        MAX_STORY_BYTES >> 20
    ))
}

/// Reads the selected connections of a recording.
fn story(path: &Path, select: &SelectArgs) -> Result<Story> {
    let mut story = Story::within(MAX_STORY_BYTES);
    let mut router = Router::new(filter(select)?);
    feed::Feed::open(path)?.each(|record, _| {
        router.route(&record, |record| story.record(record));
        let is_full = story.is_full() || router.waiting() > MAX_WAITING;
        if is_full { Err(too_large(path, story.is_full()).into()) } else { Ok(()) }
    })?;
    if story.left_out > 0 {
        message!(
            "{}: {} closed connections are left out, because all connections would take more than {} MiB of memory",
            path.display(),
            story.left_out,
            MAX_STORY_BYTES >> 20
        );
    }
    if story.left_out_steps > 0 {
        message!(
            "{}: {} steps of connections with more than {MAX_STEPS} steps are left out",
            path.display(),
            story.left_out_steps
        );
    }
    Ok(story)
}

/// A title: file, host, number of transitions, duration.
fn story_title(story: &Story, path: &Path) -> String {
    let host = story.host.as_ref().map(|(host, _)| format!("{host}, ")).unwrap_or_default();
    let seconds = (story.end_ns - story.begin_ns) as f64 / 1e9;
    format!("{}: {host}{} transitions in {seconds:.0} s", path.display(), story.transitions)
}

/// Finds the connection with the id that the user has given.
fn history<'a>(story: &'a Story, conn: &str, path: &Path) -> Result<&'a ConnHistory, Failure> {
    let history = u64::from_str_radix(conn, 16).ok().and_then(|conn| story.histories.get(&ConnId(conn)));
    history.ok_or_else(|| Failure::usage(format!("{} has no connection {conn}", path.display())))
}

/// A title: owner, role, ends, id.
fn history_title(history: &ConnHistory) -> String {
    let tuple = &history.tuple;
    let (local, remote) =
        (endpoint(tuple.local, tuple.local_port), endpoint(tuple.remote, tuple.remote_port));
    let owner = history.subject.owner.as_ref();
    let owner = owner.map(|owner| format!("{} ({}), ", owner.comm, owner.pid())).unwrap_or_default();
    let role = history.role.map(|role| format!("{}, ", role.name())).unwrap_or_default();
    printable(&format!("{owner}{role}{local} - {remote}, connection {}", history.conn))
}

/// Writes to a file, or to standard output.
fn write(path: Option<&Path>, text: &str) -> Result<()> {
    use std::io::Write;

    use anyhow::Context;
    match path {
        Some(path) => {
            let written = files::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))
        }
        None => Ok(print([text])?),
    }
}

/// Writes to standard output. Ends the process if the reader has closed the pipe.
fn print(pieces: impl IntoIterator<Item = impl AsRef<str>>) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let written = pieces.into_iter().try_for_each(|piece| out.write_all(piece.as_ref().as_bytes()));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result,
    }
}
