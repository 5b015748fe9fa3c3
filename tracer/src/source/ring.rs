//! The ring of the kernel programs, and the counters of events that did not get into it.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya::{
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::ProgramFd,
};
use sockstate_abi::abi::PerCpu;
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::{
    netns_thread::{NetnsThread, TableScan},
    ring_usage::RingUsage,
    snapshot::{self, WalkResult},
};
use crate::{
    kernel::{Hook, IterKind, IterOpener, Links, Loaded, pod::pod},
    model::Event,
};

/// Why the ring cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error("the kernel programs lack the map {0}")]
    NoMap(&'static str),
    #[error("cannot open the ring: {0}")]
    Map(#[from] MapError),
    /// epoll refuses the ring, or its positions cannot be mapped.
    #[error("cannot watch the ring: {0}")]
    Wait(#[from] io::Error),
}

pod!(PodPerCpu, PerCpu);

/// Events that were lost since the programs were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Transitions that found the ring full.
    pub ring: u64,
    /// Events of mini-sockets, and resets, that found the ring full.
    pub evidence: u64,
    /// Transitions for which the kernel skipped the main program, because it was running on that CPU, and which the companion
    /// program (a second one at the same hook) has not written.
    pub recursion: u64,
    /// Stacks that were not copied.
    pub stacks: u64,
}

/// The kernel's run statistics of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    pub name: String,
    /// Total run time on all CPUs, ns.
    pub ns: u64,
    /// Number of runs.
    pub count: u64,
}

/// An item of the walk over the existing sockets.
pub enum WalkItem<'a> {
    /// A record of the ring that is older than the sockets that follow.
    Record(&'a [u8]),
    /// A socket that exists.
    Existing(Event),
}

/// The attached programs and their ring.
pub struct KernelSource {
    ring: AsyncFd<RingBuf<MapData>>,
    usage: RingUsage,
    size: Option<u64>,
    counters: PerCpuArray<MapData, PodPerCpu>,
    processes: HashMap<MapData, u32, u8>,
    /// The program whose recursion misses are losses.
    program: Option<ProgramFd>,
    /// Losses that the previous process has already reported.
    reported: Losses,
    hook: Hook,
    loaded: Loaded,
}

impl KernelSource {
    /// Takes the loaded programs. Unless they are pinned, they are detached when this value is dropped.
    ///
    /// # Errors
    /// The ring cannot be opened.
    pub fn new(mut loaded: Loaded) -> Result<Self, SourceError> {
        let adopted = loaded.adopted.take();
        let (ring, counters, processes, program) = match adopted {
            Some(loaded) => {
                let processes = Map::HashMap(loaded.processes);
                (loaded.ring, Map::PerCpuArray(loaded.counters), processes, Some(loaded.program))
            }
            None => {
                let mut take = |name| loaded.ebpf.take_map(name).ok_or(SourceError::NoMap(name));
                let Map::RingBuf(ring) = take("EVENTS")? else { return Err(SourceError::NoMap("EVENTS")) };
                let counters = take("PER_CPU")?;
                let processes = take("PROCESSES")?;
                let program = loaded.ebpf.program(loaded.hook.program());
                (ring, counters, processes, program.and_then(|program| program.fd().ok()?.try_clone().ok()))
            }
        };
        // Without the size only a metric is missing.
        let size = ring.info().ok().map(|info| info.max_entries().into());
        let usage = RingUsage::of(ring.fd())?;
        let ring = RingBuf::try_from(Map::RingBuf(ring))?;
        // SAFETY: the ring owns its map's descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        let counters = PerCpuArray::try_from(counters)?;
        let processes = HashMap::try_from(processes)?;
        let (reported, hook) = (Losses::default(), loaded.hook);
        Ok(Self { ring, usage, size, counters, processes, program, reported, hook, loaded })
    }

    /// Sets the losses that the previous process has already reported.
    pub fn set_reported(&mut self, reported: Losses) {
        self.reported = reported;
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

    /// Unread bytes in the ring, and the size of the ring.
    #[must_use]
    pub fn ring_fill(&self) -> Option<(u64, u64)> {
        self.size.map(|size| (self.usage.bytes(), size))
    }

    /// The kernel's write position in the ring.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.usage.written()
    }

    /// Whether all records before position `written` were read. A record that is still being written delays the ones after it.
    #[must_use]
    pub fn has_read(&self, written: u64) -> bool {
        self.usage.read() >= written
    }

    /// Run time and run count of each program, if the kernel counts them (`kernel.bpf_stats_enabled`). Programs that were taken
    /// over from an earlier process are not among them.
    #[must_use]
    pub fn runs(&self) -> Vec<ProgramRuns> {
        let counts =
            fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() == "1");
        let programs = self.loaded.ebpf.programs().filter(|_| counts);
        programs
            .filter_map(|(name, program)| {
                let text = fdinfo(program.fd().ok()?.as_fd().as_raw_fd());
                let (ns, count) = (number(&text, "run_time_ns:")?, number(&text, "run_cnt:")?);
                (count > 0).then(|| ProgramRuns { name: name.to_owned(), ns, count })
            })
            .collect()
    }

    /// Walks over the existing sockets: first those that processes hold, then the tables of every namespace (of `only` if
    /// given). Before each socket of a table, the records that the ring has by then are passed on.
    pub fn walk(&mut self, only: Option<u32>, mut take: impl FnMut(WalkItem<'_>)) -> WalkResult {
        let mut found = WalkResult::default();
        if self.loaded.btf.is_none() {
            // The loader has already reported why there is no BTF.
            return found;
        }
        // Listeners must be known first: the ring already has connections that came from them.
        snapshot::held(&mut self.loaded, &mut found, &mut |event| take(WalkItem::Existing(event)));
        let ring = self.ring.get_mut();
        snapshot::sockets(&mut self.loaded, only, &mut found, &mut |event| {
            while let Some(record) = ring.next() {
                take(WalkItem::Record(&record));
            }
            take(WalkItem::Existing(event));
        });
        found
    }

    /// Frees the kernel's types (BTF), which are large; false if there were none.
    pub fn forget_types(&mut self) -> bool {
        self.loaded.btf.take().is_some()
    }

    /// Reads the kernel's tables of every namespace, or of `only`; `began_ns` is the current time.
    pub fn scan_tables(&mut self, thread: &NetnsThread, only: Option<u32>, began_ns: u64) -> TableScan {
        thread.scan(&mut self.loaded, only, began_ns)
    }

    /// Asks the kernel programs for events of this process (exec, rename, end). Where that fails, a resync finds the end.
    pub fn watch_process(&mut self, pid: u32) {
        let _ = self.processes.insert(pid, 1, 0);
    }

    /// Prepares the iterator over all descriptors.
    ///
    /// # Errors
    /// Why this kernel cannot.
    pub fn descriptors(&mut self) -> Result<IterOpener, String> {
        self.loaded.opener(IterKind::Files)
    }

    /// Waits until the kernel reports records in the ring.
    ///
    /// # Errors
    /// epoll fails.
    pub async fn readable(&self) -> io::Result<()> {
        self.ring.readable().await.map(|mut guard| guard.clear_ready())
    }

    /// Passes up to `limit` records to `take`; returns their number.
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> usize {
        let ring = self.ring.get_mut();
        let mut count = 0;
        while count < limit {
            let Some(record) = ring.next() else { break };
            take(&record);
            count += 1;
        }
        count
    }

    /// Detaches the programs, unless they are pinned. Records in the ring stay.
    pub fn detach(&mut self) {
        self.loaded.links = Links::default();
    }

    /// The losses in `all` that the previous process has not reported.
    #[must_use]
    pub fn unreported(&self, all: Losses) -> Losses {
        let reported = self.reported;
        Losses {
            ring: all.ring.saturating_sub(reported.ring),
            evidence: all.evidence.saturating_sub(reported.evidence),
            recursion: all.recursion.saturating_sub(reported.recursion),
            stacks: all.stacks.saturating_sub(reported.stacks),
        }
    }

    /// Losses since the programs were attached.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn losses(&self) -> Result<Losses, SourceError> {
        // The misses are read before the counters: if the companion program writes an event between the two reads, the result is
        // too low until the next call, but never too high.
        let misses = self.program.as_ref().map_or(0, |program| recursion_misses(program.as_fd().as_raw_fd()));
        let cpus = self.counters.get(&0, 0)?;
        let sum = |field: fn(&PerCpu) -> u64| cpus.iter().map(|cpu| field(&cpu.0)).sum::<u64>();
        // A transition that the companion has written was a miss of the main program, and is not lost.
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
    number(&fdinfo(program), "recursion_misses:").unwrap_or(0)
}

fn fdinfo(program: RawFd) -> String {
    fs::read_to_string(format!("/proc/self/fdinfo/{program}")).unwrap_or_default()
}

fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}
