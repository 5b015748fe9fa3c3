//! The subcommands: they wire the rooms together and turn errors into words and exit codes.

mod detach;
mod diagram;
mod doctor;
mod explain;
mod feed;
mod hunt;
mod lock;
mod look;
mod memory;
mod record;
mod reload;
mod replay;
mod report;
mod reread;
mod run;
mod session;
mod sinks;
mod sockets;
mod stuck;
mod timeline;
mod top;
mod trace;
mod verify;

use std::{path::Path, process::ExitCode, rc::Rc, time::Duration};

use clap::Parser;

use crate::{
    cli::{Cli, Colour, Command, FilterArgs, FormatName, SelectArgs},
    display::endpoint,
    enrich::{Cgroups, Netns},
    files,
    kernel::KernelError,
    messages,
    model::{ConnId, Filter, StateSet, printable},
    route::Router,
    story::{Life, MOST_STEPS, Story},
};

/// Exit codes; the same as in `cli.rs`'s help.
pub mod exit {
    /// The output failed, or `doctor` found that nothing works.
    pub const FAILURE: u8 = 1;
    /// Bad arguments.
    pub const USAGE: u8 = 2;
    /// This kernel cannot.
    pub const KERNEL: u8 = 3;
    /// Not permitted.
    pub const PRIVILEGE: u8 = 4;
    /// Another instance is tracing.
    pub const SECOND: u8 = 5;
}

/// How long the end waits for a standard error that takes nothing.
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
            KernelError::Privilege { .. } => exit::PRIVILEGE,
            KernelError::Btf(_) | KernelError::Unsupported { .. } => exit::KERNEL,
        };
        Self { code, message: error.to_string() }
    }
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    crate::unwind::abort_on_panic();
    let cli = Cli::parse();
    let result = match cli.command {
        None => trace::run(&cli.trace),
        Some(Command::Trace(args)) => trace::run(&args),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Detach(args)) => detach::run(&args),
        Some(Command::Stuck(args)) => stuck::run(&args),
        Some(Command::CloseWait(args)) => stuck::close_wait(*args),
        Some(Command::Hunt(args)) => hunt::run(&args),
        Some(Command::Sockets(args)) => sockets::run(&args),
        Some(Command::Record(args)) => record::run(&args),
        Some(Command::Replay(args)) => replay::run(&args),
        Some(Command::Diagram(args)) => diagram::run(&args),
        Some(Command::Timeline(args)) => timeline::run(&args),
        Some(Command::Report(args)) => report::run(&args),
        Some(Command::Top(args)) => top::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
    };
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            message!("{error:#}");
            let code = error.downcast_ref::<Failure>().map_or(exit::FAILURE, |failure| failure.code);
            ExitCode::from(code)
        }
    };
    messages::flush(LAST_MESSAGES);
    code
}

/// The filter that the arguments spell, for a look at what exists; names and paths become numbers.
fn filter(args: &SelectArgs) -> Result<Filter, Failure> {
    let netns = args.netns.as_deref().map(Netns::find).transpose().map_err(Failure::usage)?;
    let tree = |path: &str| Cgroups::find(Path::new("/"))?.tree(path);
    let cgroup = args.cgroup.as_deref().map(tree).transpose().map_err(Failure::usage)?;
    Ok(Filter { netns, cgroup, ..filter_of_ends(args) })
}

/// The same for what takes time: names and paths are followed, and may lead to something that is made later.
fn followed(args: &SelectArgs) -> Result<Filter, Failure> {
    let netns = args.netns.as_deref().map(Netns::follow).transpose().map_err(Failure::usage)?;
    let tree = |path: &str| Cgroups::find(Path::new("/"))?.tree_to_come(path);
    let cgroup = args.cgroup.as_deref().map(tree).transpose().map_err(Failure::usage)?;
    let filter = Filter { cgroup, ..filter_of_ends(args) };
    Ok(match netns {
        Some(Netns::Inode(inode)) => Filter { netns: Some(inode), ..filter },
        Some(Netns::Named(name)) => Filter { named_netns: Some(Rc::new(name)), ..filter },
        None => filter,
    })
}

fn filter_of_ends(args: &SelectArgs) -> Filter {
    Filter {
        ip_version: if args.ipv4 { Some(4) } else { args.ipv6.then_some(6) },
        ports: args.port.clone().unwrap_or_default(),
        local_ports: args.local_port.clone().unwrap_or_default(),
        remote_ports: args.remote_port.clone().unwrap_or_default(),
        local: args.local.clone(),
        remote: args.remote.clone(),
        pids: args.pid.clone(),
        comms: args.comm.clone(),
        ..Filter::default()
    }
}

/// A followed filter with states.
fn transitions(args: &FilterArgs) -> Result<Filter, Failure> {
    Ok(with_states(args, followed(&args.select)?))
}

fn with_states(args: &FilterArgs, filter: Filter) -> Filter {
    Filter { from: union(&args.from), to: union(&args.to), ..filter }
}

/// What a filter names and does not exist yet.
fn awaited(filter: &Filter) -> Vec<String> {
    let name = filter.named_netns.iter().filter(|name| name.now().is_none());
    let cgroup = filter.cgroup.iter().filter(|tree| tree.id == 0);
    name.map(|name| format!("network namespace {}", name.path().display()))
        .chain(cgroup.map(|tree| format!("cgroup {}", tree.path)))
        .map(|what| format!("waiting for {what}, which does not exist yet"))
        .collect()
}

fn union(sets: &[StateSet]) -> StateSet {
    sets.iter().fold(StateSet::default(), |all, set| all.union(*set))
}

/// Whether to colour what goes to a terminal, or does not.
fn colours(choice: Colour, is_terminal: bool) -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match choice {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => is_terminal && !no_color,
    }
}

/// Formulas are a matter of CSV.
fn only_csv(escape_formulas: bool, format: Option<FormatName>) -> Result<(), Failure> {
    if escape_formulas && format != Some(FormatName::Csv) {
        return Err(Failure::usage("--escape-formulas is for --format csv"));
    }
    Ok(())
}

/// Memory that the connections of a recording may take, about.
const MOST_STORY: usize = 1 << 30;

/// Connections of a recording that a filter cannot decide on.
const MOST_WAITING: usize = 1 << 20;

/// A recording has more connections that live than can be kept.
fn too_large(path: &Path) -> Failure {
    Failure::usage(format!(
        "{}: its open connections take more than {} MiB of memory; choose some, such as with --port or --netns",
        path.display(),
        MOST_STORY >> 20
    ))
}

/// Everything that a recording says of these connections.
fn story(path: &Path, select: &SelectArgs) -> anyhow::Result<Story> {
    let mut story = Story::within(MOST_STORY);
    let mut router = Router::new(filter(select)?);
    feed::Feed::open(path)?.each(|record, _| {
        router.route(&record, |record| story.record(record));
        let is_full = story.is_full() || router.waiting() > MOST_WAITING;
        if is_full { Err(too_large(path).into()) } else { Ok(()) }
    })?;
    if story.left_out > 0 {
        message!(
            "{}: {} connections that had ended are left out: all of them would take more than {} MiB of memory",
            path.display(),
            story.left_out,
            MOST_STORY >> 20
        );
    }
    if story.left_out_steps > 0 {
        message!(
            "{}: {} steps are left out, of connections with more than {MOST_STEPS}",
            path.display(),
            story.left_out_steps
        );
    }
    Ok(story)
}

/// What a recording is of.
fn story_title(story: &Story, path: &Path) -> String {
    let host = story.host.as_ref().map(|(host, _)| format!("{host}, ")).unwrap_or_default();
    let seconds = (story.end_ns - story.begin_ns) as f64 / 1e9;
    format!("{}: {host}{} transitions in {seconds:.0} s", path.display(), story.transitions)
}

/// The connection that the user has named.
fn life<'a>(story: &'a Story, conn: &str, path: &Path) -> Result<&'a Life, Failure> {
    let life = u64::from_str_radix(conn, 16).ok().and_then(|conn| story.lives.get(&ConnId(conn)));
    life.ok_or_else(|| Failure::usage(format!("no connection {conn} in {}", path.display())))
}

/// A connection's ends, and whose it is.
fn life_title(life: &Life) -> String {
    let tuple = &life.tuple;
    let (local, remote) =
        (endpoint(tuple.local, tuple.local_port), endpoint(tuple.remote, tuple.remote_port));
    let owner = life.subject.owner.as_ref();
    let owner = owner.map(|owner| format!("{} ({}), ", owner.comm, owner.pid())).unwrap_or_default();
    let role = life.role.map(|role| format!("{}, ", role.name())).unwrap_or_default();
    printable(&format!("{owner}{role}{local} - {remote}, connection {}", life.conn))
}

/// Writes to a file, or to standard output.
fn write(path: Option<&Path>, text: &str) -> anyhow::Result<()> {
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

/// Writes pieces to standard output; its reader may go away.
fn print(pieces: impl IntoIterator<Item = impl AsRef<str>>) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let written = pieces.into_iter().try_for_each(|piece| out.write_all(piece.as_ref().as_bytes()));
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result,
    }
}
