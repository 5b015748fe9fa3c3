//! Connections that come and go while the tracer starts. The ring is attached first, then the walk reads the sockets
//! that exist. What the walk sees of a socket may be older or newer than the socket's records in the ring.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use sockstate::{
    model::{ConnId, Event, EventKind, KernelSocket, MiniEnd, MiniEndHow, Record, State, Task},
    track::{Table, Update, Visibility},
};

use crate::{Names, event};

/// A step of a random history: the records that the kernel writes, and the sockets that exist afterwards.
struct Moment {
    records: Vec<Event>,
    sockets: World,
}

/// The kernel's sockets by their keys: the connection (by its remote port), the state, whether it is a mini-socket.
type World = BTreeMap<u64, (u16, State, bool)>;

/// Mini-sockets live in memory of their own.
const MINI: u64 = 1000;
const LISTENER: u64 = 900;

fn step(sk: u64, port: u16, from: State, to: State) -> Event {
    let mut step = event(0, sk, from, to);
    step.tuple.remote_port = port;
    step
}

fn of_kind(sk: u64, port: u16, kind: EventKind) -> Event {
    Event { kind, ..step(sk, port, State::Close, State::Close) }
}

/// The steps of the sockets at the address `sk`, one after another.
fn life(sk: u64, port: u16, way: u8) -> Vec<(Vec<Event>, World)> {
    let full = |state| World::from([(sk, (port, state, false))]);
    let mini = |state| World::from([(sk + MINI, (port, state, true))]);
    let go = |from, to| (vec![step(sk, port, from, to)], full(to));
    let mut moments = if way & 1 == 0 {
        vec![go(State::Close, State::SynSent), go(State::SynSent, State::Established)]
    } else {
        let from = Some(KernelSocket(LISTENER));
        let request = EventKind::Mini { state: State::NewSynRecv, from, again: false };
        vec![
            (vec![of_kind(sk + MINI, port, request)], mini(State::NewSynRecv)),
            go(State::Listen, State::SynRecv),
            go(State::SynRecv, State::Established),
        ]
    };
    if way & 2 == 0 {
        moments.push(go(State::Established, State::CloseWait));
        moments.push(go(State::CloseWait, State::LastAck));
        moments.push((vec![step(sk, port, State::LastAck, State::Close)], World::new()));
    } else {
        moments.push(go(State::Established, State::FinWait1));
        moments.push(go(State::FinWait1, State::FinWait2));
        // The programs are attached before the first or behind the last of these; the walk may come between.
        let begins = EventKind::Mini { state: State::TimeWait, from: Some(KernelSocket(sk)), again: false };
        let records = vec![of_kind(sk + MINI, port, begins), step(sk, port, State::FinWait2, State::Close)];
        moments.push((records, mini(State::TimeWait)));
        let end =
            MiniEnd { how: MiniEndHow::Expired, netns_gone: false, reused: false, listener_gone: false };
        moments.push((vec![of_kind(sk + MINI, port, EventKind::MiniEnd(end))], World::new()));
    }
    moments
}

/// Lives in several places of memory, one after another in each, mixed by `order`.
fn history(ways: &[u8], order: &[u8]) -> Vec<Moment> {
    let places = 3;
    let mut waiting: Vec<Vec<_>> = (0..places).map(|_| Vec::new()).collect();
    for (at, way) in ways.iter().enumerate() {
        let place = at % places;
        waiting[place].extend(life(place as u64 + 1, 2000 + at as u16, *way));
    }
    waiting.iter_mut().for_each(|moments| moments.reverse());
    let mut now: Vec<World> = vec![World::new(); places];
    let mut moments = Vec::new();
    // Every place has its turn.
    let mut order = order.iter().chain(&[0, 1, 2]).cycle();
    while waiting.iter().any(|moments| !moments.is_empty()) {
        let place = usize::from(*order.next().expect("endless")) % places;
        let Some((records, sockets)) = waiting[place].pop() else { continue };
        now[place] = sockets;
        moments.push(Moment {
            records,
            sockets: now.iter().flatten().map(|(sk, socket)| (*sk, *socket)).collect(),
        });
    }
    for (at, moment) in moments.iter_mut().enumerate() {
        for (nth, record) in moment.records.iter_mut().enumerate() {
            record.time_ns = 1_000 * (at as u64 + 1) + nth as u64;
        }
    }
    moments
}

fn sight(time_ns: u64, sk: u64, (port, state, mini): (u16, State, bool), held: bool) -> Event {
    let task = Task { pid: 7, exec_id: 1, start_ns: 1, comm: *b"server\0\0\0\0\0\0\0\0\0\0" };
    let kind = match held {
        true => EventKind::Held { state, task, fd: 3 },
        false => EventKind::Socket { state, mini },
    };
    Event { time_ns, ..of_kind(sk, port, kind) }
}

/// Attached behind `attached` moments, the walk over behind `walked`: what the table then holds, and what it reports later.
fn start(
    moments: &[Moment],
    attached: usize,
    walked: usize,
    delays: &[u8],
) -> (Vec<(u16, State, ConnId)>, Vec<Update>) {
    let mut table = Table::new(1, 0, Visibility { minis: true, ..Visibility::default() });
    let mut names = Names::default();
    let mut mute = |table: &mut Table, event: &Event| {
        table.apply(event, &mut names);
    };
    let world = |at: usize| if at == 0 { World::new() } else { moments[at - 1].sockets.clone() };
    let mut delays = delays.iter().cycle().map(|delay| usize::from(*delay));
    let mut delay = || delays.next().expect("endless");
    table.begin_walk();
    // The walk shows the sockets that processes hold first, each at a different time.
    for at in attached..=walked {
        for (sk, socket) in world(at) {
            if !socket.2 && delay() % 3 == 0 {
                mute(&mut table, &sight(1_000 * at as u64 + 500, sk, socket, true));
            }
        }
    }
    // Then the tables: every socket that was there all the time is seen, others perhaps, each behind the ring up to then or later.
    let mut read = attached;
    for at in attached..=walked {
        for (sk, socket) in world(at) {
            let stays = (at..=walked).all(|at| world(at).get(&sk).is_some_and(|found| found.0 == socket.0));
            if !(at == walked || stays && delay() % 2 == 0 || delay() % 4 == 0) {
                continue;
            }
            let until = (at + delay() % 4).min(walked).max(read);
            for moment in &moments[read..until] {
                moment.records.iter().for_each(|record| mute(&mut table, record));
            }
            read = until;
            mute(&mut table, &sight(1_000 * at as u64 + 600, sk, socket, false));
        }
    }
    for moment in &moments[read..walked] {
        moment.records.iter().for_each(|record| mute(&mut table, record));
    }
    table.end_walk();
    let mut shown: Vec<_> = table
        .snapshot()
        .map(|snapshot| (snapshot.conn.tuple.remote_port, snapshot.state, snapshot.conn.id))
        .collect();
    shown.sort_by_key(|row| row.0);
    let mut said = Vec::new();
    for event in moments[walked..].iter().flat_map(|moment| &moment.records) {
        said.extend_from_slice(table.apply(event, &mut names));
    }
    table.tick(1 << 40, &mut names, &mut |update| said.push(update));
    assert!(table.is_empty(), "left: {:?}", table.snapshot().collect::<Vec<_>>());
    (shown, said)
}

proptest! {
    /// However the walk and the ring are mixed: the stream begins with the kernel's sockets in their states, each once, and goes
    /// on from there without a correction.
    #[test]
    fn the_stream_begins_with_what_there_is(
        ways in proptest::collection::vec(any::<u8>(), 1..12),
        order in proptest::collection::vec(any::<u8>(), 8..40),
        delays in proptest::collection::vec(any::<u8>(), 8..40),
        (attached, walked) in (0_usize..80, 0_usize..30),
    ) {
        let moments = history(&ways, &order);
        let attached = attached % (moments.len() + 1);
        let walked = (attached + walked).min(moments.len());
        let (shown, said) = start(&moments, attached, walked, &delays);
        let there = if walked == 0 { World::new() } else { moments[walked - 1].sockets.clone() };
        let mut there: Vec<_> = there.into_values().map(|(port, state, _)| (port, state)).collect();
        there.sort_by_key(|row| row.0);
        prop_assert_eq!(shown.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>(), there);
        let mut last: HashMap<ConnId, (u16, State)> = shown.iter().map(|row| (row.2, (row.0, row.1))).collect();
        for update in said {
            let Update::Record(Record::Transition(transition)) = update else { panic!("a correction: {update:?}") };
            let port = transition.conn.tuple.remote_port;
            match last.get(&transition.conn.id) {
                // A request's state and its child's have one name.
                Some(known) => prop_assert_eq!((known.0, known.1.name()), (port, transition.from.name())),
                // A birth, of a connection that nobody knows.
                None => {
                    prop_assert!(matches!(transition.from, State::Close | State::Listen), "{transition:?}");
                    prop_assert!(last.values().all(|known| known.0 != port), "{transition:?}");
                }
            }
            last.insert(transition.conn.id, (port, transition.to));
        }
        prop_assert!(last.values().all(|row| row.1 == State::Close));
    }
}
