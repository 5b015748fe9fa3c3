//! What a look finds out about a socket beside its state and its ends, in a look and in the stream's `stuck` records.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use super::schema_types::EpollEvent;
use super::{
    Bytes, Rtt, Segments, Text, Traffic,
    cuts::Cuts,
    socket::{Workload, WorkloadFields},
};
use crate::model::{
    self, Diagnosis, MptcpPart, Process, SocketReport, State, Transport, Via, Watch,
    bounds::{self, Cut, ListLimits},
};
#[cfg(feature = "schema")]
use crate::model::{Reason, TimerKind};

/// What an examination of the socket adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Found<'a> {
    /// The processes that hold the socket.
    // Without this key the socket was not examined.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(extend("maxItems" = "holders")))]
    pub holders: Vec<Holder<'a>>,
    /// True if the holder is the kernel itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held_by_kernel: bool,
    /// The process that listens, if it is known and does not hold the connection itself; else null.
    pub creator: Option<ProcessName<'a>>,
    /// The listener that received the connection, or all possible ones; for SYN_SENT, the listeners on this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(extend("maxItems" = "listeners")))]
    pub listeners: Vec<Listener<'a>>,
    /// The unix sockets with descriptors in their queues, where the socket may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(extend("maxItems" = "messages")))]
    pub in_flight_in: Vec<Message<'a>>,
    /// The accept queue, if the socket is a listener; else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// The number of bytes that have arrived and that the application has not read; null if not known; absent for a
    /// listener.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "schema", schemars(extend("x-or-null" = true)))]
    pub unread_bytes: Option<Option<u32>>,
    /// The number of bytes that are not sent, or sent and not acknowledged; null if not known; absent for a listener.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "schema", schemars(extend("x-or-null" = true)))]
    pub unsent_bytes: Option<Option<u32>>,
    /// The timer that runs; null if none runs, or if it is not known.
    pub timer: Option<Timer<'a>>,
    /// The number of retransmissions in a row; null if it is not known.
    pub retransmits: Option<u8>,
    /// Bytes of data that the connection has transferred so far; absent if the kernel does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    /// Absent if the kernel does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<Segments>,
    /// The number of segments that this host has sent again since the connection began; absent if the kernel does not show
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_retransmits: Option<u32>,
    /// Absent if the kernel does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt: Option<Rtt>,
    /// The time for which the peer has not answered; null if it is not known.
    pub unanswered_ns: Option<u64>,
    /// The part of the socket in an MPTCP connection; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mptcp: Option<Mptcp<'a>>,
}

/// Distinguishes a key that is null from one that is absent.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

impl<'a> Found<'a> {
    /// What the connection had transferred; `None` if the line does not have all of it.
    pub(super) fn traffic(&self) -> Option<model::Traffic> {
        let traffic = Traffic {
            bytes: self.bytes?,
            segments: self.segments?,
            retransmits: self.total_retransmits?,
            rtt: self.rtt?,
            unread_bytes: self.unread_bytes.flatten()?.into(),
        };
        Some(traffic.record())
    }

    /// `limits` are those of the lists.
    pub(super) fn new(examined: &'a SocketReport, limits: &ListLimits, cuts: &mut Cuts) -> Self {
        let socket = &examined.socket;
        let listens = socket.state == State::Listen;
        let traffic = socket.traffic.as_ref().map(Traffic::of);
        let is_known = !socket.is_partial;
        let counts_bytes = !listens && socket.transport == Transport::Tcp;
        let messages = examined.elsewhere.as_ref().map_or(&[][..], |elsewhere| &elsewhere.messages);
        Self {
            holders: cuts.list("holders", examined.holders.iter(), limits.holders, Holder::new),
            held_by_kernel: examined.of_kernel,
            creator: examined.creator().map(|process| ProcessName::new(process, "creator.comm", cuts)),
            listeners: cuts.list(
                "listeners",
                examined.listeners.iter(),
                limits.listeners,
                |listener, cuts| Listener::new(listener, limits, cuts),
            ),
            in_flight_in: cuts.list("in_flight_in", messages.iter(), limits.messages, Message::new),
            backlog: (listens && is_known).then(|| Backlog {
                queued: socket.receive_queue,
                limit: socket.send_queue,
                full: socket.is_full(),
            }),
            unread_bytes: counts_bytes.then(|| is_known.then(|| socket.unread_bytes())),
            unsent_bytes: counts_bytes.then(|| is_known.then(|| socket.unsent_bytes())),
            timer: socket.timer.map(|timer| Timer { name: timer.kind.name().into(), left_ns: timer.left_ns }),
            retransmits: is_known.then_some(socket.retransmits),
            bytes: traffic.map(|traffic| traffic.bytes),
            segments: traffic.map(|traffic| traffic.segments),
            total_retransmits: traffic.map(|traffic| traffic.retransmits),
            rtt: traffic.map(|traffic| traffic.rtt),
            unanswered_ns: examined.unanswered_ns,
            mptcp: socket.mptcp.map(Mptcp::new),
        }
    }
}

/// The MPTCP connection that a socket is, or is a subflow of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Mptcp<'a> {
    /// The token of the MPTCP connection, as `ss` shows it; null if it is not known.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{1,8}$")))]
    pub token: Option<Text<'a>>,
    /// True for a subflow, false for the connection itself.
    pub subflow: bool,
    /// The number of subflows, only for the connection itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subflows: Option<usize>,
}

impl Mptcp<'_> {
    fn new(part: MptcpPart) -> Self {
        let subflows = if let MptcpPart::Whole { subflows, .. } = part { Some(subflows) } else { None };
        // In the form that `ss` shows.
        let token = part.token().map(|token| format!("{token:x}").into());
        Self { token, subflow: subflows.is_none(), subflows }
    }

    /// What the socket is to the connection.
    pub(super) fn part(&self) -> MptcpPart {
        let token = self.token.as_deref().and_then(|token| u32::from_str_radix(token, 16).ok());
        match self.subflows {
            Some(subflows) => MptcpPart::Whole { token, subflows },
            None => MptcpPart::Subflow { token },
        }
    }
}

/// A process that holds the socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("oneOf" = [{ "required": ["fd"] }, { "required": ["via"] }])))]
#[serde(default)]
pub struct Holder<'a> {
    /// The process id, in the initial pid namespace.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub pid: u32,
    /// The descriptor; absent if the process holds the socket by something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<u32>,
    /// What holds the socket, if it is not a descriptor.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["io_uring", "mapping"])))]
    pub via: Option<Text<'a>>,
    /// The descriptor of the io_uring instance, only with `io_uring`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_fd: Option<u32>,
    /// The thread whose own descriptor table has the descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub tid: Option<u32>,
    /// The name of the process.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub comm: Text<'a>,
    /// The executable of the process; null if sockstate could not read it.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::PATH)))]
    pub exe: Option<Text<'a>>,
    /// The events that the epoll instances of the process wait for on the descriptor; null if they are not known.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<EpollEvent>>"))]
    pub epoll: Option<Vec<Text<'a>>>,
    /// The path of the cgroup (v2) of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::PATH)))]
    pub cgroup: Option<Text<'a>>,
    #[serde(flatten)]
    pub workload: Workload<'a>,
    /// For a network stack in user space: what it holds sockets for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serves: Option<Served<'a>>,
}

impl<'a> Holder<'a> {
    fn new(holder: &'a model::Holder, cuts: &mut Cuts) -> Self {
        let epoll = holder.watch.as_ref().map(|watch| match watch {
            Watch::Epoll(events) => events.iter().copied().map(Text::from).collect(),
            Watch::NoEpoll => Vec::new(),
        });
        let Process { pid, comm, exe, cgroup, serves, .. } = &*holder.process;
        let (via, ring_fd) = match holder.via {
            Via::Descriptor(_) => (None, None),
            Via::IoUring(ring) => (Some("io_uring"), Some(ring)),
            Via::Mapping => (Some("mapping"), None),
        };
        Self {
            pid: *pid,
            fd: holder.fd(),
            via: via.map(Text::from),
            ring_fd,
            tid: holder.tid,
            comm: cuts.text("holders[].comm", comm, bounds::NAME).into(),
            exe: exe.as_deref().map(|exe| cuts.text("holders[].exe", exe, bounds::PATH).into()),
            epoll,
            cgroup: cgroup.as_deref().map(|path| cuts.text("holders[].cgroup", path, bounds::PATH).into()),
            workload: Workload::new(model::Workload::from(&*holder.process), WorkloadFields::HOLDER, cuts),
            serves: serves.as_deref().map(|served| Served {
                netns: served.netns,
                workload: Workload::new(model::Workload::from(served), WorkloadFields::SERVES, cuts),
            }),
        }
    }

    /// By what the process has it open.
    pub(super) fn via(&self) -> Via {
        match (self.fd, self.ring_fd) {
            (Some(fd), _) => Via::Descriptor(fd),
            (None, Some(ring)) => Via::IoUring(ring),
            (None, None) => Via::Mapping,
        }
    }
}

/// The place that a network stack in user space holds sockets for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Served<'a> {
    /// The inode number of the network namespace.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub netns: u32,
    #[serde(borrow, flatten)]
    pub workload: Workload<'a>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ProcessName<'a> {
    /// The process id, in the initial pid namespace.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub pid: u32,
    /// The name of the process.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub comm: Text<'a>,
}

impl<'a> ProcessName<'a> {
    fn new(process: &'a Process, field: &'static str, cuts: &mut Cuts) -> Self {
        Self { pid: process.pid, comm: cuts.text(field, &process.comm, bounds::NAME).into() }
    }
}

/// A listener that the socket came from, may have come from, or goes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Listener<'a> {
    /// The number of connections that no process has accepted.
    pub queued: u32,
    /// The limit of the accept queue.
    pub limit: u32,
    /// True if more connections are queued than the limit.
    pub full: bool,
    /// The processes that hold the listener.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(extend("maxItems" = "listening")))]
    pub holders: Vec<ProcessName<'a>>,
}

impl<'a> Listener<'a> {
    fn new(listener: &'a model::Listener, limits: &ListLimits, cuts: &mut Cuts) -> Self {
        let holder =
            |process: &'a _, cuts: &mut Cuts| ProcessName::new(process, "listeners[].holders[].comm", cuts);
        let holders = listener.holders.iter().map(|process| &**process);
        Self {
            queued: listener.queued,
            limit: listener.backlog,
            full: listener.is_full(),
            holders: cuts.list("listeners[].holders", holders, limits.listening, holder),
        }
    }
}

/// A unix socket whose queue has descriptors of the socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Message<'a> {
    /// A process that holds the unix socket.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub pid: u32,
    /// The descriptor of the unix socket.
    pub fd: u32,
    /// The name of the process.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub comm: Text<'a>,
    /// The number of descriptors in the queue.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub descriptors: u32,
}

impl<'a> Message<'a> {
    fn new(message: &'a model::Message, cuts: &mut Cuts) -> Self {
        Self {
            pid: message.process.pid,
            fd: message.fd,
            comm: cuts.text("in_flight_in[].comm", &message.process.comm, bounds::NAME).into(),
            descriptors: message.count,
        }
    }
}

/// The accept queue of a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Backlog {
    /// The number of connections that no process has accepted.
    pub queued: u32,
    /// The limit of the accept queue.
    pub limit: u32,
    /// True if more connections are queued than the limit.
    pub full: bool,
}

/// A timer of the socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Timer<'a> {
    /// The timer, by the name that `ss -o` uses.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "TimerKind"))]
    pub name: Text<'a>,
    /// The time until the timer expires.
    pub left_ns: u64,
}

/// Why a socket is stuck, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explained<'a> {
    /// Why the socket is stuck.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "Reason"))]
    pub reason: Text<'a>,
    /// The reason, as a sentence.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SENTENCE)))]
    pub why: Text<'a>,
    /// What to do, as a sentence.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SENTENCE)))]
    pub advice: Text<'a>,
    /// Commands that inspect the holders, and the command that ends the socket.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::COMMANDS + 1), inner(length(max = bounds::COMMAND))))]
    pub commands: Vec<Text<'a>>,
    /// Why none of `commands` ends the socket, and what ends it; absent if one of them does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = bounds::SENTENCE)))]
    pub cannot_destroy: Option<Text<'a>>,
}

impl<'a> Explained<'a> {
    pub(super) fn new(diagnosis: &'a Diagnosis, cuts: &mut Cuts) -> Self {
        let commands = &diagnosis.commands;
        if diagnosis.more_commands > 0 {
            let total = Some(commands.len() + diagnosis.more_commands);
            cuts.add(Cut { field: "commands", total });
        }
        let mut sentence = |field, text: &'a str| cuts.text(field, text, bounds::SENTENCE).into();
        Self {
            reason: diagnosis.reason.name().into(),
            why: sentence("why", &diagnosis.why),
            advice: sentence("advice", &diagnosis.advice),
            commands: commands.iter().map(|command| command.as_str().into()).collect(),
            cannot_destroy: diagnosis.cannot_destroy.as_deref().map(|how| sentence("cannot_destroy", how)),
        }
    }
}
