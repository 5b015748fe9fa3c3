//! Loaded and attached programs.

use aya::{Btf, Ebpf, maps::MapData, programs::ProgramFd};

use super::{attempt::Attempt, bpf_links::Links, mini_sockets::Tier};

/// The hook that sees the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `tp_btf/inet_sock_set_state`.
    TpBtf,
    /// `tracepoint/sock/inet_sock_set_state`.
    Tracepoint,
}

impl Hook {
    /// The name in records and `doctor`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// The name of the kernel program.
    #[must_use]
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::TpBtf => "set_state",
            Self::Tracepoint => "set_state_classic",
        }
    }
}

/// Loaded and attached programs.
pub struct Loaded {
    pub ebpf: Ebpf,
    pub links: Links,
    pub hook: Hook,
    pub tier: Tier,
    /// Whether sent resets are seen.
    pub sees_resets: bool,
    /// The kernel's names of `enum sk_rst_reason`, without their prefix.
    pub reset_reasons: Vec<String>,
    /// All hooks that were tried.
    pub attempts: Vec<Attempt>,
    /// What this trace cannot do, why, and what the user can do.
    pub degraded: Vec<String>,
    /// The kernel's types, for the iterators; `None` if the kernel has none.
    pub btf: Option<Btf>,
    /// The pinned objects of a previous process, if they were adopted.
    pub adopted: Option<Adopted>,
}

/// Pinned objects of a previous process.
pub struct Adopted {
    /// The ring, with records that the kernel wrote between the two processes.
    pub ring: MapData,
    /// The counters of losses.
    pub counters: MapData,
    /// The processes whose exec, rename and end are reported.
    pub processes: MapData,
    /// The program whose recursion misses are losses.
    pub program: ProgramFd,
}
