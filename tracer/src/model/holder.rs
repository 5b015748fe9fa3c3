//! Who has a socket open, and everything else that a look finds out about it.

use std::{rc::Rc, sync::Arc};

use super::{Container, Destroy, InState, SocketInfo, State, Subject, Task, bounds::Cut};

/// A process, by what /proc says of it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Executable, `None` where it cannot be read.
    pub exe: Option<String>,
    /// Its parent.
    pub parent: u32,
    /// Executable of the parent, `None` where it cannot be read.
    pub parent_exe: Option<String>,
    /// Nanoseconds since it was forked, when the look at its sockets began; an exec does not change that.
    pub age_ns: Option<u64>,
    /// Path of its cgroup in the v2 hierarchy.
    pub cgroup: Option<String>,
    /// The container that its cgroups belong to.
    pub container: Option<Container>,
    /// The Kubernetes pod that its cgroups belong to.
    pub pod_uid: Option<String>,
    /// The systemd unit that its cgroups belong to.
    pub unit: Option<String>,
    /// Of a network stack in user space: what it holds sockets for.
    pub serves: Option<Box<Served>>,
}

impl Process {
    /// The process as the kernel's programs name it, as far as /proc tells: not when it started.
    #[must_use]
    pub fn task(&self) -> Task {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(self.comm.bytes()) {
            *to = from;
        }
        Task { pid: self.pid, exec_id: 0, start_ns: 0, comm }
    }
}

/// The network namespace that a network stack in user space serves, and what runs there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The container that runs there.
    pub container: Option<Container>,
    /// Its Kubernetes pod.
    pub pod_uid: Option<String>,
    /// The systemd unit that runs there.
    pub unit: Option<String>,
}

/// What waits for events of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// An epoll instance of the process has it, for these events (`EPOLLIN`, ...).
    Epoll(Vec<&'static str>),
    /// No epoll instance of the process has it.
    NoEpoll,
}

/// By what a process has a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// This descriptor.
    Descriptor(u32),
    /// A registered file of the io_uring instance that has this descriptor.
    IoUring(u32),
    /// A mapping (zero-copy receive), without a descriptor.
    Mapping,
}

/// A process that has a socket open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Which.
    pub process: Arc<Process>,
    /// By what.
    pub via: Via,
    /// The thread whose own descriptor table it is in; `None` for the table of the process.
    pub tid: Option<u32>,
    /// Whether the descriptor is closed at an exec; `None` where nobody has looked.
    pub close_on_exec: Option<bool>,
    /// What waits for it; `None` where it cannot be read.
    pub watch: Option<Watch>,
}

impl Holder {
    /// The descriptor, if that is how it is held.
    #[must_use]
    pub fn fd(&self) -> Option<u32> {
        if let Via::Descriptor(fd) = self.via { Some(fd) } else { None }
    }
}

/// A unix socket in whose queue descriptors lie that nobody has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who has the unix socket open.
    pub process: Arc<Process>,
    /// As which descriptor.
    pub fd: u32,
    /// How many descriptors lie there (`scm_fds`).
    pub count: u32,
}

/// Where a socket with a file may be that no process holds in a way that /proc shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// In one of these queues.
    pub messages: Vec<Message>,
    /// In an io_uring instance of one of these, whose registered files or requests /proc does not tell.
    pub rings: Vec<Arc<Process>>,
}

/// The other end of a connection, in the same look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its state.
    pub state: State,
    /// Bytes that it has not got acknowledged.
    pub unacknowledged: u32,
    /// Since it last sent data, or else since the handshake, ns.
    pub since_data_sent_ns: Option<u64>,
}

/// A socket with everything that a look can find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The socket.
    pub socket: SocketInfo,
    /// Time in its state, `None` where nothing tells.
    pub age: Option<InState>,
    /// Time in its state at most, ns, `None` where nothing tells.
    pub age_at_most_ns: Option<u64>,
    /// Its threshold lies between what its age is at least and at most, and its age may be hidden: it may be stuck.
    pub may_be_stuck: bool,
    /// Every process that has it open, by up to [`bounds::DESCRIPTORS`](super::bounds::DESCRIPTORS) of its descriptors.
    pub holders: Vec<Holder>,
    /// Some processes' descriptors could not be read: there may be more holders.
    pub hidden_holders: bool,
    /// The kernel itself uses it, without a file: no process can have it open.
    pub of_kernel: bool,
    /// Where it may be, if it has a file and no holder.
    pub elsewhere: Option<Arc<Elsewhere>>,
    /// The listener that it came out of, if that still listens; all that it may be, where nothing tells which. Of a SYN_SENT:
    /// those of this host that its SYN may go to.
    pub listeners: Vec<Listener>,
    /// The other end, if that is in the same look.
    pub peer: Option<Peer>,
    /// How many connections its holders have shut down for sending and still read from (FIN_WAIT1, FIN_WAIT2).
    pub half_closed: usize,
    /// Who is known to have opened or accepted it, by a trace.
    pub maker: Option<Arc<Process>>,
    /// How long what was sent has not been answered, at least, ns.
    pub unanswered_ns: Option<u64>,
    /// Whether `ss -K` ends it.
    pub destroy: Destroy,
    /// It is bound to no interface, and one with the same ends is bound to one.
    pub has_bound_twin: bool,
    /// What is known to be longer than it is here.
    pub cut: Vec<Cut>,
}

impl Examined {
    /// A socket of which nothing more is known.
    #[must_use]
    pub fn new(socket: SocketInfo) -> Self {
        Self {
            socket,
            age: None,
            age_at_most_ns: None,
            may_be_stuck: false,
            holders: Vec::new(),
            hidden_holders: false,
            of_kernel: false,
            elsewhere: None,
            listeners: Vec::new(),
            peer: None,
            half_closed: 0,
            maker: None,
            unanswered_ns: None,
            destroy: Destroy::default(),
            has_bound_twin: false,
            cut: Vec::new(),
        }
    }

    /// Who accepted it, or would have to: the processes that listen.
    pub fn listening(&self) -> impl Iterator<Item = &Arc<Process>> {
        let of_local_end = self.socket.state != State::SynSent;
        self.listeners.iter().filter(move |_| of_local_end).flat_map(|listener| &*listener.holders)
    }

    /// How many descriptors and the like lead to it.
    #[must_use]
    pub fn holder_count(&self) -> usize {
        let known = self.cut.iter().find(|cut| cut.field == "holders").and_then(|cut| cut.total);
        known.unwrap_or(0).max(self.holders.len())
    }

    /// Whether this process has it open.
    #[must_use]
    pub fn is_held_by(&self, pid: u32) -> bool {
        self.holders.iter().any(|holder| holder.process.pid == pid)
    }

    /// Who accepted it, where that is somebody else than who has it open now: the process that listens, if just one does, or that of
    /// several which a trace knows.
    #[must_use]
    pub fn creator(&self) -> Option<&Process> {
        let first = self.listening().next()?;
        let known =
            self.maker.as_ref().and_then(|maker| self.listening().find(|process| process.pid == maker.pid));
        let is_only = self.listening().all(|other| other.pid == first.pid);
        let creator = known.or(is_only.then_some(first))?;
        (!self.is_held_by(creator.pid)).then_some(&**creator)
    }

    /// Takes in what a trace knows: who made it. Where several listen on its port, that tells which listener it came out of.
    pub fn learn_maker(&mut self, maker: Arc<Process>) {
        let is_its = |listener: &Listener| listener.holders.iter().any(|process| process.pid == maker.pid);
        if self.socket.state != State::SynSent && self.listeners.iter().any(is_its) {
            self.listeners.retain(is_its);
        }
        self.maker = Some(maker);
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

/// Where the process that has a socket open runs, or else where the socket was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home<'a> {
    /// The container.
    pub container: Option<&'a Container>,
    /// The Kubernetes pod.
    pub pod_uid: Option<&'a str>,
    /// The systemd unit.
    pub unit: Option<&'a str>,
}

impl Home<'_> {
    /// Whether a container, a pod or a unit is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.container.is_some() || self.pod_uid.is_some() || self.unit.is_some()
    }
}

impl<'a> From<&'a Process> for Home<'a> {
    fn from(process: &'a Process) -> Self {
        let Process { container, pod_uid, unit, .. } = process;
        Self { container: container.as_ref(), pod_uid: pod_uid.as_deref(), unit: unit.as_deref() }
    }
}

impl<'a> From<&'a Served> for Home<'a> {
    fn from(served: &'a Served) -> Self {
        let Served { container, pod_uid, unit, .. } = served;
        Self { container: container.as_ref(), pod_uid: pod_uid.as_deref(), unit: unit.as_deref() }
    }
}

impl<'a> From<&'a Subject> for Home<'a> {
    fn from(subject: &'a Subject) -> Self {
        let Subject { container, pod_uid, unit, .. } = subject;
        Self { container: container.as_ref(), pod_uid: pod_uid.as_deref(), unit: unit.as_deref() }
    }
}

impl Looked {
    /// Where its holders run, each place once; where nothing tells that, where the socket was made.
    #[must_use]
    pub fn homes(&self) -> Vec<Home<'_>> {
        let mut homes: Vec<Home<'_>> = Vec::new();
        for home in self.it.holders.iter().map(|holder| Home::from(&*holder.process)) {
            if home.is_known() && !homes.contains(&home) {
                homes.push(home);
            }
        }
        if homes.is_empty() {
            homes.push(Home::from(&*self.subject));
        }
        homes
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Connections that nobody has accepted.
    pub queued: u32,
    /// The limit of their number.
    pub backlog: u32,
    /// Who listens; one list for all connections.
    pub holders: Arc<[Arc<Process>]>,
}

impl Listener {
    /// Whether the kernel drops what comes: it allows one more than the limit (`sk_acceptq_is_full`).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued > self.backlog
    }
}
