//! Reads lines as records. Keys of later versions are skipped; a key that an earlier version did not write counts as
//! unknown.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use sha1::{Digest, Sha1};
use thiserror::Error;

use super::{
    ClusterPeer, Ends, Explained, Found, Kind, Lifespan, Line, Nat, Owner, Placement, SCHEMA, Socket, Stuck,
    SubjectKeys, Text, Transition,
    fixed_texts::FixedTexts,
    found,
    names::named,
    text::{append, image, name, path, sentence},
};
use crate::model::{
    self, Cgroup, ConnId, Connection, Container, Diagnosis, Holder, Listener, Pod, PodWorkload, Process,
    Record, SocketInfo, SocketReport, Subject, Task, Watch,
    bounds::{self, Cut},
};

/// Bytes of subjects that are cached; with more, the cache is cleared.
const MOST_SUBJECT_BYTES: usize = 32 << 20;

/// The fields that `truncated` may name. A `stuck` record that is read and written again still names those that were
/// truncated when it was first written.
const FIELDS: [&str; 18] = [
    "cgroup.path",
    "container.id",
    "container.image",
    "container.name",
    "pod.name",
    "pod.namespace",
    "pod.uid",
    "pod.workload.kind",
    "pod.workload.name",
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
    texts: FixedTexts,
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
            Kind::Transition(transition) => {
                let conn = self.conn_of_transition(transition)?;
                Record::Transition(transition.record(conn, &mut self.texts)?)
            }
            Kind::Connection(lifespan) => {
                let Lifespan { conn, role, ends, peer, subject, .. } = &**lifespan;
                let conn = self.conn_of(conn, role.as_deref(), ends, peer.as_ref(), subject, false)?;
                Record::Connection(Box::new(lifespan.record(conn, &mut self.texts)?))
            }
            Kind::Snapshot(snapshot) => {
                Record::Snapshot(snapshot.record(self.conn(&snapshot.conn, &snapshot.socket)?)?)
            }
            Kind::Resync(resync) => Record::Resync(resync.record(self.conn(&resync.conn, &resync.socket)?)?),
            Kind::Stuck(stuck) => {
                let conn = self.conn(&stuck.conn, &stuck.socket)?;
                Record::Stuck(stuck.record(conn, self.found(stuck))?)
            }
            Kind::Resolved(resolved) => {
                Record::Resolved(resolved.record(self.conn(&resolved.conn, &resolved.socket)?)?)
            }
            Kind::Reset(reset) => Record::Reset(reset.record()?),
            Kind::Lost(lost) => Record::Lost(lost.record()?),
            Kind::Start(start) => Record::Start(start.record(&mut self.texts)?),
            Kind::Stop(stop) => Record::Stop(stop.record(&mut self.texts)?),
            Kind::Aggregate(_) | Kind::Other(_) => return None,
        })
    }

    fn conn_of_transition(&mut self, transition: &Transition<'_>) -> Option<Connection> {
        let Transition { conn, role, ends, peer, subject, mini, .. } = transition;
        self.conn_of(conn, role.as_deref(), ends, peer.as_ref(), subject, *mini)
    }

    fn conn(&mut self, conn: &str, socket: &Socket<'_>) -> Option<Connection> {
        let Socket { role, ends, peer, subject, mini, .. } = socket;
        self.conn_of(conn, role.as_deref(), ends, peer.as_ref(), subject, *mini)
    }

    fn conn_of(
        &mut self,
        conn: &str,
        role: Option<&str>,
        ends: &Ends<'_>,
        peer: Option<&ClusterPeer<'_>>,
        subject: &SubjectKeys<'_>,
        mini: bool,
    ) -> Option<Connection> {
        Some(Connection {
            id: id(conn)?,
            role: role.and_then(named),
            tuple: ends.tuple()?,
            nat: ends.nat.as_ref().map(|nat| Rc::new(nat.nat())),
            peer: peer.and_then(ClusterPeer::peer).map(Arc::new),
            subject: self.subject(subject),
            mini,
        })
    }

    /// What the examination of the stuck socket had found.
    fn found(&mut self, stuck: &Stuck<'_>) -> Option<(SocketReport, Diagnosis)> {
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
            nat: stuck.socket.ends.nat.as_ref().map(Nat::nat),
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
                Watch::Epoll(events.iter().map(|event| self.texts.keep(event).unwrap_or("unknown")).collect())
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
        let runtime = runtime.map(|runtime| self.texts.keep(runtime).unwrap_or("unknown"));
        let subject = Rc::new(Subject {
            id: self.last_subject,
            owner: owner.map(owner_of),
            netns: *netns,
            cgroup: cgroup.as_ref().map(|cgroup| Cgroup {
                id: cgroup.id.parse().unwrap_or(0),
                path: cgroup.path.as_deref().map(path),
            }),
            container: workload.container.as_ref().map(|container| Container {
                id: name(&container.id),
                runtime,
                name: container.name.as_deref().map(name),
                image: container.image.as_deref().map(image),
            }),
            pod: workload.pod.as_ref().map(|pod| Pod {
                uid: name(&pod.uid),
                name: pod.name.as_deref().map(name),
                namespace: pod.namespace.as_deref().map(name),
                workload: pod
                    .workload
                    .as_ref()
                    .map(|workload| PodWorkload { kind: name(&workload.kind), name: name(&workload.name) }),
                labels: bounds::labels(pod.labels.iter().map(|(name, value)| (&**name, &**value))),
            }),
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
}

fn id(conn: &str) -> Option<ConnId> {
    u64::from_str_radix(conn, 16).ok().map(ConnId)
}

/// The socket, as far as it is in a line.
fn socket_info(socket: &Socket<'_>, found: &Found<'_>) -> Option<SocketInfo> {
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
        traffic: found.traffic(),
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
