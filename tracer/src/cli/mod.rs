//! The command line: clap's types. Their doc comments are the help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValue};
use ipnet::IpNet;

mod examples;
mod viewers;

use examples::{
    DETACH_EXAMPLES, DIAGRAM_EXAMPLES, DOCTOR_EXAMPLES, EXAMPLES, EXPLAIN_EXAMPLES, HUNT_EXAMPLES,
    RECORD_EXAMPLES, RUN_EXAMPLES, SOCKETS_EXAMPLES, STUCK_EXAMPLES, TIMELINE_EXAMPLES, TOP_EXAMPLES,
};
pub use viewers::{
    DiagramArgs, DiagramFormat, ExplainArgs, RecordArgs, ReplayArgs, ReportArgs, TimelineArgs,
    TimelineFormat, TopArgs,
};

use crate::{
    format::FormatName,
    model::{Ports, StateSet, Threshold},
    values::{
        parse_duration, parse_duration_or_zero, parse_ports, parse_prefix, parse_ring_size, parse_states,
        parse_threshold,
    },
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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace transitions (what plain `sockstate` does).
    #[command(after_help = EXAMPLES)]
    Trace(Box<TraceArgs>),
    /// Trace as a daemon, and deliver to the sinks of a configuration file, each with its own format, filter and queue.
    #[command(after_help = RUN_EXAMPLES)]
    Run(DaemonArgs),
    /// Remove the kernel programs that a daemon with the key `pin` has left attached.
    #[command(after_help = DETACH_EXAMPLES)]
    Detach(DetachArgs),
    /// Show stuck sockets: for how long, which process holds them, why, and what to do. Needs no running tracer.
    #[command(after_help = STUCK_EXAMPLES)]
    Stuck(Box<StuckArgs>),
    /// Show sockets that are stuck in CLOSE_WAIT: the same as `stuck --state CLOSE_WAIT`.
    #[command(after_help = STUCK_EXAMPLES)]
    CloseWait(Box<StuckArgs>),
    /// Show all TCP sockets of all network namespaces, with the age of their state and the processes that hold them.
    #[command(after_help = SOCKETS_EXAMPLES)]
    Sockets(Box<SocketsArgs>),
    /// Find the code that opens stuck connections: the call paths of connect() and accept(), sorted by their stuck sockets.
    #[command(after_help = HUNT_EXAMPLES)]
    Hunt(Box<HuntArgs>),
    /// Record every transition into a compressed file; replay, stuck, diagram, timeline, top and report read it without root.
    #[command(after_help = RECORD_EXAMPLES)]
    Record(Box<RecordArgs>),
    /// Show the records of a recording in the formats of `trace`.
    #[command(after_help = RECORD_EXAMPLES)]
    Replay(Box<ReplayArgs>),
    /// Draw TCP's state machine, alone or with counts from a recording or from this host's connections.
    #[command(after_help = DIAGRAM_EXAMPLES)]
    Diagram(Box<DiagramArgs>),
    /// Show the connections of a recording over time, one lane for each; or one connection step by step.
    #[command(after_help = TIMELINE_EXAMPLES)]
    Timeline(Box<TimelineArgs>),
    /// Write an HTML report of a recording: states over time, leaks, busiest processes, times in each state, slowest closes.
    #[command(after_help = RECORD_EXAMPLES)]
    Report(Box<ReportArgs>),
    /// Watch the sockets of this host or of a recording: states, rates, leaking processes, each socket's history, and what to do.
    #[command(after_help = TOP_EXAMPLES)]
    Top(Box<TopArgs>),
    /// Explain a state (CLOSE_WAIT, close-wait, 8, 08 as in /proc/net/tcp), a step (FROM TO), or both ends of a connection.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Check what works on this host (kernel, BTF, hooks, capabilities, limits), and what to do about the rest.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
}

impl ValueEnum for FormatName {
    fn value_variants<'a>() -> &'a [Self] {
        const { &Self::ALL }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.help))
    }
}

/// When to use colours.
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

/// The hook for transitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum HookName {
    /// The best hook that works.
    #[default]
    Auto,
    /// The BTF-typed tracepoint.
    TpBtf,
    /// The classic tracepoint.
    Tracepoint,
}

/// The hooks for mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close().
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    /// The best tier that works.
    #[default]
    Auto,
    /// fentry on the functions of mini-sockets.
    // `1`, `2` and `3` are accepted as short names of fentry, timers and estimate; kprobe has no number.
    #[value(alias = "1")]
    Fentry,
    /// kprobes on the functions of mini-sockets.
    Kprobe,
    /// Tracepoints of the mini-sockets' timers.
    #[value(alias = "2")]
    Timers,
    /// No hooks: transitions of mini-sockets are estimated.
    #[value(alias = "3")]
    Estimate,
    /// No hooks and no estimate.
    None,
}

/// Selects sockets by their ends and their processes.
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
    /// Process id: whole connections that this process opened, holds, or accepted and then closed, or whose listener it owns.
    ///
    /// A trace shows such a connection from its first transition on. Which worker has accepted a connection is known when the worker
    /// closes it. `stuck` and `sockets` show the sockets that the process holds.
    #[arg(long, value_name = "PID", value_delimiter = ',', help_heading = "Filter")]
    pub pid: Vec<u32>,
    /// Process name, used as --pid is (up to 15 characters, as in /proc/PID/comm).
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Filter")]
    pub comm: Vec<String>,
    /// Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net.
    ///
    /// Commands that run for some time follow a name, or a path outside of /proc: the namespace may not exist yet, and may be deleted
    /// and created again.
    #[arg(long, value_name = "NETNS", help_heading = "Filter")]
    pub netns: Option<String>,
    /// Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service.
    #[arg(long, value_name = "PATH", help_heading = "Filter")]
    pub cgroup: Option<String>,
}

/// Options of the kernel programs.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct KernelArgs {
    /// Size of the ring buffer between kernel and sockstate, a power of two: 1M, 64M.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_ring_size, help_heading = "Kernel")]
    pub ring_size: u32,
    /// How often to compare the connections with the kernel's tables; also done after a loss. 0 for never.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration_or_zero, help_heading = "Kernel")]
    pub resync: std::time::Duration,
    /// Trace although another sockstate is tracing; every transition then costs twice.
    #[arg(long, help_heading = "Kernel")]
    pub alongside: bool,
    /// The hook for transitions.
    #[arg(long, value_enum, default_value_t, help_heading = "Kernel")]
    pub hook: HookName,
    /// The hooks for mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close().
    #[arg(long, value_enum, default_value_t, help_heading = "Kernel")]
    pub tier: TierName,
    /// Read BTF from this file instead of the kernel's.
    #[arg(long, value_name = "FILE", help_heading = "Kernel")]
    pub btf: Option<PathBuf>,
}

impl Default for KernelArgs {
    /// The defaults of the flags.
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

/// Selects transitions.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct FilterArgs {
    #[command(flatten)]
    pub select: SelectArgs,
    /// State before the transition, by netstat's or ss's name in any case: CLOSE_WAIT, close-wait, connected.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub from: Vec<StateSet>,
    /// State after the transition.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub to: Vec<StateSet>,
}

/// When a connection counts as stuck.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct StuckRules {
    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Stuck")]
    pub threshold: Vec<Threshold>,
    /// Do not report stuck connections.
    #[arg(long, conflicts_with = "threshold", help_heading = "Stuck")]
    pub no_stuck: bool,
}

/// What to write, and for how long.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct RunArgs {
    /// Write the existing sockets first.
    #[arg(long, help_heading = "Output")]
    pub snapshot: bool,
    /// Add the owner's command line, which may have secrets.
    #[arg(long, help_heading = "Output")]
    pub cmdline: bool,
    /// Serve Prometheus metrics at http://ADDRESS/metrics, and /healthz and /readyz (docs/metrics.md): 127.0.0.1:9435.
    #[arg(long, value_name = "ADDRESS", help_heading = "Output")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Add metrics of the N processes with the most stuck sockets: up to N more series at a time.
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
    /// Format of the output [default: table on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<FormatName>,
    /// In CSV, put ' before cells that a spreadsheet would read as a formula: =, +, -, @, tab.
    #[arg(long, help_heading = "Output")]
    pub escape_formulas: bool,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the table; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub stuck: StuckRules,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// The keys before the first table of a configuration.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct DaemonKeys {
    #[command(flatten)]
    pub run: RunArgs,
    /// Keep the kernel programs attached when sockstate ends, pinned in this directory of a BPF file system (/sys/fs/bpf/sockstate),
    /// so that the next process goes on without a gap; `sockstate detach` removes them.
    #[arg(long, value_name = "DIR", help_heading = "End")]
    pub pin: Option<PathBuf>,
}

/// Arguments of `detach`.
#[derive(Args, Clone, Debug)]
pub struct DetachArgs {
    /// The directory in the key `pin`.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sockstate")]
    pub pin: PathBuf,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct DaemonArgs {
    /// The configuration file (docs/configuration.md).
    #[arg(long, value_name = "FILE", default_value = "/etc/sockstate/config.toml")]
    pub config: PathBuf,
    /// Only check the configuration, and report all problems.
    #[arg(long)]
    pub check: bool,
    /// Only print an example configuration with every key explained.
    #[arg(long, conflicts_with = "check")]
    pub example: bool,
}

/// The format of `stuck` and `sockets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LookFormat {
    /// A table for people.
    Table,
    /// One JSON object per line (docs/stuck.md).
    Json,
}

/// The groups in which stuck sockets are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    /// The processes that hold the sockets.
    Process,
    /// The local port, where a process that listens there is known.
    Listener,
    /// The peer's address.
    Peer,
    /// The container, or the systemd unit where there is none.
    Container,
    /// The call path that opened the sockets, from the output of a hunt (--hunt).
    Stack,
}

/// The order of sockets.
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
    /// Format of the output [default: table on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<LookFormat>,
    /// Count sockets in groups instead of listing each one.
    #[arg(long, value_enum, value_name = "BY", help_heading = "Output")]
    pub group_by: Option<GroupBy>,
    /// For --group-by stack: the output of `sockstate hunt --format json`, which may still be running.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hunt: Option<PathBuf>,
    /// Show the sockets that were stuck at the end of this recording, instead of this host's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check", "watch", "threshold"])]
    pub from: Option<PathBuf>,
    /// Repeat every TIME (2s if TIME is left out).
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_duration, conflicts_with = "check", help_heading = "Output")]
    pub watch: Option<std::time::Duration>,

    /// Only these states, by netstat's or ss's name.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Threshold")]
    pub state: Vec<StateSet>,
    /// Use TIME instead of the time of each threshold; states without a threshold are shown only with --state.
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_zero, help_heading = "Threshold")]
    pub older_than: Option<std::time::Duration>,
    /// When a socket counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    ///
    /// Examples: CLOSE_WAIT=5m, :8080=30s, CLOSE_WAIT@backup=never.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Threshold")]
    pub threshold: Vec<Threshold>,

    /// Write one line as a monitoring plugin does, with exit status 0, 1 (warning), 2 (critical) or 3 (unknown).
    #[arg(long, help_heading = "Check")]
    pub check: bool,
    /// Number of stuck sockets for a warning.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "check", help_heading = "Check")]
    pub warn: usize,
    /// Number of stuck sockets for the critical status.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "check", help_heading = "Check")]
    pub crit: usize,

    #[command(flatten)]
    pub select: SelectArgs,
}

/// Arguments of `sockets`.
#[derive(Args, Clone, Debug)]
pub struct SocketsArgs {
    /// Format of the output [default: table on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<LookFormat>,
    /// The order of the sockets.
    #[arg(long, value_enum, default_value_t, value_name = "BY", help_heading = "Output")]
    pub sort: SortBy,
    /// Only these states, by netstat's or ss's name.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub state: Vec<StateSet>,
    #[command(flatten)]
    pub select: SelectArgs,
}

/// The format of a hunt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HuntFormat {
    /// A report for people.
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
    /// Format of the output [default: text on a terminal, otherwise json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<HuntFormat>,
    /// Write to FILE instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,

    /// When a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, or never instead of TIME.
    #[arg(long, value_name = "RULE", value_parser = parse_threshold, help_heading = "Stuck")]
    pub threshold: Vec<Threshold>,
    /// Limit of call paths per process and second; further ones are counted as lost.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Stuck")]
    pub rate: u32,

    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "End")]
    pub duration: Option<std::time::Duration>,

    /// Selects connections; --pid and --comm are of the process that opens them.
    #[command(flatten)]
    pub select: SelectArgs,
    #[command(flatten)]
    pub kernel: KernelArgs,
}

/// The format of `doctor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Arguments of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Format of the output.
    #[arg(long, value_enum, default_value_t)]
    pub format: DoctorFormat,
    /// Try a ring buffer of this size.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_ring_size)]
    pub ring_size: u32,
    /// Try this BTF instead of the kernel's.
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
}
