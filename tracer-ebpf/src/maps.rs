//! Maps, and the frozen globals that user space sets before the load.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use sockstate_abi::abi::{
    ABSENT, Allowance, Ends, Filter, Hooks, Hunt, ORPHANS as MAX_ORPHANS, Offsets, PORT_WORDS, PerCpu,
    Python, RING_BYTES, TracepointFormat,
};

/// All records, in order. User space sets the size.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Each CPU's counters and the companion's memory; one entry.
#[map]
pub(crate) static PER_CPU: PerCpuArray<PerCpu> = PerCpuArray::with_max_entries(1, 0);

/// Three bitmaps of 65,536 ports: local, remote, either.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS * 3, 0);

/// FIN_WAIT2 mini-sockets by their ends; only filled by `probes/timers.rs`. User space sets the size.
#[map]
pub(crate) static ORPHANS: HashMap<Ends, u64> = HashMap::with_max_entries(MAX_ORPHANS, 0);

/// What each process was given of its stacks' rate, by process id; only filled by `probes/opened.rs`.
#[map]
pub(crate) static ALLOWANCES: LruHashMap<u32, Allowance> = LruHashMap::with_max_entries(1024, 0);

/// Processes that run CPython 3.13 or newer, by process id; user space fills it for `hunt`.
#[map]
pub(crate) static PYTHONS: LruHashMap<u32, Python> = LruHashMap::with_max_entries(4096, 0);

/// Most steps of a walk through a process's memory: threads and interpreters, of which the newest are the first.
pub(crate) const MOST_STEPS: u32 = 512;

/// As many entries as there are steps; nothing is in them.
#[map]
pub(crate) static STEPS: Array<u32> = Array::with_max_entries(MOST_STEPS, 0);

/// Processes whose end, exec and change of name are told: those that called listen(), and those that user space adds.
#[map]
pub(crate) static PROCESSES: HashMap<u32, u8> = HashMap::with_max_entries(16_384, 0);

/// Whose stacks are taken.
#[unsafe(no_mangle)]
pub(crate) static HUNT: Hunt =
    Hunt { comm: [0; 16], pid: 0, rate: 100, pc: 128, sp: 152, fp: 32, lr: ABSENT };

/// What the hooks look like on this kernel.
#[unsafe(no_mangle)]
pub(crate) static HOOKS: Hooks = Hooks { tw_timer: 1, req_timer: 1, hash_add_result: 0, reset_reason: 0 };

/// Where the fields are in this kernel's structures.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::NONE;

/// Where the fields are in the classic tracepoint's record.
#[unsafe(no_mangle)]
pub(crate) static FORMAT: TracepointFormat = TracepointFormat {
    skaddr: 8,
    oldstate: 16,
    newstate: 20,
    sport: 24,
    dport: 26,
    family: 28,
    protocol: 30,
    protocol_size: 2,
    saddr: 32,
    daddr: 36,
    saddr_v6: 40,
    daddr_v6: 56,
};

/// What is wanted.
#[unsafe(no_mangle)]
pub(crate) static FILTER: Filter = Filter::ALL;

/// A field of a frozen global. Volatile, because user space has changed it since this was compiled.
macro_rules! frozen {
    ($global:ident . $field:ident) => {
        $crate::maps::load(&raw const $crate::maps::$global.$field)
    };
}
pub(crate) use frozen;

/// Reads what `place`, a field of one of the globals above, holds.
#[inline(always)]
pub(crate) fn load<T: Copy>(place: *const T) -> T {
    // SAFETY: every caller passes an aligned field of a static, which nobody writes while programs run.
    unsafe { core::ptr::read_volatile(place) }
}
