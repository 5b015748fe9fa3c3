//! The command line: clap's types, nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{
    config::{
        parse_duration, parse_duration_or_zero, parse_ports, parse_prefix, parse_ring_size, parse_states,
    },
    model::{Ports, StateSet},
};

const EXAMPLES: &str = "\
Examples:
  sockstate                                      every transition, live
  sockstate --to CLOSE_WAIT                      whose peers have closed
  sockstate --local-port 443 --format json       one service, as NDJSON
  sockstate --comm nginx --snapshot              one program, existing sockets first
  sockstate --remote 10.0.0.0/8 --output t.json  one network, into a file
  sockstate doctor                               what works here, and what to do about the rest

Exit status:
  0  ended by a signal, --duration, --count or a closed pipe
  1  the output failed; doctor: tracing does not work
  2  bad arguments
  3  this kernel cannot
  4  not permitted
  5  another sockstate is tracing";

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
    /// Tell what works here: kernel, BTF, hooks, capabilities, limits; and what to do about the rest.
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

/// Arguments of `trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// How to write [default: table on a terminal, else json].
    #[arg(long, value_enum, help_heading = "Output")]
    pub format: Option<FormatName>,
    /// Write to FILE in place of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// Colour the table; auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub color: Colour,
    /// First write the sockets that exist already.
    #[arg(long, help_heading = "Output")]
    pub snapshot: bool,
    /// Add the owner's command line. It may hold secrets.
    #[arg(long, help_heading = "Output")]
    pub cmdline: bool,

    /// End after TIME: 10s, 5m, 1h30m; a plain number means seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "End")]
    pub duration: Option<std::time::Duration>,
    /// End after N transitions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "End")]
    pub count: Option<u64>,

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
    /// State before, by netstat's or ss's name in any case: CLOSE_WAIT, close-wait, connected.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub from: Vec<StateSet>,
    /// State after.
    #[arg(long, value_name = "STATES", value_parser = parse_states, value_delimiter = ',', help_heading = "Filter")]
    pub to: Vec<StateSet>,
    /// Owner's process id.
    #[arg(long, value_name = "PID", value_delimiter = ',', help_heading = "Filter")]
    pub pid: Vec<u32>,
    /// Owner's name (15 characters, as in /proc/PID/comm).
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Filter")]
    pub comm: Vec<String>,
    /// Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net.
    #[arg(long, value_name = "NETNS", help_heading = "Filter")]
    pub netns: Option<String>,
    /// Cgroup v2 of the socket, and all below: /system.slice/nginx.service.
    #[arg(long, value_name = "PATH", help_heading = "Filter")]
    pub cgroup: Option<String>,

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
    /// Use this BTF in place of the kernel's.
    #[arg(long, value_name = "FILE", help_heading = "Kernel")]
    pub btf: Option<PathBuf>,
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
    /// Try this BTF in place of the kernel's.
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,
}
