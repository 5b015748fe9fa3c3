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

/// Counters and the companion program's state, for each CPU; one entry.
#[map]
pub(crate) static PER_CPU: PerCpuArray<PerCpu> = PerCpuArray::with_max_entries(1, 0);

/// Three bitmaps of 65,536 ports: local, remote, either.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS * 3, 0);

/// FIN_WAIT2 mini-sockets by their ends. Filled by `probes/timers.rs` only; user space sets the size.
#[map]
pub(crate) static ORPHANS: HashMap<Ends, u64> = HashMap::with_max_entries(MAX_ORPHANS, 0);

/// The stacks that each process has used of its rate, by process id. Filled by `probes/opened.rs` only.
#[map]
pub(crate) static ALLOWANCES: LruHashMap<u32, Allowance> = LruHashMap::with_max_entries(1024, 0);

/// Processes that run CPython 3.13 or newer, by process id. User space fills the map for `hunt`.
#[map]
pub(crate) static PYTHONS: LruHashMap<u32, Python> = LruHashMap::with_max_entries(4096, 0);

/// Most steps of a walk through a process's memory: threads and interpreters, of which the newest are the first.
pub(crate) const MOST_STEPS: u32 = 512;

/// A loop of [`MOST_STEPS`] steps iterates over this map; its values are not used.
#[map]
pub(crate) static STEPS: Array<u32> = Array::with_max_entries(MOST_STEPS, 0);

/// Processes whose exit, exec and change of name are reported: those that called listen(), and those that user space adds.
#[map]
pub(crate) static PROCESSES: HashMap<u32, u8> = HashMap::with_max_entries(16_384, 0);

/// The processes whose stacks are taken.
#[unsafe(no_mangle)]
pub(crate) static HUNT: Hunt =
    Hunt { comm: [0; 16], pid: 0, rate: 100, pc: 128, sp: 152, fp: 32, lr: ABSENT };

/// Properties of the hooks that differ between kernels.
#[unsafe(no_mangle)]
pub(crate) static HOOKS: Hooks =
    Hooks { tw_timer: 1, req_timer: 1, hash_add_result: 0, reset_reason: 0, no_socket: 0, pad: 0 };

/// Offsets of the fields in the running kernel's structures.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::NONE;

/// Offsets of the fields in the classic tracepoint's record.
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

/// The transitions that the user wants.
#[unsafe(no_mangle)]
pub(crate) static FILTER: Filter = Filter::ALL;

/// Reads a field of a frozen global. The read is volatile, because user space sets the value after compilation.
macro_rules! frozen {
    ($global:ident . $field:ident) => {
        $crate::maps::load(&raw const $crate::maps::$global.$field)
    };
}
pub(crate) use frozen;

/// Reads a field of one of the globals above.
#[inline(always)]
pub(crate) fn load<T: Copy>(field: *const T) -> T {
    // SAFETY: every caller passes an aligned field of a static, which is not written while programs run.
    unsafe { core::ptr::read_volatile(field) }
}
