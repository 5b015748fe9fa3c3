//! The saved table: the connections that one process leaves to the next, with their ids, owners and times. Renaming a serialised field
//! changes the file's format.

use std::{collections::HashMap, rc::Rc};

use serde::{Deserialize, Serialize};

use super::{
    conns::{Conn, Conns, Since},
    lifespans::{Life, Lifespans},
};
use crate::model::{
    Address, ConnId, Identify, Owner, OwnerKey, OwnerSource, Role, State, Subject, SubjectKey, Task, Traffic,
    Tuple,
};

/// A saved table. It holds addresses of the kernel: only root may read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTable {
    /// The key keeps its old name, because files of earlier versions have it.
    #[serde(rename = "next")]
    last_id: u64,
    subjects: Vec<SavedSubject>,
    conns: Vec<SavedConn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedSubject {
    owner: Option<SavedOwner>,
    uid: Option<u32>,
    netns: Option<u32>,
    cgroup: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedOwner {
    pid: u32,
    exec_id: u32,
    start_ns: u64,
    comm: [u8; 16],
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedConn {
    sk: u64,
    id: u64,
    since_ns: u64,
    /// As [`Since`]: 0 exact, 1 at least, 2 unknown.
    since: u8,
    /// The place in the list of subjects.
    #[serde(rename = "whose")]
    subject: usize,
    /// Address and port.
    local: ([u8; 16], u16),
    remote: ([u8; 16], u16),
    v6: bool,
    /// Earlier versions did not write it.
    #[serde(default)]
    interface: u32,
    state: u8,
    role: Option<String>,
    mini: bool,
    stuck: u8,
    /// Earlier versions did not write it; a reminder is due at once then.
    #[serde(default)]
    remind_ns: u64,
    /// Only of mini-sockets. Earlier versions did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traffic: Option<Traffic>,
    /// Only where a stream has records of whole connections. Earlier versions did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    life: Option<Life>,
}

impl SavedTable {
    /// How many connections it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }
}

impl SavedTable {
    /// The part of `conns` that the next process needs. Estimated connections are left out, and children whose endpoints are
    /// not known.
    pub(super) fn save(conns: &Conns, lifespans: Option<&Lifespans>, last_id: u64) -> Self {
        let mut subjects = Vec::new();
        let mut places = HashMap::new();
        let mut saved = Vec::new();
        for conn in conns.iter().filter(|conn| !conn.estimated && !conn.awaits_endpoints) {
            let subject = *places.entry(Rc::as_ptr(&conn.subject)).or_insert_with(|| {
                subjects.push(SavedSubject::of(conn));
                subjects.len() - 1
            });
            let life = lifespans.and_then(|lifespans| lifespans.get(conn.id)).cloned();
            saved.push(SavedConn { life, ..SavedConn::of(conn, subject) });
        }
        Self { last_id, subjects, conns: saved }
    }

    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The connections, with the names that `who` has for their subjects, and their paths.
    pub(super) fn restore(
        &self,
        identities: &mut dyn Identify,
    ) -> impl Iterator<Item = (Conn, Option<Life>)> {
        let subjects: Vec<_> =
            self.subjects.iter().map(|subject| identities.identify(subject.key())).collect();
        self.conns.iter().filter_map(move |saved| {
            let subject = Rc::clone(subjects.get(saved.subject)?);
            let conn = saved.conn(subject);
            let peer = identities.peer(conn.tuple.remote);
            Some((Conn { peer, ..conn }, saved.life.clone()))
        })
    }
}

impl SavedSubject {
    fn of(conn: &Conn) -> Self {
        let saved_owner = |owner: &Owner| SavedOwner {
            pid: owner.task.pid,
            exec_id: owner.task.exec_id,
            start_ns: owner.task.start_ns,
            comm: owner.task.comm,
            source: owner.source.name().into(),
        };
        let owner = conn.subject.owner.as_ref();
        Self {
            owner: owner.map(saved_owner),
            uid: owner.and_then(|owner| owner.uid),
            netns: conn.subject.netns,
            cgroup: conn.subject.cgroup.as_ref().map(|cgroup| cgroup.id),
        }
    }

    fn key(&self) -> SubjectKey {
        let owner = self.owner.as_ref().and_then(|owner| {
            let source = OwnerSource::ALL.into_iter().find(|source| source.name() == owner.source)?;
            let SavedOwner { pid, exec_id, start_ns, comm, .. } = *owner;
            Some(OwnerKey { task: Rc::new(Task { pid, exec_id, start_ns, comm }), source })
        });
        SubjectKey { owner, uid: self.uid, netns: self.netns, cgroup: self.cgroup }
    }
}

impl SavedConn {
    fn of(conn: &Conn, subject: usize) -> Self {
        Self {
            sk: conn.sk,
            id: conn.id.0,
            since_ns: conn.since_ns,
            since: match conn.since {
                Since::Exact => 0,
                Since::AtLeast => 1,
                Since::Unknown => 2,
            },
            subject,
            local: (conn.tuple.local.octets(), conn.tuple.local_port),
            remote: (conn.tuple.remote.octets(), conn.tuple.remote_port),
            v6: conn.tuple.v6_socket,
            interface: conn.tuple.interface,
            state: conn.state.number(),
            role: conn.role.map(|role| role.name().into()),
            mini: conn.mini,
            stuck: conn.stuck,
            remind_ns: conn.remind_ns,
            traffic: conn.traffic.as_deref().copied(),
            life: None,
        }
    }

    fn conn(&self, subject: Rc<Subject>) -> Conn {
        let role = Role::ALL.into_iter().find(|role| self.role.as_deref() == Some(role.name()));
        let tuple = Tuple {
            local: Address::from_v6(self.local.0),
            remote: Address::from_v6(self.remote.0),
            local_port: self.local.1,
            remote_port: self.remote.1,
            v6_socket: self.v6,
            interface: self.interface,
        };
        let since = match self.since {
            0 => Since::Exact,
            1 => Since::AtLeast,
            _ => Since::Unknown,
        };
        Conn {
            since_ns: self.since_ns,
            since,
            role,
            mini: self.mini,
            stuck: self.stuck,
            remind_ns: self.remind_ns,
            traffic: self.traffic.map(Rc::new),
            ..Conn::new(self.sk, ConnId(self.id), subject, tuple, State::from_number(self.state))
        }
    }
}
