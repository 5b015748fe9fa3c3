//! Who has a socket open, and everything else that a look finds out about it.

use std::{rc::Rc, sync::Arc};

use super::{InState, SocketInfo, Subject};

/// A process, by what /proc says of it now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Executable, null where it cannot be read.
    pub exe: Option<String>,
    /// Its parent.
    pub parent: u32,
}

/// What waits for events of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// An epoll instance of the process has it, for these events (`EPOLLIN`, ...).
    Epoll(Vec<&'static str>),
    /// No epoll instance of the process has it.
    NoEpoll,
}

/// A process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub process: Arc<Process>,
    /// Its descriptor.
    pub fd: u32,
    /// Null where it cannot be read.
    pub watch: Option<Watch>,
}

/// A socket with everything that a look can find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The socket.
    pub socket: SocketInfo,
    /// Time in its state, null where nothing tells.
    pub age: Option<InState>,
    /// Every process that has it open.
    pub holders: Vec<Holder>,
    /// Some processes' descriptors could not be read: there may be more holders.
    pub hidden_holders: bool,
    /// The listener that it came out of, if that still listens.
    pub listener: Option<Listener>,
    /// How long what was sent has not been answered, at least, ns.
    pub unanswered_ns: Option<u64>,
}

impl Examined {
    /// Who accepted it, where that is somebody else than who has it open now: the listener's process.
    #[must_use]
    pub fn creator(&self) -> Option<&Process> {
        let creator = &**self.listener.as_ref()?.holders.first()?;
        let holds = self.holders.iter().any(|holder| holder.process.pid == creator.pid);
        (!holds).then_some(creator)
    }

    /// For how long it has not moved on, ns, as far as anything tells.
    #[must_use]
    pub fn idle_ns(&self) -> Option<u64> {
        self.age.map(|age| age.ns).max(self.unanswered_ns)
    }
}

/// A socket of a look, and where it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The socket.
    pub it: Examined,
    /// Where it runs; the owner is the first holder.
    pub subject: Rc<Subject>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Connections that nobody has accepted.
    pub queued: u32,
    /// The most of them.
    pub backlog: u32,
    /// Who listens.
    pub holders: Vec<Arc<Process>>,
}
