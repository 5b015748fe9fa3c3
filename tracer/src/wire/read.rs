//! Reads lines as records. Keys of later versions are skipped; a key that an earlier version did not write counts as
//! unknown.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use sha1::{Digest, Sha1};
use thiserror::Error;

use super::{
    Explained, Found, Kind, Line, Opened, Owner, Placement, SCHEMA, SubjectKeys, Text, connection, errno,
    found, names::named, stream, transition, write::append,
};
use crate::model::{
    self, Cgroup, ConnId, Connection, Container, Diagnosis, Holder, InState, Listener, Lost, MissingStack,
    Process, Record, Resolved, Resync, Snapshot, SocketInfo, SocketReport, Stack, Start, State, Stop, Stuck,
    Subject, Task, Transition, Watch,
    bounds::{self, Cut},
};

/// Texts of a fixed set, such as the names of hooks, are leaked once each, as `&'static str`. Foreign input must not
/// leak without limit: a text that is longer, or comes after [`MOST_TEXTS`] others, is read as "unknown".
const MOST_TEXTS: usize = 4096;
const LONGEST_TEXT: usize = 64;
/// Bytes of subjects that are cached; with more, the cache is cleared.
const MOST_SUBJECT_BYTES: usize = 32 << 20;

/// The fields that `truncated` may name. A `stuck` record that is read and written again still names those that were
/// truncated when it was first written.
const FIELDS: [&str; 12] = [
    "cgroup.path",
    "container.id",
    "pod.uid",
    "unit",
    "holders",
    "holders[].exe",
    "listeners",
    "listeners[].holders",
    "why",
    "advice",
    "commands",
    "cannot_destroy",
];

/// A text that is not a line of sockstate.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// Not JSON, or a key is missing or has a wrong value.
    #[error("not a record of sockstate: {0}")]
    NoRecord(String),
    /// A line of a newer version.
    #[error("written by a newer sockstate ({0}); this one reads {SCHEMA}")]
    Schema(String),
}

/// Reads records; keeps what many of them share.
#[derive(Debug, Default)]
pub struct Parser {
    texts: HashSet<&'static str>,
    /// By the SHA-1 of their text in a line, which may be long.
    subjects: HashMap<[u8; 20], Rc<Subject>>,
    subject_text: Vec<u8>,
    subject_bytes: usize,
    last_subject: u64,
}

impl Parser {
    /// The record of a line; `None` for a kind that this version does not know, or of which it makes no record.
    ///
    /// # Errors
    /// The text is no record, or one of a newer version.
    pub fn parse(&mut self, text: &[u8]) -> Result<Option<Record>, ReadError> {
        let line = Line::read(text)?;
        if let Kind::Aggregate(_) | Kind::Other(_) = line.kind {
            return Ok(None);
        }
        let incomplete = || {
            let kind = line.kind.name();
            ReadError::NoRecord(format!("a required key of the {kind} is missing or has an unknown value"))
        };
        self.record(&line.kind).map(Some).ok_or_else(incomplete)
    }

    /// `None` if a key that the kind must have is missing or has an unknown value.
    fn record(&mut self, kind: &Kind<'_>) -> Option<Record> {
        Some(match kind {
            Kind::Transition(transition) => Record::Transition(self.transition(transition)?),
            Kind::Snapshot(snapshot) => Record::Snapshot(Snapshot {
                time_ns: snapshot.time.0,
                conn: self.conn(&snapshot.conn, &snapshot.socket)?,
                state: snapshot.socket.state()?,
            }),
            Kind::Resync(resync) => Record::Resync(Resync {
                time_ns: resync.time.0,
                conn: self.conn(&resync.conn, &resync.socket)?,
                was: resync.was.as_ref().and_then(|name| State::named(name, false, resync.was_number)),
                state: resync.socket.state()?,
            }),
            Kind::Stuck(stuck) => Record::Stuck(Stuck {
                time_ns: stuck.time.0,
                conn: self.conn(&stuck.conn, &stuck.socket)?,
                state: stuck.socket.state()?,
                age: stuck.age()?,
                times: stuck.times,
                found: self.found(stuck).map(Box::new),
                opened: opened(stuck),
            }),
            Kind::Resolved(resolved) => Record::Resolved(Resolved {
                time_ns: resolved.time.0,
                conn: self.conn(&resolved.conn, &resolved.socket)?,
                state: resolved.socket.state()?,
                to: State::named(&resolved.to, false, resolved.to_number)?,
                age: InState { ns: resolved.age_ns?, at_least: resolved.age_at_least },
            }),
            Kind::Lost(lost) => Record::Lost(Lost {
                time_ns: lost.time.0,
                since_ns: lost.since.map(|since| since.0),
                count: lost.count?,
                in_doubt: lost.in_doubt,
                place: named(&lost.place)?,
            }),
            Kind::Start(start) => Record::Start(self.start(start)?),
            Kind::Stop(stop) => Record::Stop(Stop {
                time_ns: stop.time.0,
                reason: self.keep(&stop.reason)?,
                transitions: stop.transitions?,
                lost: stop.lost.iter().filter_map(|(name, count)| Some((named(name)?, *count))).collect(),
                illegal: stop.illegal,
            }),
            Kind::Aggregate(_) | Kind::Other(_) => return None,
        })
    }

    fn start(&mut self, start: &stream::Start<'_>) -> Option<Start> {
        let host = start.host.as_ref()?;
        let degraded = start.degraded.iter().take(bounds::GAPS.items);
        Some(Start {
            time_ns: start.time.0,
            version: self.keep(&start.version)?,
            host: name(&host.name),
            kernel: name(&host.kernel),
            hook: self.keep(&start.hook)?,
            tier: self.keep(&start.tier)?,
            instance: instance(&start.instance)?,
            degraded: degraded.map(|why| sentence(why)).collect(),
            adopted: start.adopted.as_ref().and_then(|before| instance(&before.instance)),
        })
    }

    fn transition(&mut self, transition: &transition::Transition<'_>) -> Option<Transition> {
        let (mini, at_least) = (transition.mini, transition.in_state_at_least);
        Some(Transition {
            time_ns: transition.time.0,
            conn: Connection {
                id: id(&transition.conn)?,
                role: transition.role.as_deref().and_then(named),
                tuple: transition.ends.tuple()?,
                subject: self.subject(&transition.subject),
                mini,
            },
            from: State::named(&transition.from, mini, transition.from_number)?,
            to: State::named(&transition.to, mini, transition.to_number)?,
            in_state: transition.in_state_ns.map(|ns| InState { ns, at_least }),
            exact: transition.exact,
            illegal: transition.illegal,
            cause: transition.cause.as_deref().and_then(named),
            reset_why: transition.reset_why.as_deref().map(|why| self.keep(why).unwrap_or("unknown")),
            errno: transition.errno.as_deref().and_then(errno::number).unwrap_or(0),
        })
    }

    fn conn(&mut self, conn: &str, socket: &connection::Socket<'_>) -> Option<Connection> {
        Some(Connection {
            id: id(conn)?,
            role: socket.role.as_deref().and_then(named),
            tuple: socket.ends.tuple()?,
            subject: self.subject(&socket.subject),
            mini: socket.mini,
        })
    }

    /// What the examination of the stuck socket had found.
    fn found(&mut self, stuck: &connection::Stuck<'_>) -> Option<(SocketReport, Diagnosis)> {
        let (explained, nothing) = (stuck.explained.as_ref()?, Found::default());
        let diagnosis = diagnosis(explained, &stuck.truncated)?;
        let found = stuck.found.as_ref().unwrap_or(&nothing);
        let most = bounds::LOOK.holders.items;
        // The diagnosis has the number of commands that were left out.
        let is_of_socket = |cut: &Cut| cut.field != "commands";
        let mut cut: Vec<Cut> = cuts(&stuck.truncated).filter(is_of_socket).collect();
        // Earlier versions wrote more holders.
        if found.holders.len() > most {
            cut.push(Cut { field: "holders", total: Some(found.holders.len()) });
        }
        let examined = SocketReport {
            age: stuck.age(),
            holders: found.holders.iter().take(most).map(|holder| self.holder(holder)).collect(),
            listeners: found.listeners.iter().take(bounds::LOOK.listeners.items).map(listener).collect(),
            of_kernel: found.held_by_kernel,
            unanswered_ns: found.unanswered_ns,
            cut,
            ..SocketReport::new(socket_info(&stuck.socket, found)?)
        };
        Some((examined, diagnosis))
    }

    fn holder(&mut self, holder: &found::Holder<'_>) -> Holder {
        let exe = holder.exe.as_deref().map(path);
        let process =
            Arc::new(Process { pid: holder.pid, comm: name(&holder.comm), exe, ..Process::default() });
        let watch = holder.epoll.as_deref().map(|events| match events {
            [] => Watch::NoEpoll,
            events => {
                Watch::Epoll(events.iter().map(|event| self.keep(event).unwrap_or("unknown")).collect())
            }
        });
        Holder { process, via: holder.via(), tid: holder.tid, close_on_exec: None, watch }
    }

    /// The subject of a record: one object for all records with the same text.
    fn subject(&mut self, keys: &SubjectKeys<'_>) -> Rc<Subject> {
        let (owner, Placement { netns, cgroup, workload }) = (keys.owner.as_ref(), &keys.placement);
        self.subject_text.clear();
        append(keys, &mut self.subject_text);
        let key = Sha1::digest(&self.subject_text).into();
        if let Some(known) = self.subjects.get(&key) {
            return Rc::clone(known);
        }
        self.last_subject += 1;
        let runtime = workload.container.as_ref().and_then(|container| container.runtime.as_deref());
        let runtime = runtime.map(|runtime| self.keep(runtime).unwrap_or("unknown"));
        let subject = Rc::new(Subject {
            id: self.last_subject,
            owner: owner.map(owner_of),
            netns: *netns,
            cgroup: cgroup.as_ref().map(|cgroup| Cgroup {
                id: cgroup.id.parse().unwrap_or(0),
                path: cgroup.path.as_deref().map(path),
            }),
            container: workload
                .container
                .as_ref()
                .map(|container| Container { id: name(&container.id), runtime }),
            pod_uid: workload.pod.as_ref().map(|pod| name(&pod.uid)),
            unit: workload.unit.as_deref().map(name),
        });
        self.subject_bytes += size_of_val(&key) + subject.bytes();
        if self.subject_bytes > MOST_SUBJECT_BYTES {
            self.subjects.clear();
            self.subject_bytes = 0;
        }
        self.subjects.insert(key, Rc::clone(&subject));
        subject
    }

    /// The text as a `&'static str`: records that the tracer makes have constants here. `None` for a missing text.
    fn keep(&mut self, text: &str) -> Option<&'static str> {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.texts.get(text) {
            return Some(known);
        }
        if self.texts.len() >= MOST_TEXTS || text.len() > LONGEST_TEXT {
            return Some("unknown");
        }
        let kept: &'static str = text.to_owned().leak();
        self.texts.insert(kept);
        Some(kept)
    }
}

impl Kind<'_> {
    /// The value of the key `kind`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Start(_) => "start",
            Self::Snapshot(_) => "snapshot",
            Self::Transition(_) => "transition",
            Self::Aggregate(_) => "aggregate",
            Self::Resync(_) => "resync",
            Self::Stuck(_) => "stuck",
            Self::Resolved(_) => "resolved",
            Self::Lost(_) => "lost",
            Self::Stop(_) => "stop",
            Self::Other(other) => &other.kind,
        }
    }
}

impl connection::Socket<'_> {
    fn state(&self) -> Option<State> {
        State::named(&self.state, self.mini, self.state_number)
    }
}

impl connection::Stuck<'_> {
    fn age(&self) -> Option<InState> {
        Some(InState { ns: self.age_ns?, at_least: self.age_at_least })
    }
}

/// Where it was opened, or why that is not known.
fn opened(stuck: &connection::Stuck<'_>) -> Option<Result<Arc<Stack>, MissingStack>> {
    let stack = stuck.opened.as_ref().and_then(Opened::stack);
    stack.map(|stack| Ok(Arc::new(stack))).or_else(|| Some(Err(named(stuck.opening.as_deref()?)?)))
}

fn instance(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

fn id(conn: &str) -> Option<ConnId> {
    u64::from_str_radix(conn, 16).ok().map(ConnId)
}

/// The socket, as far as it is in a line.
fn socket_info(socket: &connection::Socket<'_>, found: &Found<'_>) -> Option<SocketInfo> {
    let interface = socket.ends.interface.as_ref().and_then(|interface| interface.name.as_deref());
    let (unread, unsent) = (found.unread_bytes.flatten(), found.unsent_bytes.flatten());
    let (unread, unsent) = (unread.unwrap_or(0), unsent.unwrap_or(0));
    let mut info = SocketInfo {
        mptcp: found.mptcp.as_ref().map(found::Mptcp::part),
        mini: socket.mini,
        interface: interface.map(|text| name(text).into()),
        uid: socket.subject.owner.as_ref().and_then(|owner| owner.uid),
        is_partial: found.retransmits.is_none(),
        receive_queue: unread,
        send_queue: unsent,
        retransmits: found.retransmits.unwrap_or(0),
        ..SocketInfo::bare(socket.subject.placement.netns.unwrap_or(0), socket.state()?, socket.ends.tuple()?)
    };
    // `SocketInfo` has the kernel's queues, which count a FIN as one byte; a line has the bytes without it.
    info.receive_queue += unread.saturating_sub(info.unread_bytes());
    info.send_queue += unsent.saturating_sub(info.unsent_bytes());
    Some(info)
}

/// `None` for a reason that this version does not know.
fn diagnosis(explained: &Explained<'_>, truncated: &[super::Part<'_>]) -> Option<Diagnosis> {
    let all = &explained.commands;
    let is_whole = |command: &&Text<'_>| bounds::shown(command, bounds::COMMAND).1;
    let commands = all.iter().filter(is_whole).take(bounds::COMMANDS + 1);
    let commands: Vec<String> = commands.map(ToString::to_string).collect();
    let known = cuts(truncated).find(|cut| cut.field == "commands").and_then(|cut| cut.total);
    let total = known.unwrap_or(0).max(all.len());
    Some(Diagnosis {
        reason: named(&explained.reason)?,
        why: sentence(&explained.why),
        advice: sentence(&explained.advice),
        more_commands: total - commands.len(),
        commands,
        cannot_destroy: explained.cannot_destroy.as_deref().map(sentence),
    })
}

fn cuts(truncated: &[super::Part<'_>]) -> impl Iterator<Item = Cut> {
    FIELDS.into_iter().filter_map(|field| {
        let part = truncated.iter().find(|part| &*part.field == field)?;
        Some(Cut { field, total: part.total })
    })
}

fn listener(listener: &found::Listener<'_>) -> Listener {
    let process = |process: &found::ProcessName<'_>| {
        Arc::new(Process { pid: process.pid, comm: name(&process.comm), ..Process::default() })
    };
    let holders = listener.holders.iter().take(bounds::LOOK.listening.items).map(process).collect();
    Listener { queued: listener.queued, backlog: listener.limit, holders }
}

fn owner_of(owner: &Owner<'_>) -> model::Owner {
    let mut comm = [0; 16];
    comm.iter_mut().zip(owner.comm.bytes()).for_each(|(to, from)| *to = from);
    model::Owner {
        task: Rc::new(Task { pid: owner.pid, exec_id: 0, start_ns: 0, comm }),
        comm: name(&owner.comm),
        exe: owner.exe.as_deref().map(path),
        uid: owner.uid,
        source: owner.source(),
        cmdline: owner.cmdline.as_deref().map(|text| bounds::kept(text, bounds::COMMAND_LINE).into()),
    }
}

fn name(text: &str) -> String {
    bounds::kept(text, bounds::NAME).to_owned()
}

fn path(text: &str) -> String {
    bounds::kept(text, bounds::PATH).to_owned()
}

fn sentence(text: &str) -> String {
    bounds::kept(text, bounds::SENTENCE).to_owned()
}
