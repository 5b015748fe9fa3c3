//! Our JSON lines (docs/events.md), read again. What a later version adds is skipped; what it leaves out is not known.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use serde::Deserialize;
use thiserror::Error;

use super::errno;
use crate::model::{
    Address, Cause, Cgroup, ConnId, Container, Diagnosis, Examined, Holder, InState, Listener, Lost,
    LostPlace, MptcpPart, Notice, Owner, OwnerSource, Process, Reason, Resolved, Resync, Role, Snapshot,
    SocketInfo, Start, State, Stop, Stuck, Subject, Task, Transition, Transport, Tuple, Via, Watch,
};

/// What `schema` says in records that this version reads.
const SCHEMA: &str = "sockstate/1";
/// Texts of a fixed set that are kept for ever: more are not believed.
const MOST_TEXTS: usize = 4096;
/// Owners that are kept; then it begins anew.
const MOST_SUBJECTS: usize = 1 << 16;

/// A line that is no record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// Not JSON, or not as ours is.
    #[error("not a record of sockstate: {0}")]
    NoRecord(String),
    /// A newer version's.
    #[error("written by a newer sockstate ({0}); this one reads {SCHEMA}")]
    Schema(String),
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A transition.
    Transition(Transition),
    /// Another one.
    Notice(Notice),
}

impl Told {
    /// Wall clock, ns since the epoch.
    #[must_use]
    pub fn time_ns(&self) -> i64 {
        match self {
            Self::Transition(it) => it.time_ns,
            Self::Notice(it) => it.time_ns(),
        }
    }
}

/// Reads records; keeps what many of them share.
#[derive(Debug, Default)]
pub struct Parser {
    texts: HashSet<&'static str>,
    subjects: HashMap<String, Rc<Subject>>,
    last_subject: u64,
}

type Text<'a> = Cow<'a, str>;

#[derive(Deserialize)]
struct Line<'a> {
    schema: &'a str,
    kind: &'a str,
    #[serde(borrow)]
    time: Text<'a>,
    /// Absent in recordings of earlier versions.
    #[serde(borrow)]
    since: Option<Text<'a>>,
    conn: Option<&'a str>,
    from: Option<&'a str>,
    from_number: Option<u8>,
    to: Option<&'a str>,
    to_number: Option<u8>,
    state: Option<&'a str>,
    state_number: Option<u8>,
    was: Option<&'a str>,
    was_number: Option<u8>,
    in_state_ns: Option<u64>,
    #[serde(default)]
    in_state_at_least: bool,
    age_ns: Option<u64>,
    #[serde(default)]
    age_at_least: bool,
    #[serde(default)]
    times: u8,
    role: Option<&'a str>,
    network: Option<Network<'a>>,
    local: Option<End>,
    remote: Option<End>,
    #[serde(borrow)]
    interface: Option<InterfaceOf<'a>>,
    #[serde(borrow)]
    owner: Option<OwnerOf<'a>>,
    netns: Option<u32>,
    #[serde(borrow)]
    cgroup: Option<CgroupOf<'a>>,
    #[serde(borrow)]
    container: Option<ContainerOf<'a>>,
    #[serde(borrow)]
    pod: Option<Pod<'a>>,
    #[serde(borrow)]
    unit: Option<Text<'a>>,
    #[serde(default = "yes")]
    exact: bool,
    #[serde(default)]
    mini: bool,
    #[serde(default)]
    illegal: Illegal,
    cause: Option<&'a str>,
    #[serde(borrow)]
    reset_why: Option<Text<'a>>,
    errno: Option<&'a str>,
    #[serde(borrow)]
    holders: Option<Vec<HolderOf<'a>>>,
    #[serde(borrow, default)]
    listeners: Vec<ListenerOf<'a>>,
    mptcp: Option<MptcpOf>,
    #[serde(default)]
    held_by_kernel: bool,
    unread_bytes: Option<u32>,
    unsent_bytes: Option<u32>,
    #[serde(default)]
    retransmits: Option<u8>,
    unanswered_ns: Option<u64>,
    reason: Option<&'a str>,
    #[serde(borrow)]
    why: Option<Text<'a>>,
    #[serde(borrow)]
    advice: Option<Text<'a>>,
    #[serde(default)]
    commands: Vec<String>,
    #[serde(borrow)]
    cannot_destroy: Option<Text<'a>>,
    count: Option<u64>,
    place: Option<&'a str>,
    #[serde(borrow)]
    version: Option<Text<'a>>,
    instance: Option<&'a str>,
    #[serde(borrow)]
    host: Option<Host<'a>>,
    hook: Option<&'a str>,
    tier: Option<&'a str>,
    #[serde(default)]
    degraded: Vec<String>,
    transitions: Option<u64>,
    #[serde(default)]
    lost: HashMap<String, u64>,
}

fn yes() -> bool {
    true
}

/// A transition is illegal or not; a `stop` says how many were.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Illegal {
    Is(bool),
    Count(u64),
}

impl Default for Illegal {
    fn default() -> Self {
        Self::Is(false)
    }
}

#[derive(Deserialize)]
struct Network<'a> {
    r#type: &'a str,
}

#[derive(Deserialize)]
struct End {
    address: IpAddr,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct InterfaceOf<'a> {
    index: u32,
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct OwnerOf<'a> {
    pid: u32,
    #[serde(borrow)]
    comm: Text<'a>,
    #[serde(borrow)]
    exe: Option<Text<'a>>,
    uid: Option<u32>,
    source: &'a str,
    #[serde(borrow)]
    cmdline: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct CgroupOf<'a> {
    id: &'a str,
    #[serde(borrow)]
    path: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ContainerOf<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    runtime: Option<&'a str>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    uid: Text<'a>,
}

#[derive(Deserialize)]
struct HolderOf<'a> {
    pid: u32,
    fd: Option<u32>,
    ring_fd: Option<u32>,
    tid: Option<u32>,
    #[serde(borrow)]
    comm: Text<'a>,
    #[serde(borrow)]
    exe: Option<Text<'a>>,
    epoll: Option<Vec<&'a str>>,
}

#[derive(Deserialize)]
struct ListenerOf<'a> {
    queued: u32,
    limit: u32,
    #[serde(borrow)]
    holders: Vec<ProcessOf<'a>>,
}

#[derive(Deserialize)]
struct MptcpOf {
    token: Option<String>,
    subflows: Option<usize>,
}

impl MptcpOf {
    fn part(&self) -> MptcpPart {
        let token = self.token.as_deref().and_then(|token| u32::from_str_radix(token, 16).ok());
        match self.subflows {
            Some(subflows) => MptcpPart::Whole { token, subflows },
            None => MptcpPart::Subflow { token },
        }
    }
}

#[derive(Deserialize)]
struct ProcessOf<'a> {
    pid: u32,
    #[serde(borrow)]
    comm: Text<'a>,
}

#[derive(Deserialize)]
struct Host<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    kernel: Option<Text<'a>>,
}

impl Parser {
    /// The record of a line; none for a kind that this version does not know, or has no use for here.
    ///
    /// # Errors
    /// It is no record, or a newer version's.
    pub fn parse(&mut self, line: &[u8]) -> Result<Option<Told>, ParseError> {
        let no_record = |what: &dyn std::fmt::Display| ParseError::NoRecord(what.to_string());
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| no_record(&error))?;
        if line.schema != SCHEMA {
            return Err(ParseError::Schema(line.schema.to_owned()));
        }
        let time_ns = nanoseconds(&line.time).map_err(|error| no_record(&error))?;
        self.told(&line, time_ns).ok_or_else(|| no_record(&format!("a {} that lacks something", line.kind)))
    }

    /// None where something is missing that its kind must have.
    fn told(&mut self, it: &Line<'_>, time_ns: i64) -> Option<Option<Told>> {
        let notice = match it.kind {
            "transition" => return Some(Some(Told::Transition(self.transition(it, time_ns)?))),
            "snapshot" => Notice::Snapshot(Snapshot {
                time_ns,
                conn: it.conn()?,
                state: it.state()?,
                role: it.role(),
                tuple: it.tuple()?,
                subject: self.subject(it),
                mini: it.mini,
            }),
            "resync" => Notice::Resync(Resync {
                time_ns,
                conn: it.conn()?,
                was: it.was.and_then(|name| State::named(name, false, it.was_number)),
                state: it.state()?,
                role: it.role(),
                tuple: it.tuple()?,
                subject: self.subject(it),
                mini: it.mini,
            }),
            "stuck" => Notice::Stuck(self.stuck(it, time_ns)?),
            "resolved" => Notice::Resolved(Resolved {
                time_ns,
                conn: it.conn()?,
                state: it.state()?,
                to: State::named(it.to?, false, it.to_number)?,
                age: it.age()?,
                role: it.role(),
                tuple: it.tuple()?,
                subject: self.subject(it),
            }),
            "lost" => Notice::Lost(Lost {
                time_ns,
                since_ns: it.since.as_deref().and_then(|since| nanoseconds(since).ok()),
                count: it.count?,
                place: place(it.place?)?,
            }),
            "start" => Notice::Start(Start {
                time_ns,
                version: self.keep(it.version.as_deref()?),
                host: it.host.as_ref()?.name.to_string(),
                kernel: it.host.as_ref()?.kernel.as_deref().unwrap_or_default().to_owned(),
                hook: self.keep(it.hook?),
                tier: self.keep(it.tier?),
                instance: u32::from_str_radix(it.instance?, 16).ok()?,
                degraded: it.degraded.clone(),
                adopted: None,
            }),
            "stop" => Notice::Stop(Stop {
                time_ns,
                reason: self.keep(it.reason?),
                transitions: it.transitions?,
                lost: it.lost.iter().filter_map(|(name, count)| Some((place(name)?, *count))).collect(),
                illegal: if let Illegal::Count(count) = it.illegal { count } else { 0 },
            }),
            _ => return Some(None),
        };
        Some(Some(Told::Notice(notice)))
    }

    fn transition(&mut self, it: &Line<'_>, time_ns: i64) -> Option<Transition> {
        Some(Transition {
            time_ns,
            conn: it.conn()?,
            from: State::named(it.from?, it.mini, it.from_number)?,
            to: State::named(it.to?, it.mini, it.to_number)?,
            in_state: it.in_state_ns.map(|ns| InState { ns, at_least: it.in_state_at_least }),
            role: it.role(),
            tuple: it.tuple()?,
            subject: self.subject(it),
            exact: it.exact,
            mini: it.mini,
            illegal: matches!(it.illegal, Illegal::Is(true)),
            cause: it.cause.and_then(|name| Cause::ALL.into_iter().find(|cause| cause.name() == name)),
            reset_why: it.reset_why.as_deref().map(|text| self.keep(text)),
            errno: it.errno.and_then(errno::number).unwrap_or(0),
        })
    }

    fn stuck(&mut self, it: &Line<'_>, time_ns: i64) -> Option<Stuck> {
        let found = self.found(it);
        Some(Stuck {
            time_ns,
            conn: it.conn()?,
            state: it.state()?,
            age: it.age()?,
            times: it.times,
            role: it.role(),
            tuple: it.tuple()?,
            subject: self.subject(it),
            mini: it.mini,
            found,
            opened: None,
        })
    }

    /// What a look had found.
    fn found(&mut self, it: &Line<'_>) -> Option<Box<(Examined, Diagnosis)>> {
        let reason = it.reason.and_then(|name| Reason::ALL.into_iter().find(|reason| reason.name() == name));
        let diagnosis = Diagnosis {
            reason: reason?,
            why: it.why.as_deref().unwrap_or_default().to_owned(),
            advice: it.advice.as_deref().unwrap_or_default().to_owned(),
            commands: it.commands.clone(),
            cannot_destroy: it.cannot_destroy.as_deref().map(ToOwned::to_owned),
        };
        let mut socket = SocketInfo {
            netns: it.netns.unwrap_or(0),
            transport: Transport::Tcp,
            mptcp: it.mptcp.as_ref().map(MptcpOf::part),
            state: it.state()?,
            mini: it.mini,
            tuple: it.tuple()?,
            interface: it.interface.as_ref().and_then(|it| it.name.as_deref()).map(Arc::from),
            uid: it.owner.as_ref().and_then(|owner| owner.uid),
            inode: 0,
            cgroup: None,
            is_partial: it.retransmits.is_none(),
            receive_queue: it.unread_bytes.unwrap_or(0),
            send_queue: it.unsent_bytes.unwrap_or(0),
            timer: None,
            retransmits: it.retransmits.unwrap_or(0),
            times: None,
            request: None,
        };
        // The kernel counts FINs.
        socket.receive_queue += it.unread_bytes.unwrap_or(0).saturating_sub(socket.unread_bytes());
        socket.send_queue += it.unsent_bytes.unwrap_or(0).saturating_sub(socket.unsent_bytes());
        let holders = it.holders.iter().flatten().map(|holder| self.holder(holder)).collect();
        let listeners = it.listeners.iter().map(listener).collect();
        let (age, unanswered_ns) = (it.age(), it.unanswered_ns);
        let of_kernel = it.held_by_kernel;
        let examined =
            Examined { age, holders, listeners, of_kernel, unanswered_ns, ..Examined::new(socket) };
        Some(Box::new((examined, diagnosis)))
    }

    fn holder(&mut self, it: &HolderOf<'_>) -> Holder {
        let exe = it.exe.as_deref().map(ToOwned::to_owned);
        let process = Arc::new(Process { pid: it.pid, comm: it.comm.to_string(), exe, ..Process::default() });
        let watch = it.epoll.as_ref().map(|events| match &events[..] {
            [] => Watch::NoEpoll,
            events => Watch::Epoll(events.iter().map(|event| self.keep(event)).collect()),
        });
        let via = match (it.fd, it.ring_fd) {
            (Some(fd), _) => Via::Descriptor(fd),
            (None, Some(ring)) => Via::IoUring(ring),
            (None, None) => Via::Mapping,
        };
        Holder { process, via, tid: it.tid, close_on_exec: None, watch }
    }

    /// Whose socket it is: one object for all records that say the same.
    fn subject(&mut self, it: &Line<'_>) -> Rc<Subject> {
        let owner = it.owner.as_ref();
        let key = format!(
            "{:?}",
            (
                owner.map(|it| (it.pid, &it.comm, &it.exe, it.uid, it.source, &it.cmdline)),
                it.netns,
                it.cgroup.as_ref().map(|it| it.id),
                it.container.as_ref().map(|it| &it.id),
                &it.unit,
            )
        );
        if let Some(known) = self.subjects.get(&key) {
            return Rc::clone(known);
        }
        if self.subjects.len() >= MOST_SUBJECTS {
            self.subjects.clear();
        }
        self.last_subject += 1;
        let runtime = it.container.as_ref().and_then(|it| it.runtime).map(|text| self.keep(text));
        let text = |text: &Text<'_>| text.to_string();
        let subject = Rc::new(Subject {
            id: self.last_subject,
            owner: owner.map(owner_of),
            netns: it.netns,
            cgroup: it
                .cgroup
                .as_ref()
                .map(|it| Cgroup { id: it.id.parse().unwrap_or(0), path: it.path.as_ref().map(text) }),
            container: it.container.as_ref().map(|it| Container { id: text(&it.id), runtime }),
            pod_uid: it.pod.as_ref().map(|it| text(&it.uid)),
            unit: it.unit.as_ref().map(text),
        });
        self.subjects.insert(key, Rc::clone(&subject));
        subject
    }

    /// A text that lives as long as the program, as those of the kernel's names do.
    fn keep(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.texts.get(text) {
            return known;
        }
        if self.texts.len() >= MOST_TEXTS {
            return "unknown";
        }
        let kept: &'static str = text.to_owned().leak();
        self.texts.insert(kept);
        kept
    }
}

impl Line<'_> {
    fn conn(&self) -> Option<ConnId> {
        u64::from_str_radix(self.conn?, 16).ok().map(ConnId)
    }

    fn state(&self) -> Option<State> {
        State::named(self.state?, self.mini, self.state_number)
    }

    fn age(&self) -> Option<InState> {
        Some(InState { ns: self.age_ns?, at_least: self.age_at_least })
    }

    fn role(&self) -> Option<Role> {
        Role::ALL.into_iter().find(|role| Some(role.name()) == self.role)
    }

    fn tuple(&self) -> Option<Tuple> {
        let (local, remote) = (self.local.as_ref()?, self.remote.as_ref()?);
        Some(Tuple {
            local: Address::from(local.address),
            remote: Address::from(remote.address),
            local_port: local.port.unwrap_or(0),
            remote_port: remote.port.unwrap_or(0),
            v6_socket: self.network.as_ref()?.r#type == "ipv6",
            interface: self.interface.as_ref().map_or(0, |interface| interface.index),
        })
    }
}

fn listener(it: &ListenerOf<'_>) -> Listener {
    let process = |it: &ProcessOf<'_>| {
        Arc::new(Process { pid: it.pid, comm: it.comm.to_string(), ..Process::default() })
    };
    Listener { queued: it.queued, backlog: it.limit, holders: it.holders.iter().map(process).collect() }
}

fn owner_of(it: &OwnerOf<'_>) -> Owner {
    let mut comm = [0; 16];
    comm.iter_mut().zip(it.comm.bytes()).for_each(|(to, from)| *to = from);
    let text = |text: &Text<'_>| text.to_string();
    Owner {
        task: Rc::new(Task { pid: it.pid, exec_id: 0, start_ns: 0, comm }),
        comm: it.comm.to_string(),
        exe: it.exe.as_ref().map(text),
        uid: it.uid,
        source: OwnerSource::ALL
            .into_iter()
            .find(|source| source.name() == it.source)
            .unwrap_or(OwnerSource::Scan),
        cmdline: it.cmdline.as_ref().map(text),
    }
}

fn nanoseconds(time: &str) -> Result<i64, String> {
    let time: jiff::Timestamp = time.parse().map_err(|error: jiff::Error| error.to_string())?;
    i64::try_from(time.as_nanosecond()).map_err(|error| error.to_string())
}

fn place(name: &str) -> Option<LostPlace> {
    LostPlace::ALL.into_iter().find(|place| place.name() == name)
}
