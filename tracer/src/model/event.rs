//! What the kernel told, decoded.

use super::{State, Tuple};

/// The process that acted, as the kernel knew it in that moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Changes at every exec; 0 where unknown.
    pub exec_id: u32,
    /// Start of the process in ns since boot, 0 where unknown.
    pub start_ns: u64,
    /// Name, up to 15 bytes that need not be UTF-8, without the padding.
    pub comm: [u8; 16],
}

impl Task {
    /// The name without its padding.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        let end = self.comm.iter().position(|&byte| byte == 0).unwrap_or(self.comm.len());
        &self.comm[..end]
    }
}

/// Key of the listener that a new socket was cloned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelListener(pub u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A socket went from one state to another.
    Transition {
        /// State before.
        from: State,
        /// State after.
        to: State,
        /// Who acted; only where the kernel acted in that process's own call.
        task: Option<Task>,
        /// Where a passive open came from.
        listener: Option<KernelListener>,
        /// Perhaps a second copy (see the companion program).
        maybe_copy: bool,
    },
    /// The local port of a connect is known now.
    PortKnown,
    /// A socket that exists.
    Socket {
        /// Its state.
        state: State,
        /// It is a mini-socket.
        mini: bool,
    },
    /// A socket that a process holds.
    Held {
        /// Its state.
        state: State,
        /// The holder.
        task: Task,
        /// Its file descriptor.
        fd: u32,
    },
}

/// One decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// The socket's key while it lives. Never shown.
    pub sk: u64,
    /// Cgroup v2 id of the socket.
    pub cgroup: Option<u64>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// Uid of the socket.
    pub uid: Option<u32>,
    /// Errno on the socket (`sk_err`), 0 for none.
    pub error: u16,
    /// Both ends.
    pub tuple: Tuple,
    /// What happened.
    pub kind: EventKind,
}
