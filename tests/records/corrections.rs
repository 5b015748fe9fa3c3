//! The connection table is compared with the kernel's: the errors that losses have caused are corrected, and nothing
//! else changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sockstate::{
    model::{Event, EventKind, Record, Resync, Role, State, Transition, Tuple},
    track::{KernelTables, Table, Update, Visibility},
};

use crate::{Names, event, transition};

/// A socket as a look shows it.
fn shown(time_ns: u64, sk: u64, state: State) -> Event {
    Event { kind: EventKind::Socket { state, mini: false }, ..event(time_ns, sk, state, state) }
}

/// Two looks that show this, with events between them; what is corrected.
fn looks(table: &mut Table, [first, second]: [&[Event]; 2], between: &[Event]) -> Vec<Resync> {
    let mut names = Names::default();
    let (namespaces, endpoints) = (&BTreeSet::from([1]), &BTreeMap::new());
    let look = |began_ns, sockets| KernelTables { began_ns, namespaces, sockets, endpoints, held: None };
    let mut said = Vec::new();
    let differences = table.differences(&look(100, first));
    between.iter().for_each(|event| {
        table.apply(event, &mut names);
    });
    table.correct_confirmed(&differences, &look(200, second), &mut names, &mut |update| match update {
        Update::Record(Record::Resync(resync)) => said.push(resync),
        other => panic!("{other:?}"),
    });
    said
}

fn table_after(events: &[Event]) -> Table {
    let mut table = Table::new(1, 0, Visibility::default());
    let mut names = Names::default();
    events.iter().for_each(|event| {
        table.apply(event, &mut names);
    });
    table
}

fn listener(time_ns: u64, from: State, to: State) -> Event {
    let mut event = event(time_ns, 1, from, to);
    event.tuple.remote_port = 0;
    event.tuple.remote = sockstate::model::Address::from_v4([0; 4]);
    event
}

#[test]
fn what_two_looks_show_is_put_right() {
    let open = [event(10, 1, State::Close, State::SynSent), event(20, 1, State::SynSent, State::Established)];
    let (was, gone) = (State::Established, State::Close);
    // The socket is in another state; it is unchanged; it is gone, and another socket was not known.
    let cases = [
        (shown(150, 1, State::CloseWait), vec![(Some(was), State::CloseWait)]),
        (shown(150, 1, was), vec![]),
        (shown(150, 2, was), vec![(None, was), (Some(was), gone)]),
    ];
    for (event, expected) in cases {
        let sockets = std::slice::from_ref(&event);
        let said = looks(&mut table_after(&open), [sockets, sockets], &[]);
        let said: Vec<_> = said.iter().map(|event| (event.was, event.state)).collect();
        assert_eq!(said, expected, "{event:?}");
    }
}

#[test]
fn what_changes_beside_a_look_is_not_touched() {
    let opening = event(10, 1, State::Close, State::SynSent);
    let established = event(120, 1, State::SynSent, State::Established);
    let reset = event(130, 1, State::Established, State::Close);
    let (one, none): (&[Event], &[Event]) = (&[shown(110, 1, State::SynSent)], &[]);
    // Between the readings, the socket changes its state, ends, or begins.
    assert_eq!(
        looks(
            &mut table_after(std::slice::from_ref(&opening)),
            [one, one],
            std::slice::from_ref(&established)
        ),
        []
    );
    let mut gone = table_after(&[opening.clone(), established.clone(), reset.clone()]);
    assert_eq!(looks(&mut gone, [one, none], &[]), []);
    assert!(gone.is_empty());
    assert_eq!(looks(&mut table_after(&[]), [none, one], std::slice::from_ref(&opening)), []);
    // Between its transition's record and the change itself.
    let ahead = table_after(&[opening, event(90, 1, State::SynSent, State::Established)]);
    let now: &[Event] = &[shown(210, 1, State::Established)];
    assert_eq!(looks(&mut { ahead }, [one, now], &[]), []);
}

const LATER_NS: u64 = 400_000_000_000;
const NEXT_DAY_NS: u64 = 25 * 3600 * 1_000_000_000;

/// What two readings show of a namespace that cannot be entered.
#[derive(Clone, Default)]
struct Outside {
    /// The endpoints that a process in the namespace lists, if there is one.
    listed: Option<HashSet<Tuple>>,
    /// The sockets that processes have descriptors of; `None` if the kernel cannot list them.
    held: Option<HashMap<u64, State>>,
}

impl Outside {
    fn held(sockets: &[u64]) -> Self {
        let held = sockets.iter().map(|sk| (*sk, State::Established)).collect();
        Self { listed: None, held: Some(held) }
    }

    /// The states of the connections that are then reported as gone, and how many sockets the table still has.
    fn gone(&self, events: &[Event], began_ns: u64) -> (Vec<Option<State>>, usize) {
        let mut table = table_after(events);
        let (none, mut endpoints) = (BTreeSet::new(), BTreeMap::new());
        endpoints.extend(self.listed.clone().map(|listed| (1, listed)));
        let kernel = KernelTables {
            began_ns,
            namespaces: &none,
            sockets: &[],
            endpoints: &endpoints,
            held: self.held.as_ref(),
        };
        let differences = table.differences(&kernel);
        let mut gone = Vec::new();
        let names = &mut Names::default();
        table.correct_confirmed(&differences, &kernel, names, &mut |update| match update {
            Update::Record(Record::Resync(resync)) => gone.push(resync.was),
            other => panic!("{other:?}"),
        });
        table.forget_unknown(&kernel);
        (gone, table.len())
    }
}

/// A listener, and a connection that may wait in its accept queue.
fn queued() -> [Event; 3] {
    let opens = event(10, 2, State::Close, State::SynSent);
    [listener(5, State::Close, State::Listen), opens, event(20, 2, State::SynSent, State::Established)]
}

/// No process has a descriptor of a connection that waits in an accept queue, however long. In a namespace that cannot be
/// entered and that no process is in, nothing else is seen of the connection.
#[test]
fn an_open_connection_without_a_descriptor_is_not_gone() {
    let queued = queued();
    let mut other_port = queued.clone();
    other_port[0].tuple.local_port += 1;
    for began_ns in [1_000, LATER_NS] {
        assert_eq!(Outside::held(&[1]).gone(&queued, began_ns), (vec![], 2), "it may wait at the listener");
        assert_eq!(Outside::held(&[1, 2]).gone(&queued, began_ns), (vec![], 2), "a process holds it");
        let unknown = "the table may not know the listener, or io_uring may hold it";
        assert_eq!(Outside::held(&[1]).gone(&queued[1..], began_ns), (vec![], 1), "{unknown}");
        assert_eq!(Outside::held(&[1]).gone(&other_port, began_ns), (vec![], 2), "{unknown}");
        assert_eq!(Outside::held(&[]).gone(&queued, began_ns), (vec![], 2), "{unknown}");
        assert_eq!(Outside::default().gone(&queued, began_ns), (vec![], 2), "nothing is known");
    }
}

/// Without evidence for a day, the table forgets a connection, and reports nothing.
#[test]
fn what_is_not_known_for_long_is_forgotten() {
    let queued = queued();
    assert_eq!(Outside::held(&[1]).gone(&queued, NEXT_DAY_NS), (vec![], 2), "it may wait at the listener");
    assert_eq!(Outside::held(&[2]).gone(&queued[1..], NEXT_DAY_NS), (vec![], 1), "a process holds it");
    assert_eq!(Outside::held(&[]).gone(&queued[1..], NEXT_DAY_NS), (vec![], 0), "there is no evidence");
    assert_eq!(Outside::held(&[]).gone(&queued, NEXT_DAY_NS), (vec![], 0), "of the listener, too");
    assert_eq!(Outside::default().gone(&queued, NEXT_DAY_NS), (vec![], 2), "a process may hold it");
}

/// The kernel's timers end the state of a connection that an application has closed.
#[test]
fn an_orphan_that_is_too_old_is_gone() {
    let [_, opens, opened] = queued();
    let orphan = [opens, opened, event(30, 2, State::Established, State::FinWait1)];
    assert_eq!(Outside::held(&[]).gone(&orphan, LATER_NS), (vec![Some(State::FinWait1)], 0));
    assert_eq!(Outside::held(&[]).gone(&orphan, 1_000), (vec![], 1), "a timer may still run");
    assert_eq!(Outside::held(&[2]).gone(&orphan, LATER_NS), (vec![], 1), "it is half-closed");
    assert_eq!(Outside::default().gone(&orphan, LATER_NS), (vec![], 1), "it may be half-closed");
}

/// A process in the namespace lists all sockets there.
#[test]
fn a_connection_that_is_not_listed_is_gone() {
    let queued = queued();
    let tuples: Vec<Tuple> = queued.iter().map(|event| event.tuple.of_any_interface()).collect();
    let open = Some(State::Established);
    let (both, listener) = (HashSet::from([tuples[0], tuples[2]]), HashSet::from([tuples[0]]));
    for held in [None, Some(HashMap::from([(1, State::Listen)]))] {
        let outside = |listed: &HashSet<Tuple>| Outside { listed: Some(listed.clone()), held: held.clone() };
        assert_eq!(outside(&both).gone(&queued, NEXT_DAY_NS), (vec![], 2), "it is listed");
        assert_eq!(outside(&listener).gone(&queued, 1_000), (vec![open], 1), "it is not listed");
        let mut bound = queued.clone();
        bound[1].tuple.interface = 2;
        bound[2].tuple.interface = 2;
        assert_eq!(outside(&both).gone(&bound, NEXT_DAY_NS), (vec![], 2), "the list has no interfaces");
        let mut portless = queued[1].clone();
        portless.tuple.local_port = 0;
        assert_eq!(outside(&listener).gone(&[portless], 1_000), (vec![], 1), "its port is not known");
    }
    let held = Outside { listed: Some(listener), held: Some(HashMap::from([(2, State::Established)])) };
    assert_eq!(held.gone(&queued[1..], NEXT_DAY_NS), (vec![], 1), "a process holds it");
}

/// The descriptor of a connection that the peer has reset stays until the application closes it.
#[test]
fn a_descriptor_of_a_closed_socket_shows_the_end() {
    let closed = Outside { listed: None, held: Some(HashMap::from([(1, State::Listen), (2, State::Close)])) };
    assert_eq!(closed.gone(&queued(), 1_000), (vec![Some(State::Established)], 1));
}

/// The events of the connect's end and of the listener's beginning at the same address were lost. The port of the
/// connect was not known yet.
#[test]
fn a_listener_is_not_a_connect_before() {
    let mut connect = event(10, 1, State::Close, State::SynSent);
    connect.tuple.local_port = 0;
    let open = || table_after(std::slice::from_ref(&connect));
    let before = open().snapshot().next().expect("the connect").conn.id;

    let mut names = Names::default();
    let close = listener(50, State::Listen, State::Close);
    let closed: Transition = transition(&mut open(), &close, &mut names).expect("a transition");
    assert_eq!((closed.conn.role, closed.conn.tuple.remote_port), (Some(Role::Listener), 0));
    assert_ne!(closed.conn.id, before);

    let socket = Event { tuple: close.tuple, ..shown(150, 1, State::Listen) };
    let sockets = std::slice::from_ref(&socket);
    let said = looks(&mut open(), [sockets, sockets], &[]);
    let said: Vec<_> =
        said.iter().map(|resync| (resync.conn.id == before, resync.was, resync.state)).collect();
    assert_eq!(said, [(true, Some(State::SynSent), State::Close), (false, None, State::Listen)]);

    // The next step of another that has its memory, and the connect's own.
    let others = event(50, 1, State::Established, State::CloseWait);
    assert_ne!(transition(&mut open(), &others, &mut names).expect("a transition").conn.id, before);
    let own = event(50, 1, State::SynSent, State::Established);
    assert_eq!(transition(&mut open(), &own, &mut names).expect("a transition").conn.id, before);
}
