//! What one sockstate leaves to the next: the connections, so that they keep their ids, owners and times.

use std::{collections::HashMap, rc::Rc};

use serde::{Deserialize, Serialize};

use super::{
    conns::{Conn, Since},
    table::Table,
    wait::Ends,
};
use crate::model::{
    Address, ConnId, Identify, Owner, OwnerKey, OwnerSource, Role, State, Subject, SubjectKey, Task, Tuple,
};

/// A table, at rest. It holds the kernel's addresses: for root's eyes only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heirloom {
    /// The last id that was given.
    next: u64,
    subjects: Vec<Whose>,
    conns: Vec<Kept>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Whose {
    owner: Option<Holder>,
    uid: Option<u32>,
    netns: Option<u32>,
    cgroup: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    exec_id: u32,
    start_ns: u64,
    comm: [u8; 16],
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    sk: u64,
    id: u64,
    since_ns: u64,
    /// As [`Since`]: 0 exact, 1 at least, 2 never.
    since: u8,
    /// The place in the subjects.
    whose: usize,
    /// Address and port.
    local: ([u8; 16], u16),
    remote: ([u8; 16], u16),
    v6: bool,
    /// Absent where an earlier version wrote it.
    #[serde(default)]
    interface: u32,
    state: u8,
    role: Option<String>,
    mini: bool,
    stuck: u8,
    /// Absent in the state of an earlier version: a reminder is due at once.
    #[serde(default)]
    remind_ns: u64,
}

impl Heirloom {
    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }
}

impl Table {
    /// What the next one needs. What is only estimated, or waits for its ends, is left out.
    #[must_use]
    pub fn bequeath(&self) -> Heirloom {
        let mut subjects = Vec::new();
        let mut places = HashMap::new();
        let mut conns = Vec::new();
        for conn in self.conns.iter().filter(|conn| !conn.estimated && !conn.unborn) {
            let whose = *places.entry(Rc::as_ptr(&conn.subject)).or_insert_with(|| {
                subjects.push(Whose::of(conn));
                subjects.len() - 1
            });
            conns.push(Kept::of(conn, whose));
        }
        Heirloom { next: self.last_id(), subjects, conns }
    }

    /// Goes on with the connections of `heirloom`; the table must be empty. Ids go on behind those in it, and behind `last_id`: some
    /// may have been given after it.
    pub fn inherit(&mut self, heirloom: Heirloom, last_id: u64, who: &mut dyn Identify) {
        self.set_last_id(heirloom.next.max(last_id));
        let subjects: Vec<_> = heirloom.subjects.iter().map(|it| who.identify(it.key())).collect();
        for kept in heirloom.conns {
            let Some(subject) = subjects.get(kept.whose) else { continue };
            let conn = kept.conn(Rc::clone(subject));
            if conn.mini && conn.state == State::NewSynRecv {
                self.waiting.requests.insert(Ends::new(conn.subject.netns, conn.tuple), conn.sk);
            }
            self.conns.add(conn);
        }
    }
}

impl Whose {
    fn of(conn: &Conn) -> Self {
        let holder = |owner: &Owner| Holder {
            pid: owner.task.pid,
            exec_id: owner.task.exec_id,
            start_ns: owner.task.start_ns,
            comm: owner.task.comm,
            source: owner.source.name().into(),
        };
        let owner = conn.subject.owner.as_ref();
        Self {
            owner: owner.map(holder),
            uid: owner.and_then(|owner| owner.uid),
            netns: conn.subject.netns,
            cgroup: conn.subject.cgroup.as_ref().map(|cgroup| cgroup.id),
        }
    }

    fn key(&self) -> SubjectKey {
        let owner = self.owner.as_ref().and_then(|it| {
            let source = OwnerSource::ALL.into_iter().find(|source| source.name() == it.source)?;
            let Holder { pid, exec_id, start_ns, comm, .. } = *it;
            Some(OwnerKey { task: Rc::new(Task { pid, exec_id, start_ns, comm }), source })
        });
        SubjectKey { owner, uid: self.uid, netns: self.netns, cgroup: self.cgroup }
    }
}

impl Kept {
    fn of(conn: &Conn, whose: usize) -> Self {
        Self {
            sk: conn.sk,
            id: conn.id.0,
            since_ns: conn.since_ns,
            since: match conn.since {
                Since::Exact => 0,
                Since::AtLeast => 1,
                Since::Never => 2,
            },
            whose,
            local: (conn.tuple.local.octets(), conn.tuple.local_port),
            remote: (conn.tuple.remote.octets(), conn.tuple.remote_port),
            v6: conn.tuple.v6_socket,
            interface: conn.tuple.interface,
            state: conn.state.number(),
            role: conn.role.map(|role| role.name().into()),
            mini: conn.mini,
            stuck: conn.stuck,
            remind_ns: conn.remind_ns,
        }
    }

    fn conn(&self, subject: Rc<Subject>) -> Conn {
        let role = Role::ALL.into_iter().find(|role| self.role.as_deref() == Some(role.name()));
        Conn {
            sk: self.sk,
            id: ConnId(self.id),
            since_ns: self.since_ns,
            subject,
            tuple: Tuple {
                local: Address::from_v6(self.local.0),
                remote: Address::from_v6(self.remote.0),
                local_port: self.local.1,
                remote_port: self.remote.1,
                v6_socket: self.v6,
                interface: self.interface,
            },
            state: State::from_number(self.state),
            role,
            since: match self.since {
                0 => Since::Exact,
                1 => Since::AtLeast,
                _ => Since::Never,
            },
            mini: self.mini,
            unborn: false,
            estimated: false,
            stuck: self.stuck,
            remind_ns: self.remind_ns,
            watched: 0,
        }
    }
}
