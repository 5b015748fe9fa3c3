//! Counts transitions in windows of time, instead of reporting each transition.

use std::{collections::HashMap, rc::Rc};

use rustc_hash::FxBuildHasher;

use crate::model::{
    Address, Aggregate, Cause, Connection, Dwell, InState, Lifespan, Role, State, Subject, Traffic,
    Transferred, Transition,
};

/// The key of a row: transitions with the same key are counted together. A service is a program at one port: its own port
/// for a server, the other side's port for a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    comm: Option<String>,
    unit: Option<String>,
    /// The id, which implies the names.
    container: Option<String>,
    /// The uid.
    pod: Option<String>,
    role: Option<Role>,
    port: u16,
    /// `None` in the row of all peers beyond the limit.
    peer: Option<Address>,
    from: State,
    to: State,
    /// Of a connection that was never established, why it ended.
    cause: Option<Cause>,
    /// Whether this is the row of all services beyond the limit.
    other: bool,
}

impl Key {
    /// The key of the row for all peers of the same service.
    fn with_all_peers(&self) -> Self {
        Self { peer: None, port: 0, ..self.clone() }
    }

    /// The key of the row for all services beyond the limit.
    fn of_others(&self) -> Self {
        let (role, from, to, cause) = (self.role, self.from, self.to, self.cause);
        let (comm, unit, container, pod, peer) = (None, None, None, None, None);
        Self { comm, unit, container, pod, role, port: 0, peer, from, to, cause, other: true }
    }
}

/// What is counted of a connection.
struct Change<'a> {
    from: State,
    to: State,
    in_state: Option<InState>,
    cause: Option<Cause>,
    /// Only of the change that ends the connection, or begins its TIME_WAIT: so no byte counts twice.
    traffic: Option<&'a Traffic>,
}

#[derive(Default)]
struct Counted {
    count: u64,
    dwell: Dwell,
    transferred: Option<Transferred>,
    /// The subject of the latest transition: the names of a container may become known within the window.
    subject: Option<Rc<Subject>>,
}

/// The open window of one stream.
pub(super) struct Windows {
    length_ns: i64,
    most: usize,
    /// Whether the windows count connections.
    of_connections: bool,
    /// The number of rows for all peers of one service.
    together: usize,
    /// The end of the window, by the wall clock and by `CLOCK_MONOTONIC`; `None` while the window is empty.
    end: Option<(i64, u64)>,
    /// The number of transitions in the window.
    count: u64,
    counted: HashMap<Key, Counted, FxBuildHasher>,
}

impl Windows {
    /// Windows of `length_ns` that begin at its multiples. Up to `most` pairs of a service and a peer have rows of their own, and
    /// up to `most` services have a row for all of their other peers. Any process can choose its name, so there may be more
    /// services: they are counted together.
    pub(super) fn new(length_ns: i64, most: usize) -> Self {
        let counted = HashMap::default();
        let (length_ns, of_connections) = (length_ns.max(1), false);
        Self { length_ns, most, of_connections, together: 0, end: None, count: 0, counted }
    }

    /// The same for connections that were never established.
    pub(super) fn of_connections(length_ns: i64, most: usize) -> Self {
        Self { of_connections: true, ..Self::new(length_ns, most) }
    }

    /// Counts a connection by its last change of state.
    pub(super) fn add_connection(&mut self, lifespan: &Lifespan, wall_ns: i64, monotonic_ns: u64) {
        let (from, to) = lifespan.last_change();
        let ns = lifespan.path.last().and_then(|step| step.ns);
        let in_state = ns.map(|ns| InState { ns, at_least: false });
        let from = from.unwrap_or(State::Close);
        let traffic = lifespan.traffic.as_deref();
        let change = Change { from, to, in_state, cause: lifespan.cause, traffic };
        self.count_change(&lifespan.conn, change, (wall_ns, monotonic_ns));
    }

    /// Counts a transition in the open window. A window begins by the wall clock. Its duration does not change if somebody
    /// sets this clock meanwhile.
    pub(super) fn add(&mut self, transition: &Transition, wall_ns: i64, monotonic_ns: u64) {
        let Transition { from, to, in_state, .. } = *transition;
        let traffic = transition.traffic.as_deref();
        let change = Change { from, to, in_state, cause: None, traffic };
        self.count_change(&transition.conn, change, (wall_ns, monotonic_ns));
    }

    fn count_change(&mut self, conn: &Connection, change: Change<'_>, (wall_ns, monotonic_ns): (i64, u64)) {
        let Change { from, to, in_state, cause, traffic } = change;
        let length_ns = self.length_ns;
        self.end.get_or_insert_with(|| {
            let end_ns = (wall_ns.div_euclid(length_ns) + 1) * length_ns;
            (end_ns, monotonic_ns.saturating_add((end_ns - wall_ns).unsigned_abs()))
        });
        let owner = conn.subject.owner.as_ref();
        let mut key = Key {
            comm: owner.map(|owner| owner.comm.clone()),
            unit: conn.subject.unit.clone(),
            container: conn.subject.container.as_ref().map(|container| container.id.clone()),
            pod: conn.subject.pod.as_ref().map(|pod| pod.uid.clone()),
            role: conn.role,
            port: if conn.role == Some(Role::Client) {
                conn.tuple.remote_port
            } else {
                conn.tuple.local_port
            },
            peer: Some(conn.tuple.remote),
            from,
            to,
            cause,
            other: false,
        };
        let is_new = |key: &Key| !self.counted.contains_key(key);
        if self.counted.len() - self.together >= self.most && is_new(&key) {
            key = key.with_all_peers();
            if is_new(&key) {
                if self.together >= self.most {
                    key = key.of_others();
                }
                self.together += usize::from(is_new(&key));
            }
        }
        let subject = (!key.other).then(|| Rc::clone(&conn.subject));
        let counted = self.counted.entry(key).or_default();
        counted.count += 1;
        counted.subject = subject;
        self.count += 1;
        if let Some(in_state) = in_state {
            counted.dwell.add(in_state);
        }
        if let Some(traffic) = traffic {
            counted.transferred.get_or_insert_default().add(traffic);
        }
    }

    /// Transitions in the open window.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// When the open window ends, `CLOCK_MONOTONIC` ns.
    pub(super) fn end_ns(&self) -> Option<u64> {
        self.end.map(|(_, monotonic_ns)| monotonic_ns)
    }

    /// Ends the window, and returns its rows, the most frequent first.
    pub(super) fn close(&mut self) -> Vec<Aggregate> {
        let Some((end_ns, _)) = self.end.take() else { return Vec::new() };
        (self.count, self.together) = (0, 0);
        let aggregate = |(key, counted): (Key, Counted)| Aggregate {
            time_ns: end_ns,
            window_ns: self.length_ns as u64,
            comm: key.comm,
            unit: key.unit,
            container: counted.subject.as_ref().and_then(|subject| subject.container.clone()),
            pod: counted.subject.as_ref().and_then(|subject| subject.pod.clone()),
            role: key.role,
            port: key.port,
            peer: key.peer,
            from: key.from,
            to: key.to,
            of_connections: self.of_connections,
            cause: key.cause,
            other: key.other,
            count: counted.count,
            dwell: counted.dwell,
            transferred: counted.transferred,
        };
        let mut aggregates: Vec<Aggregate> = self.counted.drain().map(aggregate).collect();
        aggregates.sort_by_key(|row| std::cmp::Reverse(row.count));
        aggregates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Container, Pod, Tuple};

    fn transition(peer: u8, ns: u64) -> Transition {
        let (local, remote) = (Address::from_v4([10, 0, 0, 1]), Address::from_v4([10, 0, 1, peer]));
        Transition {
            in_state: Some(InState { ns, at_least: peer == 9 }),
            conn: Connection {
                role: Some(Role::Server),
                tuple: Tuple { local, remote, local_port: 443, remote_port: 40_000, ..Tuple::example() },
                ..Connection::example()
            },
            ..Transition::example(State::Established, State::CloseWait)
        }
    }

    #[test]
    fn a_clock_that_is_set_back_holds_no_window_open() {
        let mut windows = Windows::new(10, 2);
        windows.add(&transition(1, 1), 25, 1_000);
        windows.add(&transition(1, 1), -3_600_000, 1_003);
        assert_eq!(windows.end_ns(), Some(1_005));
        let closed = windows.close();
        assert_eq!((closed.len(), closed[0].count, closed[0].time_ns), (1, 2, 30));
        // The next window begins at the new time of the clock.
        windows.add(&transition(1, 1), -3_599_997, 1_006);
        assert_eq!(windows.end_ns(), Some(1_013));
        assert_eq!(windows.close()[0].time_ns, -3_599_990);
    }

    #[test]
    fn many_names_are_few_rows_that_add_up() {
        const MOST: usize = 100;
        let mut windows = Windows::new(10, MOST);
        let (names, each) = (12_000, 5);
        for name in 0..names {
            for at in 0..each {
                let mut made = transition(1, 1_000_000);
                let subject =
                    Subject { unit: Some(format!("x{name}.service")), ..(*made.conn.subject).clone() };
                made.conn.subject = Rc::new(subject);
                // Each service has a row with its own peer.
                made.conn.tuple.remote = Address::from_v4([10, 1, at, 1]);
                if at == 1 {
                    (made.from, made.to) = (State::CloseWait, State::LastAck);
                }
                windows.add(&made, 25, 1_000);
            }
        }
        let rows = windows.close();
        let (ways, states) = (2, |row: &Aggregate| (row.from, row.to));
        assert!(rows.len() <= 2 * MOST + ways, "{}", rows.len());
        let others: Vec<&Aggregate> = rows.iter().filter(|row| row.other).collect();
        assert_eq!(others.len(), ways);
        assert!(others.iter().all(|row| row.unit.is_none() && row.comm.is_none() && row.peer.is_none()));
        for (way, happened) in [
            ((State::Established, State::CloseWait), names * (usize::from(each) - 1)),
            ((State::CloseWait, State::LastAck), names),
        ] {
            let of_way = || rows.iter().filter(|row| states(row) == way);
            assert_eq!(of_way().map(|row| row.count).sum::<u64>(), happened as u64);
            assert_eq!(
                of_way().map(|row| row.dwell.counts.iter().sum::<u64>()).sum::<u64>(),
                happened as u64
            );
        }
        assert_eq!(rows.iter().filter(|row| row.peer.is_some()).count(), MOST);
        // The services with rows of their own have all of their transitions.
        let first = rows.iter().filter(|row| row.unit.as_deref() == Some("x0.service"));
        assert_eq!(first.map(|row| row.count).sum::<u64>(), u64::from(each));
        // The next window begins with room for all.
        windows.add(&transition(1, 1), 40, 2_000);
        assert!(windows.close().iter().all(|row| !row.other && row.peer.is_some()));
    }

    #[test]
    fn a_row_has_the_names_of_its_pod_as_soon_as_they_are_known() {
        let mut windows = Windows::new(10, 10);
        let of_pod = |uid: &str, name: Option<&str>| {
            let name = name.map(str::to_owned);
            let container =
                Container { name: name.clone(), ..Container::new(format!("container-{uid}"), None) };
            let pod = Pod { name: name.clone(), namespace: name, ..Pod::new(uid.to_owned()) };
            let mut made = transition(1, 1_000_000);
            let (container, pod) = (Some(container), Some(pod));
            made.conn.subject = Rc::new(Subject { container, pod, ..(*made.conn.subject).clone() });
            made
        };
        for made in [of_pod("a", None), of_pod("b", Some("web")), of_pod("a", Some("db"))] {
            windows.add(&made, 25, 1_000);
        }
        let names = |row: &Aggregate| {
            let (container, pod) = (row.container.clone()?, row.pod.clone()?);
            Some((row.count, container.name?, pod.name?, pod.uid))
        };
        let rows: Vec<_> = windows.close().iter().filter_map(names).collect();
        let row = |count, name: &str, uid: &str| (count, name.to_owned(), name.to_owned(), uid.to_owned());
        assert_eq!(rows, [row(2, "db", "a"), row(1, "web", "b")]);
    }

    #[test]
    fn a_window_counts_everything_and_tells_apart_what_it_may() {
        let mut windows = Windows::new(10, 2);
        assert_eq!((windows.end_ns(), windows.close()), (None, Vec::new()));
        for peer in [1, 1, 2, 3, 4, 9] {
            windows.add(&transition(peer, 2_000_000), 25, 1_000);
        }
        assert_eq!(windows.end_ns(), Some(1_005));
        let aggregates = windows.close();
        let of = |peer: Option<u8>| {
            let peer = peer.map(|peer| Address::from_v4([10, 0, 1, peer]));
            let found: Vec<_> = aggregates.iter().filter(|row| row.peer == peer).collect();
            assert_eq!(found.len(), 1);
            (found[0].count, found[0].dwell.counts.iter().sum::<u64>(), found[0].port)
        };
        assert_eq!((of(Some(1)), of(Some(2))), ((2, 2, 443), (1, 1, 443)));
        // A transition whose time is a lower bound is counted, but its time is not.
        assert_eq!(of(None), (3, 2, 0));
        assert_eq!(aggregates.iter().map(|row| row.count).sum::<u64>(), 6);
        assert_eq!(aggregates[0].dwell.counts[1], 2);
        assert!(windows.close().is_empty());
    }

    /// Half of the peers have no rows of their own, and their bytes are not lost.
    #[test]
    fn a_row_has_the_sums_of_the_connections_that_ended() {
        let ended = |peer: u8, retransmits: u32| Transition {
            to: State::TimeWait,
            from: State::FinWait2,
            traffic: Some(Rc::new(Traffic {
                bytes_sent: 1000 + u64::from(peer),
                bytes_received: 3,
                retransmits,
                ..Traffic::default()
            })),
            ..transition(peer, 1)
        };
        let mut windows = Windows::new(10, 2);
        for peer in 1..=4 {
            windows.add(&transition(peer, 1), 25, 1_000);
            windows.add(&ended(peer, u32::MAX), 25, 1_000);
            windows.add(&Transition { traffic: None, ..ended(peer, 0) }, 25, 1_000);
        }
        let rows = windows.close();
        let ends = rows.iter().filter(|row| row.to == State::TimeWait);
        let sums = ends.filter_map(|row| row.transferred).fold((0, 0, 0), |sums, row| {
            (sums.0 + row.bytes_sent, sums.1 + row.bytes_received, sums.2 + row.retransmits)
        });
        assert_eq!(sums, (4 * 1000 + 1 + 2 + 3 + 4, 12, 4 * u64::from(u32::MAX)));
        assert!(rows.iter().all(|row| (row.to == State::TimeWait) == row.transferred.is_some()));
        assert!(rows.iter().all(|row| row.handshakes().is_none()), "none of them is a handshake");
        windows.add(&ended(1, 7), 40, 2_000);
        let next = windows.close()[0].transferred;
        assert_eq!(next, Some(Transferred { bytes_sent: 1001, bytes_received: 3, retransmits: 7 }));
    }
}
