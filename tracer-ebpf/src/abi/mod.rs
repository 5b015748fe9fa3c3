//! Types and constants that the kernel programs share with user space.
//!
//! All types are `repr(C)`, made of fixed-width integers with explicit padding; byte order is the host's
//! except where a comment says otherwise.

mod config;
mod record;

#[cfg(not(target_arch = "bpf"))]
pub use config::OFFSET_PATHS;
pub use config::{ABSENT, Filter, Hooks, Hunt, Offsets, Python, TracepointFormat};
pub use record::{
    Allowance, Counters, Ends, Head, Listener, PYTHON_FRAMES, PerCpu, PythonFrame, PythonStack, Registers,
    STACK_BYTES, Task, V4, V6, closed, end, flag, kind, opened, process, sent,
};

/// Address family of IPv4 (`AF_INET`).
pub const AF_INET: u16 = 2;
/// Address family of IPv6 (`AF_INET6`), v4-mapped addresses included.
pub const AF_INET6: u16 = 10;

/// Number of `u64` words in one port bitmap of the `PORTS` map.
pub const PORT_WORDS: u32 = 65_536 / 64;
/// Index of the bitmap of wanted local ports in the `PORTS` map, in bitmaps.
pub const PORTS_LOCAL: u32 = 0;
/// Index of the bitmap of wanted remote ports.
pub const PORTS_REMOTE: u32 = 1;
/// Index of the bitmap of ports wanted on either side.
pub const PORTS_EITHER: u32 = 2;

/// Most FIN_WAIT2 mini-sockets that the tier `timers` follows at once.
pub const ORPHANS: u32 = 16_384;

/// Default size of the event ring in bytes.
pub const RING_BYTES: u32 = 16 << 20;

/// The kernel's state numbers that the programs compare (`include/net/tcp_states.h`).
pub mod state {
    /// `TCP_SYN_SENT`.
    pub const SYN_SENT: u8 = 2;
    /// `TCP_SYN_RECV`.
    pub const SYN_RECV: u8 = 3;
    /// `TCP_FIN_WAIT1`.
    pub const FIN_WAIT1: u8 = 4;
    /// `TCP_FIN_WAIT2`.
    pub const FIN_WAIT2: u8 = 5;
    /// `TCP_TIME_WAIT`.
    pub const TIME_WAIT: u8 = 6;
    /// `TCP_CLOSE`.
    pub const CLOSE: u8 = 7;
    /// `TCP_LAST_ACK`.
    pub const LAST_ACK: u8 = 9;
    /// `TCP_LISTEN`.
    pub const LISTEN: u8 = 10;
    /// `TCP_NEW_SYN_RECV`, the state of a request socket.
    pub const NEW_SYN_RECV: u8 = 12;
    /// Number of states, the unused 0 included (`TCP_MAX_STATES`).
    pub const COUNT: u8 = 14;
}

/// The layout of the records, the ring and the counters. A version with another number cannot read them: raise it when a field changes
/// its place or its meaning, or when a reader takes the absence of a new bit or record for an answer.
#[cfg(not(target_arch = "bpf"))]
pub const LAYOUT: u32 = 2;
