//! What a look finds out about a socket beside its state and its ends, in a look and in the stream's `stuck` records.

use serde::{Deserialize, Serialize};

use super::{
    Text,
    cuts::Cuts,
    socket::{Workload, WorkloadFields},
};
use crate::model::{
    self, Diagnosis, MptcpPart, Process, SocketReport, State, Transport, Via, Watch,
    bounds::{self, Cut, ListLimits},
};

/// What an examination of the socket adds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found<'a> {
    /// Without this key the socket was not examined.
    #[serde(borrow)]
    pub holders: Vec<Holder<'a>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held_by_kernel: bool,
    pub creator: Option<ProcessName<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight_in: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// A listener has no bytes; of a socket that is not known completely they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub unread_bytes: Option<Option<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub unsent_bytes: Option<Option<u32>>,
    pub timer: Option<Timer<'a>>,
    pub retransmits: Option<u8>,
    pub unanswered_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mptcp: Option<Mptcp<'a>>,
}

/// Distinguishes a key that is null from one that is absent.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

impl<'a> Found<'a> {
    /// `limits` are those of the lists.
    pub(super) fn new(examined: &'a SocketReport, limits: &ListLimits, cuts: &mut Cuts) -> Self {
        let socket = &examined.socket;
        let listens = socket.state == State::Listen;
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
            unanswered_ns: examined.unanswered_ns,
            mptcp: socket.mptcp.map(Mptcp::new),
        }
    }
}

/// The MPTCP connection that a socket is, or is a subflow of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mptcp<'a> {
    #[serde(borrow)]
    pub token: Option<Text<'a>>,
    pub subflow: bool,
    /// Only for the connection itself.
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

/// A process that has the socket open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder<'a> {
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<u32>,
    /// By what else, where it is not a descriptor.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub via: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_fd: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    pub comm: Text<'a>,
    pub exe: Option<Text<'a>>,
    pub epoll: Option<Vec<Text<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Text<'a>>,
    #[serde(flatten)]
    pub workload: Workload<'a>,
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

/// What a network stack in user space holds sockets for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Served<'a> {
    pub netns: u32,
    #[serde(borrow, flatten)]
    pub workload: Workload<'a>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessName<'a> {
    pub pid: u32,
    #[serde(borrow)]
    pub comm: Text<'a>,
}

impl<'a> ProcessName<'a> {
    fn new(process: &'a Process, field: &'static str, cuts: &mut Cuts) -> Self {
        Self { pid: process.pid, comm: cuts.text(field, &process.comm, bounds::NAME).into() }
    }
}

/// A listener that the socket came out of, may have come out of, or goes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener<'a> {
    pub queued: u32,
    pub limit: u32,
    pub full: bool,
    #[serde(borrow)]
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
#[serde(default)]
pub struct Message<'a> {
    pub pid: u32,
    pub fd: u32,
    #[serde(borrow)]
    pub comm: Text<'a>,
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
#[serde(default)]
pub struct Backlog {
    pub queued: u32,
    pub limit: u32,
    pub full: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timer<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    pub left_ns: u64,
}

/// Why a socket is stuck, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained<'a> {
    #[serde(borrow)]
    pub reason: Text<'a>,
    #[serde(default)]
    pub why: Text<'a>,
    #[serde(default)]
    pub advice: Text<'a>,
    #[serde(default)]
    pub commands: Vec<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
