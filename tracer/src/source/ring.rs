//! The ring of the kernel programs, and the counters of events that did not get into it.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, RawFd},
    thread,
    time::{Duration, Instant},
};

use aya::{
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::ProgramFd,
};
use serde::{Deserialize, Serialize};
use sockstate_abi::abi::PerCpu;
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::{
    netns_thread::{NetnsThread, TableScan},
    overlap::{Overlap, Records},
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

/// Bytes of the shortest record in the ring, with its header.
const SHORTEST: usize = 64;
/// How long the kernel may write one record. Doubles of records behind that one are not recognised.
const PATIENCE: Duration = Duration::from_secs(1);

/// Events that were lost since the first programs were attached that this process or its predecessors have continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Resets without a socket that have no record. They are no losses: a record has their number.
    #[serde(default)]
    pub resets: u64,
}

impl Losses {
    fn combine(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            ring: of(self.ring, other.ring),
            evidence: of(self.evidence, other.evidence),
            recursion: of(self.recursion, other.recursion),
            stacks: of(self.stacks, other.stacks),
            resets: of(self.resets, other.resets),
        }
    }

    /// The sums of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.combine(other, |one, other| one + other)
    }
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

/// The counters of the programs' losses.
pub struct LossCounters {
    map: PerCpuArray<MapData, PodPerCpu>,
    /// The program whose recursion misses are losses.
    program: Option<ProgramFd>,
    hook: Hook,
}

impl LossCounters {
    /// The counters of a previous process's programs.
    ///
    /// # Errors
    /// The map has another layout.
    pub fn new(map: MapData, program: ProgramFd, hook: Hook) -> Result<Self, SourceError> {
        Ok(Self { map: Map::PerCpuArray(map).try_into()?, program: Some(program), hook })
    }

    /// Losses since the programs were attached.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn losses(&self) -> Result<Losses, SourceError> {
        // The misses are read before the counters: if the companion program writes an event between the two reads, the result is
        // too low until the next call, but never too high.
        let misses = self.program.as_ref().map_or(0, |program| recursion_misses(program.as_fd().as_raw_fd()));
        let cpus = self.map.get(&0, 0)?;
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
            resets: sum(|cpu| cpu.resets),
        })
    }
}

/// The ring of earlier programs, which an upgrade reads to its end.
pub struct EarlierRing {
    ring: RingBuf<MapData>,
    usage: RingUsage,
    /// Up to this position, no other programs were attached when a record was written.
    boundary: u64,
    /// Whether this version can read the records, and the programs observed what the new ones observe.
    is_readable: bool,
}

impl EarlierRing {
    /// Opens the ring. The boundary is the kernel's present position in it.
    ///
    /// # Errors
    /// The ring cannot be opened.
    pub fn new(ring: MapData, is_readable: bool) -> Result<Self, SourceError> {
        let usage = RingUsage::of(ring.fd())?;
        let boundary = usage.written();
        Ok(Self { ring: RingBuf::try_from(Map::RingBuf(ring))?, usage, boundary, is_readable })
    }

    /// The boundary.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        self.boundary
    }

    /// Whether this version can read the records, and the programs observed what the new ones observe.
    pub fn set_readable(&mut self, is_readable: bool) {
        self.is_readable = is_readable;
    }

    /// Sets the boundary that the process noted which attached the new programs.
    pub fn set_boundary(&mut self, boundary: u64) {
        self.boundary = boundary;
    }

    /// Whether the reader is before the boundary. The programs discard no record, so the next one is before the boundary, too.
    fn is_before_boundary(&self) -> bool {
        self.is_readable && self.usage.read() < self.boundary
    }
}

/// The attached programs and their ring.
pub struct KernelSource {
    ring: AsyncFd<RingBuf<MapData>>,
    usage: RingUsage,
    size: Option<u64>,
    counters: LossCounters,
    processes: HashMap<MapData, u32, u8>,
    /// In an upgrade, the ring that is read first.
    earlier: Option<EarlierRing>,
    /// What both rings held from the boundary on, read from them and not yet passed on.
    overlap: Overlap,
    /// Losses of the programs that upgrades have replaced.
    carried: Losses,
    /// Losses that the previous process has already reported.
    reported: Losses,
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
        Ok(Self {
            ring,
            usage,
            size,
            counters: LossCounters { map: counters.try_into()?, program, hook: loaded.hook },
            processes: HashMap::try_from(processes)?,
            earlier: None,
            overlap: Overlap::default(),
            carried: Losses::default(),
            reported: Losses::default(),
            loaded,
        })
    }

    /// Sets what comes from programs that upgrades have replaced: their losses, and the ring that is read first.
    pub fn set_earlier(&mut self, carried: Losses, ring: Option<EarlierRing>) {
        self.carried = carried;
        self.earlier = ring;
    }

    /// Sets the losses that the previous process has already reported.
    pub fn set_reported(&mut self, reported: Losses) {
        self.reported = reported;
    }

    /// Name of the hook that sees transitions.
    #[must_use]
    pub fn hook(&self) -> &'static str {
        self.loaded.hook.name()
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

    /// Whether all records before position `written` were passed on. A record that is still being written delays the ones after it.
    #[must_use]
    pub fn has_read(&self, written: u64) -> bool {
        !self.is_upgrading() && self.usage.read() >= written
    }

    /// Whether earlier programs have left records that were not passed on.
    #[must_use]
    pub fn is_upgrading(&self) -> bool {
        self.earlier.is_some() || self.in_memory() > 0
    }

    /// How many records were read from the rings and not yet passed on.
    #[must_use]
    pub fn in_memory(&self) -> usize {
        self.overlap.len()
    }

    /// If both rings are to be read into memory next, how many records they have at most.
    #[must_use]
    pub fn most_of_overlap(&self) -> Option<usize> {
        let earlier = self.earlier.as_ref()?;
        let bytes = earlier.usage.bytes() + self.usage.bytes();
        (!earlier.is_before_boundary()).then(|| usize::try_from(bytes).unwrap_or(usize::MAX) / SHORTEST)
    }

    /// Reads into memory what both rings hold from the boundary on, without the doubles. Records that this version cannot read are left
    /// out; returns their number.
    pub fn read_overlap(&mut self) -> u64 {
        let Some(EarlierRing { mut ring, is_readable, .. }) = self.earlier.take() else { return 0 };
        if !is_readable {
            let mut count = 0;
            while ring.next().is_some() {
                count += 1;
            }
            return count;
        }
        let (mut earlier, mut new) = (Records::default(), Records::default());
        while let Some(record) = ring.next() {
            earlier.push(&record);
        }
        // Earlier programs no longer run, so that every double was written before this position.
        let written = self.usage.written();
        let ring = self.ring.get_mut();
        let deadline = Instant::now() + PATIENCE;
        while self.usage.read() < written && Instant::now() < deadline {
            match ring.next() {
                Some(record) => new.push(&record),
                // A program is writing the next record.
                None => thread::yield_now(),
            }
        }
        self.overlap = Overlap::of(&earlier, &new);
        0
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

    /// Loads the iterators, as [`KernelSource::walk`] does. Returns what then cannot be listed, and why.
    pub fn load_iterators(&mut self) -> Vec<String> {
        if self.loaded.btf.is_none() {
            // The loader has already reported why there is no BTF.
            return Vec::new();
        }
        let kinds = [(IterKind::Sockets, "sockets"), (IterKind::Files, "holders of sockets")];
        let errors = kinds.map(|(kind, what)| (what, self.loaded.opener(kind).err()));
        let failed = errors.into_iter().filter_map(|(what, error)| Some((what, error?)));
        failed.map(|(what, error)| format!("cannot list the {what}: {error}")).collect()
    }

    /// Frees the kernel's types (BTF), which are large; false if there were none. The iterators must be loaded before.
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
        let mut count = 0;
        if let Some(earlier) = &mut self.earlier {
            while count < limit && earlier.is_before_boundary() {
                let Some(record) = earlier.ring.next() else {
                    // A program that did not end in time is still writing this record.
                    earlier.boundary = 0;
                    break;
                };
                take(&record);
                count += 1;
            }
            return count;
        }
        while count < limit && self.overlap.next(&mut take) {
            count += 1;
        }
        let ring = self.ring.get_mut();
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
        all.combine(self.reported, u64::saturating_sub)
    }

    /// Losses of these programs and of those that they have replaced.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn losses(&self) -> Result<Losses, SourceError> {
        Ok(self.carried.plus(self.counters.losses()?))
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
