//! Groups of flags that several subcommands share, for clap; the configuration file has the same keys. The doc comments
//! are the help texts.

use std::path::PathBuf;

use clap::{
    Arg, Args, ValueEnum,
    builder::{NonEmptyStringValueParser, PossibleValue},
};

use crate::{
    filter::{Ends, PlaceArgs, Processes, StatesArgs, Workloads},
    format::FormatName,
    model::{MetricLabel, RecordKind, Threshold},
    values::{
        parse_duration, parse_duration_or_zero, parse_interim, parse_listen_address, parse_metric_label,
        parse_ring_size, parse_threshold, parse_traced_kind,
    },
};

impl ValueEnum for FormatName {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.help))
    }
}

/// Lets the argument take the names of its values in any case: `--format JSON`.
#[must_use]
pub fn in_any_case(arg: Arg) -> Arg {
    let takes_value = arg.get_action().takes_values();
    arg.ignore_case(takes_value)
}

/// The file that a daemon locks.
pub const DEFAULT_LOCK: &str = "/run/sockstate.lock";

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

/// The hook that shows transitions.
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

/// The hooks that show mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close().
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
    #[command(flatten)]
    pub ends: Ends,
    #[command(flatten)]
    pub processes: Processes,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub workloads: Workloads,
}

/// Options of the kernel programs.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct KernelArgs {
    /// Size of the ring buffer between kernel and sockstate, a power of two: 1M, 64M.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_ring_size, help_heading = "Kernel")]
    pub ring_size: u32,
    /// How often sockstate compares its connections with the kernel's tables; it also does so after a loss. 0 means never.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration_or_zero, help_heading = "Kernel")]
    pub resync: std::time::Duration,
    /// The file that a daemon locks to keep a second daemon from starting.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_LOCK, help_heading = "Kernel")]
    pub lock: PathBuf,
    /// Do not ask whether a daemon is tracing: `run` then does not use the lock, which keeps a second daemon from starting.
    #[arg(long, help_heading = "Kernel")]
    pub alongside: bool,
    /// The hook that shows transitions.
    #[arg(long, value_enum, default_value_t, help_heading = "Kernel")]
    pub hook: HookName,
    /// The hooks that show mini-sockets: half-open connections, TIME_WAIT, FIN_WAIT2 after close().
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
            lock: DEFAULT_LOCK.into(),
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
    #[command(flatten)]
    pub states: StatesArgs,
}

/// Selects records by their kinds.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct KindArgs {
    /// Write only these records: transitions, connections, stuck, resolved, snapshots, resyncs, resets.
    ///
    /// Records of the kinds start, stop and lost are always written.
    #[arg(long, value_name = "KINDS", value_parser = parse_traced_kind, value_delimiter = ',', help_heading = "Output")]
    pub records: Vec<RecordKind>,
}

/// The records that a trace writes.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct StreamArgs {
    #[command(flatten)]
    pub kinds: KindArgs,
    /// With records of connections: also report those that go on, once in each interval of this length, with final false.
    #[arg(long, value_name = "TIME", value_parser = parse_interim, help_heading = "Output")]
    pub interim: Option<std::time::Duration>,
    /// Write the transitions and connections of one in N connections only, both ends of the same ones on all hosts; all records of
    /// stuck connections and of losses.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Output")]
    pub sample: u64,
}

impl Default for StreamArgs {
    /// The defaults of the flags.
    fn default() -> Self {
        Self { kinds: KindArgs::default(), interim: None, sample: 1 }
    }
}

/// When a connection counts as stuck.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct StuckRules {
    /// After which time in a state a connection counts as stuck, instead of the defaults: [STATE][:PORTS][@COMM]=TIME, for example
    /// CLOSE_WAIT=5m or :8080=30s. With never as TIME, it does not count as stuck.
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
    /// Add how conntrack translates each connection: DNAT, SNAT, masquerade, redirection.
    #[arg(long, help_heading = "Output")]
    pub nat: bool,
    /// Serve Prometheus metrics at http://ADDRESS/metrics, and /healthz and /readyz (docs/metrics.md): 127.0.0.1:9435, or 9435 for the
    /// same.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen_address, help_heading = "Output")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Add metrics of the N processes with the most stuck sockets: up to N more series at a time.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output")]
    pub metrics_top: usize,
    /// Add metrics of all sockets and of the stuck ones by these labels: comm, unit, namespace, workload, pod, container, local_port,
    /// peer.
    #[arg(long, value_name = "LABELS", value_parser = parse_metric_label, value_delimiter = ',', help_heading = "Output")]
    pub metrics_by: Vec<MetricLabel>,
    /// How many combinations of the labels have series of their own: those with the most sockets. All others are counted together,
    /// with the label other="true".
    #[arg(long, value_name = "N", default_value_t = 100, requires = "metrics_by", help_heading = "Output")]
    pub metrics_by_limit: usize,
    /// End TIME after the first record was written: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "End")]
    pub duration: Option<std::time::Duration>,
    /// End after N transitions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "End")]
    pub count: Option<u64>,
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
    /// The directory of what a daemon leaves to the next one: the saved connections of `pin`, and which files the file sinks have
    /// created. A reboot should clear it, as it clears /run [default: /run/sockstate].
    #[arg(long, value_name = "DIR", help_heading = "End")]
    pub runtime_dir: Option<PathBuf>,
    /// Run the sinks and the metrics server in a process of their own, as this user and without any capability. The user needs access
    /// to the files of the sinks (docs/operations.md).
    #[arg(long, value_name = "NAME", help_heading = "Output")]
    pub sinks_user: Option<String>,
    /// Instead of `sinks-user`: the unix socket behind which the service manager starts that process. The installed service has it at
    /// /run/sockstate-sinks.socket.
    #[arg(long, value_name = "PATH", help_heading = "Output")]
    pub sinks_socket: Option<PathBuf>,
    /// The name of this host in records, instead of the system's, which is that of the pod in a container [default: the
    /// environment variable NODE_NAME, if it is set].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), help_heading = "Output")]
    pub host_name: Option<String>,
}
