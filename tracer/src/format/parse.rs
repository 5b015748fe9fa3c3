//! Our JSON lines (docs/events.md), read again. What a later version adds is skipped; what it leaves out is not known.

mod line;

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use line::{HolderOf, Illegal, Line, ListenerOf, MptcpOf, OwnerOf, ProcessOf, Text, name, path, sentence};
use thiserror::Error;

use super::errno;
use crate::model::{
    Cause, Cgroup, Connection, Container, Diagnosis, Holder, InState, Listener, Lost, LostPlace, Owner,
    OwnerSource, Process, Reason, Record, Resolved, Resync, Snapshot, SocketInfo, SocketReport, Start, State,
    Stop, Stuck, Subject, Task, Transition, Transport, Via, Watch,
    bounds::{self, Cut},
};

/// What `schema` says in records that this version reads.
const SCHEMA: &str = "sockstate/1";
/// Texts of a fixed set that are kept for ever: more or longer ones are not believed.
const MOST_TEXTS: usize = 4096;
const LONGEST_TEXT: usize = 64;
/// Bytes of owners that are kept; then all are forgotten, and kept again as they come.
const MOST_SUBJECT_BYTES: usize = 32 << 20;

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

/// Reads records; keeps what many of them share.
#[derive(Debug, Default)]
pub struct Parser {
    texts: HashSet<&'static str>,
    subjects: HashMap<String, Rc<Subject>>,
    subject_bytes: usize,
    last_subject: u64,
}

impl Parser {
    /// The record of a line; none for a kind that this version does not know, or has no use for here.
    ///
    /// # Errors
    /// It is no record, or a newer version's.
    pub fn parse(&mut self, line: &[u8]) -> Result<Option<Record>, ParseError> {
        let no_record = |what: &dyn std::fmt::Display| ParseError::NoRecord(what.to_string());
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| no_record(&error))?;
        if line.schema != SCHEMA {
            return Err(ParseError::Schema(line.schema.to_owned()));
        }
        let time_ns = nanoseconds(&line.time).map_err(|error| no_record(&error))?;
        self.record(&line, time_ns).ok_or_else(|| no_record(&format!("a {} that lacks something", line.kind)))
    }

    /// None where something is missing that its kind must have.
    fn record(&mut self, it: &Line<'_>, time_ns: i64) -> Option<Option<Record>> {
        let record = match it.kind {
            "transition" => Record::Transition(self.transition(it, time_ns)?),
            "snapshot" => Record::Snapshot(Snapshot { time_ns, conn: self.conn(it)?, state: it.state()? }),
            "resync" => Record::Resync(Resync {
                time_ns,
                conn: self.conn(it)?,
                was: it.was.and_then(|name| State::named(name, false, it.was_number)),
                state: it.state()?,
            }),
            "stuck" => Record::Stuck(self.stuck(it, time_ns)?),
            "resolved" => Record::Resolved(Resolved {
                time_ns,
                conn: self.conn(it)?,
                state: it.state()?,
                to: State::named(it.to?, false, it.to_number)?,
                age: it.age()?,
            }),
            "lost" => Record::Lost(Lost {
                time_ns,
                since_ns: it.since.as_deref().and_then(|since| nanoseconds(since).ok()),
                count: it.count?,
                in_doubt: it.in_doubt,
                place: place(it.place?)?,
            }),
            "start" => Record::Start(Start {
                time_ns,
                version: self.keep(it.version.as_deref()?),
                host: name(&it.host.as_ref()?.name),
                kernel: name(it.host.as_ref()?.kernel.as_deref().unwrap_or_default()),
                hook: self.keep(it.hook?),
                tier: self.keep(it.tier?),
                instance: u32::from_str_radix(it.instance?, 16).ok()?,
                degraded: it.degraded.iter().take(bounds::GAPS.items).map(|text| sentence(text)).collect(),
                adopted: None,
            }),
            "stop" => Record::Stop(Stop {
                time_ns,
                reason: self.keep(it.reason?),
                transitions: it.transitions?,
                lost: it.lost.iter().filter_map(|(name, count)| Some((place(name)?, *count))).collect(),
                illegal: if let Illegal::Count(count) = it.illegal { count } else { 0 },
            }),
            _ => return Some(None),
        };
        Some(Some(record))
    }

    fn conn(&mut self, it: &Line<'_>) -> Option<Connection> {
        let (id, tuple) = (it.conn()?, it.tuple()?);
        Some(Connection { id, role: it.role(), tuple, subject: self.subject(it), mini: it.mini })
    }

    fn transition(&mut self, it: &Line<'_>, time_ns: i64) -> Option<Transition> {
        Some(Transition {
            time_ns,
            conn: self.conn(it)?,
            from: State::named(it.from?, it.mini, it.from_number)?,
            to: State::named(it.to?, it.mini, it.to_number)?,
            in_state: it.in_state_ns.map(|ns| InState { ns, at_least: it.in_state_at_least }),
            exact: it.exact,
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
            conn: self.conn(it)?,
            state: it.state()?,
            age: it.age()?,
            times: it.times,
            found,
            opened: None,
        })
    }

    /// What a look had found.
    fn found(&mut self, it: &Line<'_>) -> Option<Box<(SocketReport, Diagnosis)>> {
        let reason = it.reason.and_then(|name| Reason::ALL.into_iter().find(|reason| reason.name() == name));
        let diagnosis = it.diagnosis(reason?);
        let mut socket = SocketInfo {
            netns: it.netns.unwrap_or(0),
            transport: Transport::Tcp,
            mptcp: it.mptcp.as_ref().map(MptcpOf::part),
            state: it.state()?,
            mini: it.mini,
            tuple: it.tuple()?,
            interface: it.interface.as_ref().and_then(|it| it.name.as_deref()).map(|text| name(text).into()),
            uid: it.owner.as_ref().and_then(|owner| owner.uid),
            inode: 0,
            cgroup: None,
            is_v6_only: false,
            is_transparent: false,
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
        let all = it.holders.as_deref().unwrap_or_default();
        // What an earlier version wrote may have more.
        let (most, more) = (bounds::LOOK.holders.items, |cut: &Cut| cut.field != "commands");
        let mut cut: Vec<Cut> = it.cuts().filter(more).collect();
        if all.len() > most {
            cut.push(Cut { field: "holders", total: Some(all.len()) });
        }
        let holders = all.iter().take(most).map(|holder| self.holder(holder)).collect();
        let listeners = it.listeners.iter().take(bounds::LOOK.listeners.items).map(listener).collect();
        let (age, unanswered_ns) = (it.age(), it.unanswered_ns);
        let of_kernel = it.held_by_kernel;
        let examined = SocketReport {
            age,
            holders,
            listeners,
            of_kernel,
            unanswered_ns,
            cut,
            ..SocketReport::new(socket)
        };
        Some(Box::new((examined, diagnosis)))
    }

    fn holder(&mut self, it: &HolderOf<'_>) -> Holder {
        let exe = it.exe.as_deref().map(path);
        let process = Arc::new(Process { pid: it.pid, comm: name(&it.comm), exe, ..Process::default() });
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
        let kept =
            |text: &Option<Text<'_>>, most| text.as_deref().map(|text| bounds::kept(text, most).to_owned());
        let key = format!(
            "{:?}",
            (
                owner.map(|it| {
                    let (exe, cmdline) =
                        (kept(&it.exe, bounds::PATH), kept(&it.cmdline, bounds::COMMAND_LINE));
                    (it.pid, name(&it.comm), exe, it.uid, name(it.source), cmdline)
                }),
                it.netns,
                it.cgroup.as_ref().map(|it| name(it.id)),
                it.container.as_ref().map(|it| name(&it.id)),
                kept(&it.unit, bounds::NAME),
            )
        );
        if let Some(known) = self.subjects.get(&key) {
            return Rc::clone(known);
        }
        self.last_subject += 1;
        let runtime = it.container.as_ref().and_then(|it| it.runtime).map(|text| self.keep(text));
        let subject = Rc::new(Subject {
            id: self.last_subject,
            owner: owner.map(owner_of),
            netns: it.netns,
            cgroup: it
                .cgroup
                .as_ref()
                .map(|it| Cgroup { id: it.id.parse().unwrap_or(0), path: it.path.as_deref().map(path) }),
            container: it.container.as_ref().map(|it| Container { id: name(&it.id), runtime }),
            pod_uid: it.pod.as_ref().map(|it| name(&it.uid)),
            unit: it.unit.as_deref().map(name),
        });
        self.subject_bytes += key.len() + subject.bytes();
        if self.subject_bytes > MOST_SUBJECT_BYTES {
            self.subjects.clear();
            self.subject_bytes = 0;
        }
        self.subjects.insert(key, Rc::clone(&subject));
        subject
    }

    /// A text that lives as long as the program, as those of the kernel's names do.
    fn keep(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.texts.get(text) {
            return known;
        }
        if self.texts.len() >= MOST_TEXTS || text.len() > LONGEST_TEXT {
            return "unknown";
        }
        let kept: &'static str = text.to_owned().leak();
        self.texts.insert(kept);
        kept
    }
}

fn listener(it: &ListenerOf<'_>) -> Listener {
    let process =
        |it: &ProcessOf<'_>| Arc::new(Process { pid: it.pid, comm: name(&it.comm), ..Process::default() });
    let holders = it.holders.iter().take(bounds::LOOK.listening.items).map(process).collect();
    Listener { queued: it.queued, backlog: it.limit, holders }
}

fn owner_of(it: &OwnerOf<'_>) -> Owner {
    let mut comm = [0; 16];
    comm.iter_mut().zip(it.comm.bytes()).for_each(|(to, from)| *to = from);
    Owner {
        task: Rc::new(Task { pid: it.pid, exec_id: 0, start_ns: 0, comm }),
        comm: name(&it.comm),
        exe: it.exe.as_deref().map(path),
        uid: it.uid,
        source: OwnerSource::ALL
            .into_iter()
            .find(|source| source.name() == it.source)
            .unwrap_or(OwnerSource::Scan),
        cmdline: it.cmdline.as_deref().map(|text| bounds::kept(text, bounds::COMMAND_LINE).into()),
    }
}

fn nanoseconds(time: &str) -> Result<i64, String> {
    let time: jiff::Timestamp = time.parse().map_err(|error: jiff::Error| error.to_string())?;
    i64::try_from(time.as_nanosecond()).map_err(|error| error.to_string())
}

fn place(name: &str) -> Option<LostPlace> {
    LostPlace::ALL.into_iter().find(|place| place.name() == name)
}
