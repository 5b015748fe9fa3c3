//! Which connections stay in a state for too long. Each has an entry in a bucket of one second, and no connection is looked at
//! before its bucket is due.

use std::collections::{BTreeMap, HashMap};

use super::{
    conns::{Conn, Conns, Since, plain},
    identity::Endpoints,
};
use crate::model::{ConnId, Connection, InState, Record, Resolved, SocketInfo, State, Stuck, Thresholds};

const SECOND_NS: u64 = 1_000_000_000;
/// Entries of connections that have ended are removed when there are twice as many entries as connections, and more than this.
const SWEEP_MIN: usize = 4096;

/// The connections that are watched.
pub(super) struct Watchdog {
    thresholds: Option<Thresholds>,
    /// Addresses and ids of sockets, by the second (`CLOCK_MONOTONIC`) in which they are looked at.
    buckets: BTreeMap<u32, Vec<(u64, ConnId)>>,
    len: usize,
    /// The shortest threshold, ns.
    least_ns: u64,
    /// When watching began, `CLOCK_MONOTONIC` ns.
    begun_ns: u64,
    /// Some connections that were stuck when watching began may not have been reported yet.
    is_beginning: bool,
    resolved: Vec<Resolved>,
}

impl Watchdog {
    /// Watches by `thresholds`; without them, watches nothing.
    pub(super) fn new(thresholds: Option<Thresholds>) -> Self {
        let least_ns = thresholds.as_ref().map_or(u64::MAX, Thresholds::least_ns);
        Self {
            thresholds,
            buckets: BTreeMap::new(),
            len: 0,
            least_ns,
            begun_ns: 0,
            is_beginning: false,
            resolved: Vec::new(),
        }
    }

    /// The connection at `at` has come into a state: gives it an entry, unless it has one that is early enough.
    pub(super) fn watch(&mut self, conns: &mut Conns, at: usize) {
        let conn = conns.get(at);
        let earlier = |bucket: u32| conn.watched == 0 || bucket < conn.watched;
        // No threshold is shorter than `least_ns`: an entry that is due before that is early enough for any state.
        if !earlier(bucket(conn.since_ns.saturating_add(self.least_ns))) {
            return;
        }
        if let Some(after_ns) = self.after_ns(conn)
            && let bucket = bucket(due_ns(conn, after_ns))
            && earlier(bucket)
        {
            let (sk, id) = (conn.sk, conn.id);
            conns.get_mut(at).watched = bucket;
            self.push(bucket, sk, id);
            if self.len > 2 * conns.len() + SWEEP_MIN {
                self.sweep(conns);
            }
        }
    }

    /// Another kernel object continues the connection at `at`: its entry has the earlier address.
    pub(super) fn watch_again(&mut self, conns: &mut Conns, at: usize) {
        conns.get_mut(at).watched = 0;
        self.watch(conns, at);
    }

    /// The connection at `at` leaves its state at `time_ns`, `wall_ns` by the wall clock: if it was reported as stuck, notes the
    /// `resolved` record. Its entry stays.
    pub(super) fn note_resolved(
        &mut self,
        conns: &mut Conns,
        at: usize,
        to: State,
        (time_ns, wall_ns): (u64, i64),
    ) {
        let conn = conns.get_mut(at);
        if conn.stuck == 0 || plain(conn.state) == plain(to) {
            return;
        }
        conn.stuck = 0;
        self.resolved.push(Resolved {
            time_ns: wall_ns,
            // The record is about a state. A full socket and the mini-socket that continues it share that state.
            conn: Connection { mini: false, ..conn.connection() },
            state: conn.state,
            to,
            age: age(conn, time_ns),
            traffic: conn.traffic.clone().filter(|_| matches!(to, State::Close | State::TimeWait)),
        });
    }

    /// Hands the records that are due at `now_ns`, `wall_ns` by the wall clock, to `out`: which connections are stuck, and which
    /// no longer are.
    pub(super) fn report_due(
        &mut self,
        conns: &mut Conns,
        (now_ns, wall_ns): (u64, i64),
        mut out: impl FnMut(Record),
    ) {
        for resolved in std::mem::take(&mut self.resolved) {
            out(Record::Resolved(resolved));
        }
        // A time beyond the last bucket is never due.
        let begins = bucket(now_ns);
        self.is_beginning &= begins <= bucket(self.begun_ns);
        while let Some(due) = self.buckets.first_entry()
            && *due.key() < begins
        {
            let (second, entries) = due.remove_entry();
            self.len -= entries.len();
            for (sk, id) in entries {
                if let Some(at) = conns.find(sk)
                    && (conns.get(at).id, conns.get(at).watched) == (id, second)
                    && let Some(stuck) = self.record_if_due(conns, at, (now_ns, wall_ns))
                {
                    out(Record::Stuck(stuck));
                }
            }
        }
    }

    /// Whether some connections that were stuck when watching began may not have been reported yet.
    pub(super) fn is_beginning(&self) -> bool {
        self.is_beginning
    }

    /// When the next bucket is due, `CLOCK_MONOTONIC` ns.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let (second, _) = self.buckets.first_key_value()?;
        Some(u64::from(*second) * SECOND_NS)
    }

    /// The `stuck` record of the connection at `at`, if one is due.
    fn record_if_due(
        &mut self,
        conns: &mut Conns,
        at: usize,
        (now_ns, wall_ns): (u64, i64),
    ) -> Option<Stuck> {
        let conn = conns.get_mut(at);
        if conn.awaits_endpoints {
            // The connection's first record is not out yet.
            let (later, sk, id) = (bucket(now_ns), conn.sk, conn.id);
            conn.watched = later;
            self.push(later, sk, id);
            return None;
        }
        let mut stuck = None;
        if let Some(after_ns) = self.after_ns(conn)
            && let due_ns = due_ns(conn, after_ns)
            && due_ns <= now_ns
        {
            // A bucket is looked at once a second: a record that became due within that second is not late.
            let before_trace = conn.stuck == 0 && due_ns <= self.begun_ns;
            let from_ns = if now_ns - due_ns <= SECOND_NS { due_ns } else { now_ns };
            conn.stuck = conn.stuck.saturating_add(1);
            conn.remind_ns = from_ns.saturating_add(gap_ns(conn.stuck, after_ns));
            stuck = Some(Stuck {
                time_ns: wall_ns,
                conn: conn.connection(),
                state: conn.state,
                age: age(conn, now_ns),
                times: conn.stuck,
                before_trace,
                found: None,
                opened: None,
            });
        }
        self.watch_again(conns, at);
        stuck
    }

    /// Sockets that are older than the tracer are as old as the kernel's own clocks say, at `now_ns`; from now on they are
    /// watched too.
    pub(super) fn backdate<'a>(
        &mut self,
        conns: &mut Conns,
        now_ns: u64,
        sockets: impl Iterator<Item = (&'a SocketInfo, u64)>,
    ) {
        (self.begun_ns, self.is_beginning) = (now_ns, true);
        let index: HashMap<Endpoints, usize> =
            conns.iter().enumerate().map(|(at, conn)| (Endpoints::of_conn(conn), at)).collect();
        for (socket, age_ns) in sockets {
            if let Some(&at) = index.get(&Endpoints::new(Some(socket.netns), socket.tuple)) {
                let conn = conns.get_mut(at);
                if conn.since == Since::AtLeast && conn.state == socket.state {
                    conn.since_ns = conn.since_ns.min(now_ns.saturating_sub(age_ns));
                }
            }
        }
        for at in 0..conns.len() {
            self.watch(conns, at);
        }
    }

    fn sweep(&mut self, conns: &Conns) {
        let lives = |sk: u64, id: ConnId| conns.find(sk).is_some_and(|at| conns.get(at).id == id);
        self.buckets.retain(|_, entries| {
            entries.retain(|&(sk, id)| lives(sk, id));
            !entries.is_empty()
        });
        self.len = self.buckets.values().map(Vec::len).sum();
    }

    /// Nanoseconds in its state after which `conn` is stuck.
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

/// The bucket of a record that is due at `due_ns`: the next full second.
fn bucket(due_ns: u64) -> u32 {
    u32::try_from(due_ns / SECOND_NS).map_or(u32::MAX, |second| second.saturating_add(1))
}

/// When the next record that a connection is stuck is due.
fn due_ns(conn: &Conn, after_ns: u64) -> u64 {
    if conn.stuck == 0 { conn.since_ns.saturating_add(after_ns) } else { conn.remind_ns }
}

/// How long after the `times`th record the next one is due: twice as long each time.
fn gap_ns(times: u8, after_ns: u64) -> u64 {
    after_ns.max(SECOND_NS).saturating_mul(1 << (times.max(1) - 1).min(40))
}

fn age(conn: &Conn, now_ns: u64) -> InState {
    InState { ns: now_ns.saturating_sub(conn.since_ns), at_least: conn.since != Since::Exact }
}
