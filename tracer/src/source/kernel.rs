//! The ring, and the counters of what did not get into it.

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
    fill::Fill,
    snapshot::{self, Found},
    walker::{Look, Walker},
};
use crate::{
    kernel::{Hook, IterOpener, Links, Loaded, Walk, pod::pod},
    model::Event,
};

/// Why the ring cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The object is not ours.
    #[error("the kernel programs lack the map {0}")]
    NoMap(&'static str),
    /// The map does not open.
    #[error("cannot open the ring: {0}")]
    Map(#[from] MapError),
    /// epoll does not take it, or its positions cannot be mapped.
    #[error("cannot watch the ring: {0}")]
    Wait(#[from] io::Error),
}

pod!(PodPerCpu, PerCpu);

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

/// What the kernel has counted of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Its name.
    pub name: String,
    /// Nanoseconds, of all CPUs.
    pub ns: u64,
    /// How often it was run.
    pub count: u64,
}

/// What a walk over the existing sockets hands on.
pub enum Walked<'a> {
    /// A record of the ring, older than the sights behind it.
    Record(&'a [u8]),
    /// A socket that exists.
    Sight(Event),
}

/// Programs that run, and their ring.
pub struct KernelSource {
    ring: AsyncFd<RingBuf<MapData>>,
    fill: Fill,
    size: Option<u64>,
    counters: PerCpuArray<MapData, PodPerCpu>,
    processes: HashMap<MapData, u32, u8>,
    /// The program whose recursion misses count.
    program: Option<ProgramFd>,
    /// Losses that are not ours to tell of.
    told: Losses,
    hook: Hook,
    loaded: Loaded,
}

impl KernelSource {
    /// Takes over the programs; they are detached when this is dropped.
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
        // Without it only a metric is missing.
        let size = ring.info().ok().map(|info| info.max_entries().into());
        let fill = Fill::of(ring.fd())?;
        let ring = RingBuf::try_from(Map::RingBuf(ring))?;
        // SAFETY: the ring owns its map's descriptor and keeps it open as long as it lives.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        let counters = PerCpuArray::try_from(counters)?;
        let processes = HashMap::try_from(processes)?;
        let (told, hook) = (Losses::default(), loaded.hook);
        Ok(Self { ring, fill, size, counters, processes, program, told, hook, loaded })
    }

    /// The previous process has already reported these losses.
    pub fn set_told(&mut self, told: Losses) {
        self.told = told;
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

    /// Bytes in the ring that wait for us, and how many it holds.
    #[must_use]
    pub fn ring_fill(&self) -> Option<(u64, u64)> {
        self.size.map(|size| (self.fill.bytes(), size))
    }

    /// How far the kernel has written the ring.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.fill.written()
    }

    /// Whether everything up to there was read. A record that is being written keeps back those behind it.
    #[must_use]
    pub fn has_read(&self, written: u64) -> bool {
        self.fill.read() >= written
    }

    /// Time that each program has run for and how often, while the kernel counts that (`kernel.bpf_stats_enabled`).
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

    /// Walks over everything that exists: first what processes hold, then the tables of every namespace (of `only` if given),
    /// each of their sockets behind all that the ring had when it was read.
    pub fn walk(&mut self, only: Option<u32>, mut take: impl FnMut(Walked<'_>)) -> Found {
        let mut found = Found::default();
        if self.loaded.btf.is_none() {
            // Said already, with the reason why there are no types.
            return found;
        }
        // Listeners first of all: whose connections came out of them meanwhile is in the ring.
        snapshot::held(&mut self.loaded, &mut found, &mut |event| take(Walked::Sight(event)));
        let ring = self.ring.get_mut();
        snapshot::sockets(&mut self.loaded, only, &mut found, &mut |event| {
            while let Some(record) = ring.next() {
                take(Walked::Record(&record));
            }
            take(Walked::Sight(event));
        });
        found
    }

    /// The types are not needed any more, and large; false where there are none.
    pub fn forget_types(&mut self) -> bool {
        self.loaded.btf.take().is_some()
    }

    /// Looks at the kernel's tables of every namespace, or of `only`; `began_ns` is the time.
    pub fn look(&mut self, walker: &Walker, only: Option<u32>, began_ns: u64) -> Look {
        walker.look(&mut self.loaded, only, began_ns)
    }

    /// The end, exec and renaming of this process are told from now on; where they cannot be, comparisons find its end.
    pub fn watch_process(&mut self, pid: u32) {
        let _ = self.processes.insert(pid, 1, 0);
    }

    /// Prepares a walk over all descriptors.
    ///
    /// # Errors
    /// Why this kernel cannot.
    pub fn descriptors(&mut self) -> Result<IterOpener, String> {
        self.loaded.opener(Walk::Files)
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

    /// Those of `all` that the previous process has not reported.
    #[must_use]
    pub fn untold(&self, all: Losses) -> Losses {
        let told = self.told;
        Losses {
            ring: all.ring.saturating_sub(told.ring),
            evidence: all.evidence.saturating_sub(told.evidence),
            recursion: all.recursion.saturating_sub(told.recursion),
            stacks: all.stacks.saturating_sub(told.stacks),
        }
    }

    /// What was lost since the programs were attached.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn losses(&self) -> Result<Losses, SourceError> {
        // Before the counters: what the companion takes between the two then hides a miss until the next time, and makes none.
        let misses = self.program.as_ref().map_or(0, |program| recursion_misses(program.as_fd().as_raw_fd()));
        let cpus = self.counters.get(&0, 0)?;
        let sum = |field: fn(&PerCpu) -> u64| cpus.iter().map(|cpu| field(&cpu.0)).sum::<u64>();
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
    number(&fdinfo(program), "recursion_misses:").unwrap_or(0)
}

fn fdinfo(program: RawFd) -> String {
    fs::read_to_string(format!("/proc/self/fdinfo/{program}")).unwrap_or_default()
}

fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}
