//! What is known of a socket beside its state and its ends, as JSON: in a look and in the stream's `stuck` records.

use serde::Serialize;

use super::cuts::Cuts;
use crate::model::{
    Container, Diagnosis, Holder, Listener, Message, MptcpPart, Process, SocketReport, State, Subject,
    Transport, Via, Watch, Workload,
    bounds::{self, Cut, ListLimits},
};

/// What only a look shows.
#[derive(Serialize)]
pub(super) struct Seen<'a> {
    holders: Vec<HolderOf<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    held_by_kernel: bool,
    creator: Option<Creator<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<ListenerOf<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    in_flight_in: Vec<MessageOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<Backlog>,
    /// A listener has no bytes; of a partial socket they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_bytes: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsent_bytes: Option<Option<u32>>,
    timer: Option<TimerOf>,
    retransmits: Option<u8>,
    unanswered_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mptcp: Option<MptcpOf>,
}

impl<'a> Seen<'a> {
    /// `rooms` is what there is for lists.
    pub(super) fn new(it: &'a SocketReport, rooms: &ListLimits, cuts: &mut Cuts) -> Self {
        let socket = &it.socket;
        let listens = socket.state == State::Listen;
        let is_known = !socket.is_partial;
        let counts_bytes = !listens && socket.transport == Transport::Tcp;
        let messages = it.elsewhere.as_ref().map_or(&[][..], |elsewhere| &elsewhere.messages);
        Self {
            holders: cuts.list("holders", it.holders.iter(), rooms.holders, HolderOf::new),
            held_by_kernel: it.of_kernel,
            creator: it.creator().map(|process| Creator::new(process, "creator.comm", cuts)),
            listeners: cuts.list("listeners", it.listeners.iter(), rooms.listeners, |listener, cuts| {
                ListenerOf::new(listener, rooms, cuts)
            }),
            in_flight_in: cuts.list("in_flight_in", messages.iter(), rooms.messages, MessageOf::new),
            backlog: (listens && is_known).then(|| Backlog {
                queued: socket.receive_queue,
                limit: socket.send_queue,
                full: socket.is_full(),
            }),
            unread_bytes: counts_bytes.then(|| is_known.then(|| socket.unread_bytes())),
            unsent_bytes: counts_bytes.then(|| is_known.then(|| socket.unsent_bytes())),
            timer: socket.timer.map(|timer| TimerOf { name: timer.kind.name(), left_ns: timer.left_ns }),
            retransmits: is_known.then_some(socket.retransmits),
            unanswered_ns: it.unanswered_ns,
            mptcp: socket.mptcp.map(MptcpOf::new),
        }
    }
}

/// The MPTCP connection that it is, or is a subflow of.
#[derive(Serialize)]
struct MptcpOf {
    token: Option<String>,
    subflow: bool,
    /// Of the connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    subflows: Option<usize>,
}

impl MptcpOf {
    fn new(part: MptcpPart) -> Self {
        let subflows = if let MptcpPart::Whole { subflows, .. } = part { Some(subflows) } else { None };
        // As `ss` shows it.
        let token = part.token().map(|token| format!("{token:x}"));
        Self { token, subflow: subflows.is_none(), subflows }
    }
}

#[derive(Serialize)]
struct HolderOf<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<u32>,
    /// Only where that is no descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ring_fd: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    comm: &'a str,
    exe: Option<&'a str>,
    epoll: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(flatten)]
    workload: WorkloadOf<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serves: Option<ServedOf<'a>>,
}

/// What a network stack in user space holds sockets for.
#[derive(Serialize)]
struct ServedOf<'a> {
    netns: u32,
    #[serde(flatten)]
    workload: WorkloadOf<'a>,
}

impl<'a> HolderOf<'a> {
    fn new(it: &'a Holder, cuts: &mut Cuts) -> Self {
        let epoll = it.watch.as_ref().map(|watch| match watch {
            Watch::Epoll(events) => events.as_slice(),
            Watch::NoEpoll => &[],
        });
        let Process { pid, comm, exe, cgroup, serves, .. } = &*it.process;
        let (via, ring_fd) = match it.via {
            Via::Descriptor(_) => (None, None),
            Via::IoUring(ring) => (Some("io_uring"), Some(ring)),
            Via::Mapping => (Some("mapping"), None),
        };
        Self {
            pid: *pid,
            fd: it.fd(),
            via,
            ring_fd,
            tid: it.tid,
            comm: cuts.text("holders[].comm", comm, bounds::NAME),
            exe: exe.as_deref().map(|exe| cuts.text("holders[].exe", exe, bounds::PATH)),
            epoll,
            cgroup: cgroup.as_deref().map(|path| cuts.text("holders[].cgroup", path, bounds::PATH)),
            workload: WorkloadOf::new(Workload::from(&*it.process), HOLDER, cuts),
            serves: serves.as_deref().map(|served| ServedOf {
                netns: served.netns,
                workload: WorkloadOf::new(Workload::from(served), SERVES, cuts),
            }),
        }
    }
}

#[derive(Serialize)]
struct Creator<'a> {
    pid: u32,
    comm: &'a str,
}

impl<'a> Creator<'a> {
    fn new(process: &'a Process, field: &'static str, cuts: &mut Cuts) -> Self {
        Self { pid: process.pid, comm: cuts.text(field, &process.comm, bounds::NAME) }
    }
}

/// A listener that it came out of, may have come out of, or goes to.
#[derive(Serialize)]
struct ListenerOf<'a> {
    queued: u32,
    limit: u32,
    full: bool,
    holders: Vec<Creator<'a>>,
}

impl<'a> ListenerOf<'a> {
    fn new(listener: &'a Listener, rooms: &ListLimits, cuts: &mut Cuts) -> Self {
        let holder =
            |process: &'a _, cuts: &mut Cuts| Creator::new(process, "listeners[].holders[].comm", cuts);
        Self {
            queued: listener.queued,
            limit: listener.backlog,
            full: listener.is_full(),
            holders: cuts.list(
                "listeners[].holders",
                listener.holders.iter().map(|process| &**process),
                rooms.listening,
                holder,
            ),
        }
    }
}

/// A unix socket in whose queue descriptors lie.
#[derive(Serialize)]
struct MessageOf<'a> {
    pid: u32,
    fd: u32,
    comm: &'a str,
    descriptors: u32,
}

impl<'a> MessageOf<'a> {
    fn new(message: &'a Message, cuts: &mut Cuts) -> Self {
        Self {
            pid: message.process.pid,
            fd: message.fd,
            comm: cuts.text("in_flight_in[].comm", &message.process.comm, bounds::NAME),
            descriptors: message.count,
        }
    }
}

#[derive(Serialize)]
struct Backlog {
    queued: u32,
    limit: u32,
    full: bool,
}

#[derive(Serialize)]
struct TimerOf {
    name: &'static str,
    left_ns: u64,
}

/// What it means.
#[derive(Serialize)]
pub(super) struct Explained<'a> {
    reason: &'static str,
    why: &'a str,
    advice: &'a str,
    commands: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    cannot_destroy: Option<&'a str>,
}

impl<'a> Explained<'a> {
    pub(super) fn new(it: &'a Diagnosis, cuts: &mut Cuts) -> Self {
        if it.more_commands > 0 {
            cuts.add(Cut { field: "commands", total: Some(it.commands.len() + it.more_commands) });
        }
        let mut sentence = |field, text: &'a str| cuts.text(field, text, bounds::SENTENCE);
        Self {
            reason: it.reason.name(),
            why: sentence("why", &it.why),
            advice: sentence("advice", &it.advice),
            commands: &it.commands,
            cannot_destroy: it.cannot_destroy.as_deref().map(|how| sentence("cannot_destroy", how)),
        }
    }
}

/// Where a socket runs. Null for what could be known of every socket; absent what most have not.
#[derive(Serialize)]
pub(super) struct Place<'a> {
    netns: Option<u32>,
    cgroup: Option<CgroupOf<'a>>,
    #[serde(flatten)]
    workload: WorkloadOf<'a>,
}

/// Container, pod and unit; absent where there is none.
#[derive(Serialize)]
pub(super) struct WorkloadOf<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<ContainerOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
}

/// The keys of container, pod and unit, by where they stand.
pub(super) type WorkloadFields = [&'static str; 3];
const PLACE: WorkloadFields = ["container.id", "pod.uid", "unit"];
pub(super) const MADE_IN: WorkloadFields = ["made_in.container.id", "made_in.pod.uid", "made_in.unit"];
const HOLDER: WorkloadFields = ["holders[].container.id", "holders[].pod.uid", "holders[].unit"];
const SERVES: WorkloadFields =
    ["holders[].serves.container.id", "holders[].serves.pod.uid", "holders[].serves.unit"];

impl<'a> WorkloadOf<'a> {
    pub(super) fn new(
        workload: Workload<'a>,
        [container, pod, unit]: WorkloadFields,
        cuts: &mut Cuts,
    ) -> Self {
        let mut name = |field, text: &'a str| cuts.text(field, text, bounds::NAME);
        let of = |it: &'a Container, id| ContainerOf { id, runtime: it.runtime };
        Self {
            container: workload.container.map(|it| of(it, name(container, &it.id))),
            pod: workload.pod_uid.map(|uid| Pod { uid: name(pod, uid) }),
            unit: workload.unit.map(|text| name(unit, text)),
        }
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(it: &'a Subject, cuts: &mut Cuts) -> Self {
        Self::with(it, Workload::from(it), cuts)
    }

    /// The same where `workload` is known better.
    pub(super) fn with(it: &'a Subject, workload: Workload<'a>, cuts: &mut Cuts) -> Self {
        let mut path = |path: &'a str| cuts.text("cgroup.path", path, bounds::PATH);
        Self {
            netns: it.netns,
            cgroup: it
                .cgroup
                .as_ref()
                .map(|it| CgroupOf { id: it.id.to_string(), path: it.path.as_deref().map(&mut path) }),
            workload: WorkloadOf::new(workload, PLACE, cuts),
        }
    }
}

#[derive(Serialize)]
struct CgroupOf<'a> {
    id: String,
    path: Option<&'a str>,
}

#[derive(Serialize)]
struct ContainerOf<'a> {
    id: &'a str,
    runtime: Option<&'static str>,
}

#[derive(Serialize)]
struct Pod<'a> {
    uid: &'a str,
}
