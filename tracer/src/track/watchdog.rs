//! Which connections stay in a state for too long. One entry for each that may, in buckets of a second: nothing is looked
//! at before its time, however many there are.

use std::collections::BTreeMap;

use super::{
    conns::{Conn, Since, plain},
    table::{Out, Table, Update},
    wait::Ends,
};
use crate::model::{ConnId, Connection, InState, Record, Resolved, SocketInfo, State, Stuck, Thresholds};

const SECOND_NS: u64 = 1_000_000_000;
/// Entries of connections that have ended are swept out when there are twice as many as connections, and not below this.
const SWEEP_MIN: usize = 4096;

/// What is watched.
pub(super) struct Watchdog {
    thresholds: Option<Thresholds>,
    /// Keys and ids, by the second (`CLOCK_MONOTONIC`) in which they are looked at.
    buckets: BTreeMap<u32, Vec<(u64, ConnId)>>,
    len: usize,
    /// The shortest threshold, ns.
    least_ns: u64,
    resolved: Vec<Resolved>,
}

impl Watchdog {
    /// Watches by `thresholds`; nothing without.
    pub(super) fn new(thresholds: Option<Thresholds>) -> Self {
        let least_ns = thresholds.as_ref().map_or(u64::MAX, Thresholds::least_ns);
        Self { thresholds, buckets: BTreeMap::new(), len: 0, least_ns, resolved: Vec::new() }
    }

    /// Nanoseconds after which this connection is stuck.
    fn after_ns(&self, conn: &Conn) -> Option<u64> {
        let thresholds = self.thresholds.as_ref()?;
        let comm: &[&str] = match &conn.subject.owner {
            Some(owner) => &[owner.comm.as_str()],
            None => &[],
        };
        thresholds.of(conn.state, [conn.tuple.local_port, conn.tuple.remote_port], comm)
    }

    fn push(&mut self, bucket: u32, sk: u64, id: ConnId) {
        self.buckets.entry(bucket).or_default().push((sk, id));
        self.len += 1;
    }
}

/// The second in which something due is looked at: one begun is not over.
fn bucket(due_ns: u64) -> u32 {
    u32::try_from(due_ns / SECOND_NS).unwrap_or(u32::MAX - 1) + 1
}

/// When the next record that a connection is stuck is due.
fn due_ns(conn: &Conn, after_ns: u64) -> u64 {
    if conn.stuck == 0 { conn.since_ns.saturating_add(after_ns) } else { conn.remind_ns }
}

/// How long after the `times`th record the next one is due: double the distance each time, from that record on, however long it
/// has been stuck then.
fn gap_ns(times: u8, after_ns: u64) -> u64 {
    after_ns.max(SECOND_NS).saturating_mul(1 << (times.max(1) - 1).min(40))
}

impl Table {
    /// A connection has come into a state, or into a key.
    pub(super) fn watch(&mut self, at: usize) {
        let conn = self.conns.get(at);
        let earlier = |bucket: u32| conn.watched == 0 || bucket < conn.watched;
        // Most have been given a time at their beginning, and cannot get an earlier one.
        if !earlier(bucket(conn.since_ns.saturating_add(self.watchdog.least_ns))) {
            return;
        }
        if let Some(after_ns) = self.watchdog.after_ns(conn)
            && let bucket = bucket(due_ns(conn, after_ns))
            && earlier(bucket)
        {
            let (sk, id) = (conn.sk, conn.id);
            self.conns.get_mut(at).watched = bucket;
            self.watchdog.push(bucket, sk, id);
            if self.watchdog.len > 2 * self.conns.len() + SWEEP_MIN {
                self.sweep();
            }
        }
    }

    /// A connection has another key now.
    pub(super) fn watch_again(&mut self, at: usize) {
        self.conns.get_mut(at).watched = 0;
        self.watch(at);
    }

    /// A connection leaves its state.
    pub(super) fn unwatch(&mut self, at: usize, to: State, time_ns: u64) {
        let conn = self.conns.get(at);
        if conn.stuck == 0 || plain(conn.state) == plain(to) {
            return;
        }
        self.watchdog.resolved.push(Resolved {
            time_ns: self.wall(time_ns),
            // The record is about a state, which a full socket and the mini-socket in that one's place share.
            conn: Connection { mini: false, ..conn.connection() },
            state: conn.state,
            to,
            age: age(conn, time_ns),
        });
        self.conns.get_mut(at).stuck = 0;
    }

    /// Says what is stuck at `now_ns`, and what no longer is.
    pub(super) fn report_due(&mut self, now_ns: u64, out: Out<'_>) {
        for resolved in std::mem::take(&mut self.watchdog.resolved) {
            out(Update::Record(Record::Resolved(resolved)));
        }
        // What is due later than can be counted never is.
        let begins = bucket(now_ns);
        while let Some(due) = self.watchdog.buckets.first_entry()
            && *due.key() < begins
        {
            let (second, entries) = due.remove_entry();
            self.watchdog.len -= entries.len();
            for (sk, id) in entries {
                if let Some(at) = self.conns.find(sk)
                    && (self.conns.get(at).id, self.conns.get(at).watched) == (id, second)
                {
                    self.look_at(at, now_ns, out);
                }
            }
        }
    }

    /// When something has to be looked at, `CLOCK_MONOTONIC` ns.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        let (second, _) = self.watchdog.buckets.first_key_value()?;
        Some(u64::from(*second) * SECOND_NS)
    }

    fn look_at(&mut self, at: usize, now_ns: u64, out: Out<'_>) {
        if self.conns.get(at).unborn {
            // Nothing was said of it yet.
            let (later, sk, id) = (bucket(now_ns), self.conns.get(at).sk, self.conns.get(at).id);
            self.conns.get_mut(at).watched = later;
            return self.watchdog.push(later, sk, id);
        }
        let after_ns = self.watchdog.after_ns(self.conns.get(at));
        if let Some(after_ns) = after_ns
            && let due_ns = due_ns(self.conns.get(at), after_ns)
            && due_ns <= now_ns
        {
            // It is looked at once a second: what is due between two looks is not late.
            let from_ns = if now_ns - due_ns <= SECOND_NS { due_ns } else { now_ns };
            let conn = self.conns.get_mut(at);
            conn.stuck = conn.stuck.saturating_add(1);
            conn.remind_ns = from_ns.saturating_add(gap_ns(conn.stuck, after_ns));
            let conn = self.conns.get(at);
            out(Update::Record(Record::Stuck(Stuck {
                time_ns: self.wall(now_ns),
                conn: conn.connection(),
                state: conn.state,
                age: age(conn, now_ns),
                times: conn.stuck,
                found: None,
                opened: None,
            })));
        }
        self.watch_again(at);
    }

    /// Sockets that are older than the tracer are as old as the kernel's own clocks say, at `now_ns`; from now on they are
    /// watched too.
    pub fn backdate<'a>(&mut self, now_ns: u64, sockets: impl Iterator<Item = (&'a SocketInfo, u64)>) {
        let ends = |conn: &Conn| Ends::new(conn.subject.netns, conn.tuple);
        let index: std::collections::HashMap<Ends, usize> =
            self.conns.iter().enumerate().map(|(at, conn)| (ends(conn), at)).collect();
        for (socket, age_ns) in sockets {
            if let Some(&at) = index.get(&Ends::new(Some(socket.netns), socket.tuple)) {
                let conn = self.conns.get_mut(at);
                if conn.since == Since::AtLeast && conn.state == socket.state {
                    conn.since_ns = conn.since_ns.min(now_ns.saturating_sub(age_ns));
                }
            }
        }
        for at in 0..self.conns.len() {
            self.watch(at);
        }
    }

    fn sweep(&mut self) {
        let conns = &self.conns;
        let lives = |sk: u64, id: ConnId| conns.find(sk).is_some_and(|at| conns.get(at).id == id);
        self.watchdog.buckets.retain(|_, entries| {
            entries.retain(|&(sk, id)| lives(sk, id));
            !entries.is_empty()
        });
        self.watchdog.len = self.watchdog.buckets.values().map(Vec::len).sum();
    }
}

fn age(conn: &Conn, now_ns: u64) -> InState {
    InState { ns: now_ns.saturating_sub(conn.since_ns), at_least: conn.since != Since::Exact }
}
