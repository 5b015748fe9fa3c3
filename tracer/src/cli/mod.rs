//! The command line: clap's types, nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

mod examples;
mod people;

use examples::{
    DETACH_EXAMPLES, DIAGRAM_EXAMPLES, DOCTOR_EXAMPLES, EXAMPLES, EXPLAIN_EXAMPLES, HUNT_EXAMPLES,
    RECORD_EXAMPLES, RUN_EXAMPLES, SOCKETS_EXAMPLES, STUCK_EXAMPLES, TIMELINE_EXAMPLES, TOP_EXAMPLES,
};
pub use people::{
    DiagramArgs, DiagramFormat, ExplainArgs, RecordArgs, ReplayArgs, ReportArgs, TimelineArgs,
    TimelineFormat, TopArgs,
};

use crate::{
    config::{
        parse_duration, parse_duration_or_zero, parse_ports, parse_prefix, parse_ring_size, parse_states,
        parse_threshold,
    },
    model::{Ports, StateSet, Threshold},
};

/// Traces every TCP state transition of this host, live, with the process that owns the socket.
#[derive(Debug, Parser)]
#[command(name = "sockstate", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without one, trace.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace transitions (what plain `sockstate` does).
    #[command(after_help = EXAMPLES)]
    Trace(Box<TraceArgs>),
    /// Trace as a daemon: into every sink of a configuration file, each with its own format, filter and queue.
    #[command(after_help = RUN_EXAMPLES)]
    Run(DaemonArgs),
    /// End the kernel programs that a daemon with the key `pin` has left running.
    #[command(after_help = DETACH_EXAMPLES)]
    Detach(DetachArgs),
    /// Show the sockets that are stuck: since when, who holds them, why, and what to do. Needs no running tracer.
    #[command(after_help = STUCK_EXAMPLES)]
    Stuck(Box<StuckArgs>),
    /// The same for CLOSE_WAIT alone.
    #[command(after_help = STUCK_EXAMPLES)]
    CloseWait(Box<StuckArgs>),
    /// Show all TCP sockets of all network namespaces, with the age of their state and who holds them.
    #[command(after_help = SOCKETS_EXAMPLES)]
    Sockets(Box<SocketsArgs>),
    /// Find the code that opens what sticks: the call paths of connect and accept, by how many of their sockets are stuck.
    #[command(after_help = HUNT_EXAMPLES)]
    Hunt(Box<HuntArgs>),
    /// Record every transition into a file, compressed; replay, stuck, diagram, timeline, top and report read it again, without root.
    #[command(after_help = RECORD_EXAMPLES)]
    Record(Box<RecordArgs>),
    /// Show what a recording holds as `trace` would have.
    #[command(after_help = RECORD_EXAMPLES)]
    Replay(Box<ReplayArgs>),
    /// Draw the state machine, alone or with what a recording or this host's connections weigh it by.
    #[command(after_help = DIAGRAM_EXAMPLES)]
    Diagram(Box<DiagramArgs>),
    /// Show a recording's connections over time, a lane each; or one of them, step by step.
    #[command(after_help = TIMELINE_EXAMPLES)]
    Timeline(Box<TimelineArgs>),
    /// Make a page about a recording: states over time, leaks, who talks most, times in each state, the slowest closes.
    #[command(after_help = RECORD_EXAMPLES)]
    Report(Box<ReportArgs>),
    /// Watch the sockets of this host, or of a recording: states, rates, who leaks, each socket's way and what to do about it.
    #[command(after_help = TOP_EXAMPLES)]
    Top(Box<TopArgs>),
    /// Explain a state (CLOSE_WAIT, close-wait, 8, 08 as in /proc/net/tcp), a step (FROM TO), or both ends of a connection.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Tell what works here: kernel, BTF, hooks, capabilities, limits; and what to do about the rest.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
}

/// How transitions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// For people.
    Table,
    /// One JSON object a line (docs/events.md).
    Json,
    /// bcc tcpstates' header and columns.
    Csv,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Which hook to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HookName {
    /// The best that works.
    #[default]
    Auto,
    /// The BTF-typed tracepoint.
    TpBtf,
    /// The classic tracepoint.
    Tracepoint,
}

/// What shows mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close().
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    /// The best that works.
    #[default]
    Auto,
    /// Functions, by fentry.
    #[value(alias = "1")]
    Fentry,
    /// Functions, by kprobe.
    Kprobe,
    /// Timers' tracepoints.
    #[value(alias = "2")]
    Timers,
    /// Nothing: an estimate.
    #[value(alias = "3")]
    Estimate,
    /// Nothing, and no estimate.
    None,
}

/// Which sockets: by their ends, and by whose they are.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct SelectArgs {
    /// Only IPv4; v4-mapped addresses count as IPv4.
    #[arg(long, short = '4', conflicts_with = "ipv6", help_heading = "Filter")]
    pub ipv4: bool,
    /// Only IPv6.
    #[arg(long, short = '6', help_heading = "Filter")]
    pub ipv6: bool,
    /// Local or remote port: 443, 80,443, 8000-8099.
    #[arg(long, short, value_name = "PORTS", value_parser = parse_ports, help_heading = "Filter")]
    pub port: Option<Ports>,
    /// Local port.
    #[arg(long, short = 'L', value_name = "PORTS", value_parser = parse_ports, visible_alias = "localport", help_heading = "Filter")]
    pub local_port: Option<Ports>,
    /// Remote port.
    #[arg(long, short = 'D', value_name = "PORTS", value_parser = parse_ports, visible_alias = "remoteport", help_heading = "Filter")]
    pub remote_port: Option<Ports>,
    /// Local address or prefix, e.g. 10.0.0.0/8.
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, value_delimiter = ',', help_heading = "Filter")]
    pub local: Vec<IpNet>,
    /// Remote address or prefix.
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix, value_delimiter = ',', help_heading = "Filter")]
    pub remote: Vec<IpNet>,
    /// Process id: whole connections that this process has opened, has accepted and closed, whose listener is its, or that it holds.
    ///
    /// Connections of a trace come as a whole, from their first transition on; which worker has accepted one is known when it closes it.
    /// A look takes what the process has open.
    #[arg(long, value_name = "PID", value_delimiter = ',', help_heading = "Filter")]
    pub pid: Vec<u32>,
    /// The same by the process's name (15 characters, as in /proc/PID/comm).
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Filter")]
    pub comm: Vec<String>,
    /// Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net.
    ///
    /// What takes time follows a name or a path outside of /proc: the namespace may be made later, and again.
    #[arg(long, value_name = "NETNS", help_heading = "Filter")]
    pub netns: Option<String>,
    /// Cgroup v2 of the socket, and all below: /system.slice/nginx.service.
    #[arg(long, value_name = "PATH", help_heading = "Filter")]
    pub cgroup: Option<String>,
}

/// How the kernel is asked.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct KernelArgs {
    /// Size of the ring between kernel and sockstate, a power of two: 1M, 64M.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_ring_size, help_heading = "Kernel")]
    pub ring_size: u32,
    /// Compare with the kernel's tables this often, and after a loss; 0 for never.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration_or_zero, help_heading = "Kernel")]
    pub resync: std::time::Duration,
    /// Trace although another sockstate does; every transition then costs twice.
    #[arg(long, help_heading = "Kernel")]
    pub alongside: bool,
    /// Use this hook.
    #[arg(long, value_enum, default_value_t, help_heading = "Kernel")]
    pub hook: HookName,
    /// What shows mini-sockets.
    #[arg(long, value_enum, default_value_t, help_heading = "Kernel")]
    pub tier: TierName,
    /// Use this BTF instead of the kernel's.
    #[arg(long, value_name = "FILE", help_heading = "Kernel")]
    pub btf: Option<PathBuf>,
}

impl Default for KernelArgs {
    /// What their flags default to.
    fn default() -> Self {
        Self {
            ring_size: 16 << 20,
            resync: std::time::Duration::from_secs(300),
            alongside: false,
            hook: HookName::Auto,
            tier: TierName::Auto,
            btf: None,
        }
    }
}

/// Which transitions.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct FilterArgs {
    /// Which connections.
    #[command(flatten)]
    pub select: SelectArgs,
    /// State before, by netstat's or ss's name in any case: CLOSE_WAIT, close-wait, connected.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub from: Vec<StateSet>,
    /// State after.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub to: Vec<StateSet>,
}

/// When a connection counts as stuck.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct StuckRules {
    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Stuck")]
    pub threshold: Vec<Threshold>,
    /// Do not say what is stuck.
    #[arg(long, conflicts_with = "threshold", help_heading = "Stuck")]
    pub no_stuck: bool,
}

/// What is traced, and for how long.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct RunArgs {
    /// First write the sockets that exist already.
    #[arg(long, help_heading = "Output")]
    pub snapshot: bool,
    /// Add the owner's command line. It may hold secrets.
    #[arg(long, help_heading = "Output")]
    pub cmdline: bool,
    /// Serve Prometheus metrics at http://ADDRESS/metrics, and /healthz and /readyz (docs/metrics.md): 127.0.0.1:9435.
    #[arg(long, value_name = "ADDRESS", help_heading = "Output")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Name the N processes with the most stuck sockets in the metrics: as many series more, at most, at a time.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output")]
    pub metrics_top: usize,
    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "End")]
    pub duration: Option<std::time::Duration>,
    /// End after N transitions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "End")]
    pub count: Option<u64>,
}

/// Arguments of `trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// How to write [default: table on a terminal, else json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<FormatName>,
    /// In CSV, put ' in front of cells that a spreadsheet would take for a formula: =, +, -, @, tab.
    #[arg(long, help_heading = "Output")]
    pub escape_formulas: bool,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the table; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// What, and for how long.
    #[command(flatten)]
    pub run: RunArgs,
    /// What is stuck.
    #[command(flatten)]
    pub stuck: StuckRules,
    /// Which transitions.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How the kernel is asked.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// What stands before the first table of a configuration.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct DaemonKeys {
    /// What is traced, and for how long.
    #[command(flatten)]
    pub run: RunArgs,
    /// Keep the kernel programs running when sockstate ends, in this directory of a BPF file system (/sys/fs/bpf/sockstate), so that
    /// the next one goes on without a gap; `sockstate detach` ends them.
    #[arg(long, value_name = "DIR", help_heading = "End")]
    pub pin: Option<PathBuf>,
}

/// Arguments of `detach`.
#[derive(Args, Clone, Debug)]
pub struct DetachArgs {
    /// The directory that `pin` has named.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sockstate")]
    pub pin: PathBuf,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct DaemonArgs {
    /// The configuration (docs/configuration.md).
    #[arg(long, value_name = "FILE", default_value = "/etc/sockstate/config.toml")]
    pub config: PathBuf,
    /// Only say what is wrong with it.
    #[arg(long)]
    pub check: bool,
    /// Only print one with every key, explained.
    #[arg(long, conflicts_with = "check")]
    pub example: bool,
}

/// How a look at the sockets is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LookFormat {
    /// For people.
    Table,
    /// One JSON object a line (docs/stuck.md).
    Json,
}

/// What stuck sockets are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    /// The processes that have them open.
    Process,
    /// The local end's listener.
    Listener,
    /// The peer's address.
    Peer,
    /// The container, else the systemd unit.
    Container,
    /// The call path that opened them, by what a hunt has written (--hunt).
    Stack,
}

/// What sockets are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// The oldest first.
    #[default]
    Age,
    /// State.
    State,
    /// Local end.
    Local,
    /// Remote end.
    Remote,
    /// The first holder.
    Process,
    /// The most unread bytes first.
    Unread,
}

/// Arguments of `stuck`.
#[derive(Args, Clone, Debug)]
pub struct StuckArgs {
    /// How to write [default: table on a terminal, else json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<LookFormat>,
    /// Count, instead of listing each.
    #[arg(long, value_enum, value_name = "BY", help_heading = "Output")]
    pub group_by: Option<GroupBy>,
    /// What `sockstate hunt --format json` has written, or is writing: for --group-by stack.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hunt: Option<PathBuf>,
    /// What was stuck at the end of this recording, instead of a look at this host.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "watch", "threshold"])]
    pub from: Option<PathBuf>,
    /// Look again every TIME [default: 2s].
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_duration, conflicts_with = "check", help_heading = "Output")]
    pub watch: Option<std::time::Duration>,

    /// Only these states, by netstat's or ss's name.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Threshold")]
    pub state: Vec<StateSet>,
    /// Stuck after TIME in any state, instead of the thresholds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_zero, help_heading = "Threshold")]
    pub older_than: Option<std::time::Duration>,
    /// [STATE][:PORTS][@COMM]=TIME, or never instead of TIME: CLOSE_WAIT=5m, :8080=30s, CLOSE_WAIT@backup=never.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Threshold")]
    pub threshold: Vec<Threshold>,

    /// Answer as a monitoring plugin: one line, exit status 0, 1 (warning), 2 (critical) or 3 (unknown).
    #[arg(long, help_heading = "Check")]
    pub check: bool,
    /// Warning from this number of stuck sockets on.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "check", help_heading = "Check")]
    pub warn: usize,
    /// Critical from this number on.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "check", help_heading = "Check")]
    pub crit: usize,

    /// Which sockets.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `sockets`.
#[derive(Args, Clone, Debug)]
pub struct SocketsArgs {
    /// How to write [default: table on a terminal, else json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<LookFormat>,
    /// Order.
    #[arg(long, value_enum, default_value_t, value_name = "BY", help_heading = "Output")]
    pub sort: SortBy,
    /// Only these states, by netstat's or ss's name.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub state: Vec<StateSet>,
    /// Which sockets.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// How a hunt is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HuntFormat {
    /// For people.
    Text,
    /// `stuck` and `resolved` records with the call path (docs/events.md).
    Json,
    /// Folded stacks, for flame graphs.
    Folded,
    /// A flame graph.
    Svg,
}

/// Arguments of `hunt`.
#[derive(Args, Clone, Debug)]
pub struct HuntArgs {
    /// How to write [default: text on a terminal, else json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<HuntFormat>,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Stuck")]
    pub threshold: Vec<Threshold>,
    /// Most call paths of one process that are taken in a second; the rest is counted as lost.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Stuck")]
    pub rate: u32,

    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "End")]
    pub duration: Option<std::time::Duration>,

    /// Which connections; --pid and --comm mean who opens them.
    #[command(flatten)]
    pub select: SelectArgs,
    /// How the kernel is asked.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// How doctor writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Arguments of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// How to write.
    #[arg(long, value_enum, default_value_t)]
    pub format: DoctorFormat,
    /// Try with a ring of this size.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_ring_size)]
    pub ring_size: u32,
    /// Try this BTF instead of the kernel's.
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
}
