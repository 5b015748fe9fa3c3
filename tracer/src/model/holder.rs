//! The processes that hold a socket, and what else a look finds out about the socket.

use std::{rc::Rc, sync::Arc};

use super::{
    Aggregate, Container, Destroy, InState, Nat, Pod, SocketInfo, State, Subject, Task, bounds::Cut,
};

/// A process as /proc shows it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub comm: String,
    /// Executable, `None` where it cannot be read.
    pub exe: Option<String>,
    /// Process id of its parent.
    pub parent: u32,
    /// Executable of the parent, `None` where it cannot be read.
    pub parent_exe: Option<String>,
    /// Nanoseconds from its fork to the beginning of the look; an exec does not change that.
    pub age_ns: Option<u64>,
    /// Path of its cgroup in the v2 hierarchy.
    pub cgroup: Option<String>,
    /// The container that its cgroups belong to.
    pub container: Option<Container>,
    /// The Kubernetes pod that its cgroups belong to.
    pub pod: Option<Pod>,
    /// The systemd unit that its cgroups belong to.
    pub unit: Option<String>,
    /// For a network stack in user space (pasta, slirp4netns): the namespace that it serves.
    pub serves: Option<Box<Served>>,
}

impl Process {
    /// The process in the form of the kernel programs, without its start time and exec id.
    #[must_use]
    pub fn task(&self) -> Task {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(self.comm.bytes()) {
            *to = from;
        }
        Task { pid: self.pid, exec_id: 0, start_ns: 0, comm }
    }
}

/// The network namespace that a network stack in user space serves, and the workload in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The container that runs there.
    pub container: Option<Container>,
    /// The Kubernetes pod.
    pub pod: Option<Pod>,
    /// The systemd unit that runs there.
    pub unit: Option<String>,
}

/// How a process waits for events of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// An epoll instance of the process has the descriptor, for these events (`EPOLLIN`, ...).
    Epoll(Vec<&'static str>),
    /// No epoll instance of the process has the descriptor.
    NoEpoll,
}

/// How a process holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    Descriptor(u32),
    /// A registered file of the io_uring instance that has this descriptor.
    IoUring(u32),
    /// A mapping (zero-copy receive), without a descriptor.
    Mapping,
}

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub process: Arc<Process>,
    pub via: Via,
    /// The thread whose own descriptor table has the socket; `None` for the table of the process.
    pub tid: Option<u32>,
    /// Whether the descriptor is closed at an exec; `None` where that was not read.
    pub close_on_exec: Option<bool>,
    /// How the process waits for events; `None` where that cannot be read.
    pub watch: Option<Watch>,
}

impl Holder {
    /// The descriptor, if the process holds the socket by one.
    #[must_use]
    pub fn fd(&self) -> Option<u32> {
        if let Via::Descriptor(fd) = self.via { Some(fd) } else { None }
    }
}

/// A unix socket whose queue has descriptors that no process has received yet (`SCM_RIGHTS`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The process that holds the unix socket.
    pub process: Arc<Process>,
    /// The process's descriptor of the unix socket.
    pub fd: u32,
    /// How many descriptors are in the queue (`scm_fds`).
    pub count: u32,
}

/// Places that may hold a socket with a file, where /proc shows no process with a descriptor of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Unix sockets with descriptors in their queues.
    pub messages: Vec<Message>,
    /// Processes with an io_uring instance whose registered files or requests /proc does not show.
    pub rings: Vec<Arc<Process>>,
}

/// The socket at the other end of a connection, where the same look found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub state: State,
    /// Bytes that the peer has sent and that are not acknowledged.
    pub unacknowledged: u32,
    /// Nanoseconds since the peer last sent data, or since the handshake if it has sent none.
    pub since_data_sent_ns: Option<u64>,
}

/// Everything that a look finds out about one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketReport {
    pub socket: SocketInfo,
    /// Time in its state; `None` where it is not known.
    pub age: Option<InState>,
    /// Upper bound of the time in its state, ns; `None` where it is not known.
    pub age_at_most_ns: Option<u64>,
    /// The threshold lies between the lower and the upper bound of its age, so the socket may be stuck.
    pub may_be_stuck: bool,
    /// Every process that holds it, with up to [`bounds::DESCRIPTORS`](super::bounds::DESCRIPTORS) descriptors for each.
    pub holders: Vec<Holder>,
    /// The descriptors of some processes could not be read, so there may be more holders.
    pub hidden_holders: bool,
    /// The kernel itself uses the socket, without a file, so no process can hold it.
    pub of_kernel: bool,
    /// Places that may hold it, if it has a file and no holder.
    pub elsewhere: Option<Arc<Elsewhere>>,
    /// The listener that the connection came from, if that listener still exists; all candidates, where it is not known which
    /// one. For a SYN_SENT: the listeners of this host that its SYN may go to.
    pub listeners: Vec<Listener>,
    pub peer: Option<Peer>,
    /// How many connections its holders have shut down for sending and still read from (FIN_WAIT1, FIN_WAIT2).
    pub half_closed: usize,
    /// From a trace: the process that called connect(), or the owner of the listener; not necessarily the process that called
    /// accept().
    pub opener: Option<Arc<Process>>,
    /// How the connection is called beyond the translations of conntrack; `None` if there are none, or if that is not known.
    pub nat: Option<Nat>,
    /// Lower bound of the time since the oldest unanswered segment was sent, ns.
    pub unanswered_ns: Option<u64>,
    /// Whether `ss -K` ends the socket.
    pub destroy: Destroy,
    /// The socket is bound to no interface, and another socket with the same ends is bound to one.
    pub has_bound_twin: bool,
    /// Fields that are longer than they are here, as a recording says.
    pub cut: Vec<Cut>,
}

impl SocketReport {
    /// A report with the socket alone.
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
            opener: None,
            nat: None,
            unanswered_ns: None,
            destroy: Destroy::default(),
            has_bound_twin: false,
            cut: Vec::new(),
        }
    }

    /// The processes that listen, and so accepted it or have to accept it.
    pub fn listening(&self) -> impl Iterator<Item = &Arc<Process>> {
        let of_local_end = self.socket.state != State::SynSent;
        self.listeners.iter().filter(move |_| of_local_end).flat_map(|listener| &*listener.holders)
    }

    /// How many holders the socket has, also those that a recording left out.
    #[must_use]
    pub fn holder_count(&self) -> usize {
        let known = self.cut.iter().find(|cut| cut.field == "holders").and_then(|cut| cut.total);
        known.unwrap_or(0).max(self.holders.len())
    }

    #[must_use]
    pub fn is_held_by(&self, pid: u32) -> bool {
        self.holders.iter().any(|holder| holder.process.pid == pid)
    }

    /// The process that most likely called accept(), if it is not among the current holders: the only process that listens, or
    /// the one of several listening processes that is `opener`.
    #[must_use]
    pub fn creator(&self) -> Option<&Process> {
        let first = self.listening().next()?;
        let known = self
            .opener
            .as_ref()
            .and_then(|opener| self.listening().find(|process| process.pid == opener.pid));
        let is_only = self.listening().all(|other| other.pid == first.pid);
        let creator = known.or(is_only.then_some(first))?;
        (!self.is_held_by(creator.pid)).then_some(&**creator)
    }

    /// Adds the process that a trace saw opening the socket. Where several listeners share its port, this process also decides
    /// which of them the connection came from.
    pub fn learn_opener(&mut self, opener: Arc<Process>) {
        let is_openers =
            |listener: &Listener| listener.holders.iter().any(|process| process.pid == opener.pid);
        if self.socket.state != State::SynSent && self.listeners.iter().any(is_openers) {
            self.listeners.retain(is_openers);
        }
        self.opener = Some(opener);
    }

    /// The larger of its time in the state and the time since its oldest unanswered segment, ns, where one of them is known.
    #[must_use]
    pub fn no_progress_ns(&self) -> Option<u64> {
        self.age.map(|age| age.ns).max(self.unanswered_ns)
    }
}

/// One socket in the output of `stuck` and `sockets`, with the subject that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketEntry {
    pub report: SocketReport,
    /// The subject of the socket. Its owner is the first holder.
    pub subject: Rc<Subject>,
}

/// The container, pod and unit of a process that holds a socket, or of the socket itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload<'a> {
    pub container: Option<&'a Container>,
    pub pod: Option<&'a Pod>,
    pub unit: Option<&'a str>,
}

impl Workload<'_> {
    /// Whether a container, a pod or a unit is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.container.is_some() || self.pod.is_some() || self.unit.is_some()
    }
}

impl<'a> From<&'a Process> for Workload<'a> {
    fn from(process: &'a Process) -> Self {
        let Process { container, pod, unit, .. } = process;
        Self { container: container.as_ref(), pod: pod.as_ref(), unit: unit.as_deref() }
    }
}

impl<'a> From<&'a Served> for Workload<'a> {
    fn from(served: &'a Served) -> Self {
        let Served { container, pod, unit, .. } = served;
        Self { container: container.as_ref(), pod: pod.as_ref(), unit: unit.as_deref() }
    }
}

impl<'a> From<&'a Subject> for Workload<'a> {
    fn from(subject: &'a Subject) -> Self {
        let Subject { container, pod, unit, .. } = subject;
        Self { container: container.as_ref(), pod: pod.as_ref(), unit: unit.as_deref() }
    }
}

impl<'a> From<&'a Aggregate> for Workload<'a> {
    fn from(aggregate: &'a Aggregate) -> Self {
        let Aggregate { container, pod, unit, .. } = aggregate;
        Self { container: container.as_ref(), pod: pod.as_ref(), unit: unit.as_deref() }
    }
}

impl SocketEntry {
    /// The workloads of its holders, without repetition; if none is known, the workload of the socket's own cgroup.
    #[must_use]
    pub fn workloads(&self) -> Vec<Workload<'_>> {
        let mut workloads: Vec<Workload<'_>> = Vec::new();
        for workload in self.report.holders.iter().map(|holder| Workload::from(&*holder.process)) {
            if workload.is_known() && !workloads.contains(&workload) {
                workloads.push(workload);
            }
        }
        if workloads.is_empty() {
            workloads.push(Workload::from(&*self.subject));
        }
        workloads
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Connections that wait in its accept queue.
    pub queued: u32,
    /// The limit of the accept queue.
    pub backlog: u32,
    /// The processes that listen; all connections of the listener share this list.
    pub holders: Arc<[Arc<Process>]>,
}

impl Listener {
    /// Whether the kernel drops new connections: the queue may have one more than the limit (`sk_acceptq_is_full`).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued > self.backlog
    }
}
