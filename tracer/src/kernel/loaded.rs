//! Programs that run.

use aya::{Btf, Ebpf, maps::MapData, programs::ProgramFd};

use super::{attempt::Attempt, links::Links, mini_sockets::Tier};

/// The hook that sees the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `tp_btf/inet_sock_set_state`.
    TpBtf,
    /// `tracepoint/sock/inet_sock_set_state`.
    Tracepoint,
}

impl Hook {
    /// As records and doctor show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// The program that it runs.
    #[must_use]
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::TpBtf => "set_state",
            Self::Tracepoint => "set_state_classic",
        }
    }
}

/// Programs that run.
pub struct Loaded {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// What keeps them running.
    pub links: Links,
    /// The hook that works.
    pub hook: Hook,
    /// What shows mini-sockets.
    pub tier: Tier,
    /// Resets that are sent are seen.
    pub sees_resets: bool,
    /// The running kernel's names of `enum sk_rst_reason`, without their prefix.
    pub reset_reasons: Vec<String>,
    /// Everything that was tried.
    pub attempts: Vec<Attempt>,
    /// What works less than it could, why, and what to do.
    pub degraded: Vec<String>,
    /// The kernel's types, for the iterators; none without.
    pub btf: Option<Btf>,
    /// What another sockstate has left running.
    pub adopted: Option<Adopted>,
}

/// What was adopted.
pub struct Adopted {
    /// The ring, with what the kernel has written meanwhile.
    pub ring: MapData,
    /// The counters of losses.
    pub counters: MapData,
    /// The processes whose end is told.
    pub processes: MapData,
    /// The program whose recursion misses count.
    pub program: ProgramFd,
}
