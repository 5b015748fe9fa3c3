//! The ring, and the counters of what did not get into it.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya::maps::{MapData, MapError, PerCpuArray, RingBuf};
use sockstate_abi::abi::PerCpu;
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::walker::{Look, Walker};
use crate::kernel::{Hook, Links, Loaded};

/// Why the ring cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The object is not ours.
    #[error("the kernel programs lack the map {0}")]
    NoMap(&'static str),
    /// The map does not open.
    #[error("cannot open the ring: {0}")]
    Map(#[from] MapError),
    /// epoll does not take it.
    #[error("cannot wait for the ring: {0}")]
    Wait(#[from] io::Error),
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct PodPerCpu(PerCpu);
// SAFETY: repr(C), u64 only, any bits are valid.
unsafe impl aya::Pod for PodPerCpu {}

/// Losses since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Transitions that found the ring full.
    pub ring: u64,
    /// Events of mini-sockets, and resets, that found it full.
    pub evidence: u64,
    /// Transitions that no program was run for.
    pub recursion: u64,
    /// Stacks that were not taken.
    pub stacks: u64,
}

/// Programs that run, and their ring.
pub struct KernelSource {
    ring: AsyncFd<RingBuf<MapData>>,
    counters: PerCpuArray<MapData, PodPerCpu>,
    /// Descriptors of the programs whose recursion misses count.
    programs: Vec<RawFd>,
    hook: Hook,
    loaded: Loaded,
}

impl KernelSource {
    /// Takes over the programs; they are detached when this is dropped.
    ///
    /// # Errors
    /// The ring cannot be opened.
    pub fn new(mut loaded: Loaded) -> Result<Self, SourceError> {
        let mut take = |name| loaded.ebpf.take_map(name).ok_or(SourceError::NoMap(name));
        let ring = RingBuf::try_from(take("EVENTS")?)?;
        // SAFETY: the ring owns its map's descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        let counters = PerCpuArray::try_from(take("PER_CPU")?)?;
        let fd_of = |name: &str| {
            let program = loaded.ebpf.program(name)?;
            let fd = program.fd().ok()?;
            Some(fd.as_fd().as_raw_fd())
        };
        let names: &[&str] = match loaded.hook {
            Hook::TpBtf => &["set_state"],
            Hook::Tracepoint => &["set_state_classic"],
        };
        let programs = names.iter().filter_map(|name| fd_of(name)).collect();
        Ok(Self { ring, counters, programs, hook: loaded.hook, loaded })
    }

    /// Name of the hook that sees transitions.
    #[must_use]
    pub fn hook(&self) -> &'static str {
        self.hook.name()
    }

    /// Name of the hooks that see mini-sockets.
    #[must_use]
    pub fn tier(&self) -> &'static str {
        self.loaded.tier.name()
    }

    /// Looks at the kernel's tables of every namespace, or of `only`; `began_ns` is the time.
    pub fn look(&mut self, walker: &Walker, only: Option<u32>, began_ns: u64) -> Look {
        walker.look(&mut self.loaded, only, began_ns)
    }

    /// Waits until the kernel says that there is something.
    ///
    /// # Errors
    /// epoll fails.
    pub async fn readable(&self) -> io::Result<()> {
        self.ring.readable().await.map(|mut guard| guard.clear_ready())
    }

    /// Hands on up to `most` records; returns how many there were.
    pub fn drain(&mut self, most: usize, mut take: impl FnMut(&[u8])) -> usize {
        let ring = self.ring.get_mut();
        let mut count = 0;
        while count < most {
            let Some(record) = ring.next() else { break };
            take(&record);
            count += 1;
        }
        count
    }

    /// No further transition is recorded; what is in the ring stays.
    pub fn detach(&mut self) {
        self.loaded.links = Links::default();
    }

    /// What was lost so far.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn losses(&self) -> Result<Losses, SourceError> {
        let cpus = self.counters.get(&0, 0)?;
        let sum = |field: fn(&PerCpu) -> u64| cpus.iter().map(|cpu| field(&cpu.0)).sum::<u64>();
        let misses: u64 = self.programs.iter().map(|&fd| recursion_misses(fd)).sum();
        // What the companion took was missed by the main program and is not lost.
        let recursion = match self.hook {
            Hook::TpBtf => misses.saturating_sub(sum(|cpu| cpu.companion)),
            Hook::Tracepoint => misses,
        };
        Ok(Losses {
            ring: sum(|cpu| cpu.lost_ring),
            evidence: sum(|cpu| cpu.lost_evidence),
            recursion,
            stacks: sum(|cpu| cpu.lost_stacks),
        })
    }
}

/// How often the kernel skipped the program because it was running on that CPU already (5.12, commit 9ed9e9ba2337).
fn recursion_misses(program: RawFd) -> u64 {
    fs::read_to_string(format!("/proc/self/fdinfo/{program}"))
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?;
            line.trim().parse().ok()
        })
        .unwrap_or(0)
}
