//! The connection table is compared with the kernel's: the errors that losses have caused are corrected, and nothing
//! else changes.

use std::collections::{BTreeSet, HashSet};

use sockstate::{
    model::{Event, EventKind, Record, Resync, Role, State, Transition},
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
    let namespaces = &BTreeSet::from([1]);
    let look = |began_ns, sockets| KernelTables { began_ns, namespaces, sockets, held: None };
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

fn told(events: &[Event]) -> Table {
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
    // It is in another state, it is gone, another was not known.
    let cases = [
        (shown(150, 1, State::CloseWait), vec![(Some(was), State::CloseWait)]),
        (shown(150, 1, was), vec![]),
        (shown(150, 2, was), vec![(None, was), (Some(was), gone)]),
    ];
    for (event, expected) in cases {
        let sockets = std::slice::from_ref(&event);
        let said = looks(&mut told(&open), [sockets, sockets], &[]);
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
    // It moved on since, it died since, it was born since and had not come yet.
    assert_eq!(
        looks(&mut told(std::slice::from_ref(&opening)), [one, one], std::slice::from_ref(&established)),
        []
    );
    let mut gone = told(&[opening.clone(), established.clone(), reset.clone()]);
    assert_eq!(looks(&mut gone, [one, none], &[]), []);
    assert!(gone.is_empty());
    assert_eq!(looks(&mut told(&[]), [none, one], std::slice::from_ref(&opening)), []);
    // Between its transition's record and the change itself.
    let ahead = told(&[opening, event(90, 1, State::SynSent, State::Established)]);
    let now: &[Event] = &[shown(210, 1, State::Established)];
    assert_eq!(looks(&mut { ahead }, [one, now], &[]), []);
}

/// No process holds a connection that waits in an accept queue, however long. In a namespace that cannot be entered, that
/// is all that is seen of the connection.
#[test]
fn a_connection_in_an_accept_queue_is_not_gone() {
    const LATER_NS: u64 = 400_000_000_000;
    let listens = listener(5, State::Close, State::Listen);
    let opens =
        [event(10, 2, State::Close, State::SynSent), event(20, 2, State::SynSent, State::Established)];
    let closes = event(30, 2, State::Established, State::FinWait1);
    let corrected = |events: &[Event], held: &[u64], began_ns: u64| {
        let (mut table, held) = (told(events), held.iter().copied().collect::<HashSet<_>>());
        let none = BTreeSet::new();
        let look = || KernelTables { began_ns, namespaces: &none, sockets: &[], held: Some(&held) };
        let differences = table.differences(&look());
        let mut gone = Vec::new();
        let names = &mut Names::default();
        table.correct_confirmed(&differences, &look(), names, &mut |update| match update {
            Update::Record(Record::Resync(resync)) => gone.push(resync.was),
            other => panic!("{other:?}"),
        });
        gone
    };
    let [opening, opened] = opens;
    let queued = [listens, opening, opened];
    let orphan = [&queued[..], &[closes]].concat();
    let other_port = {
        let mut events = queued.clone();
        events[0].tuple.local_port += 1;
        events
    };
    let open = Some(State::Established);
    assert_eq!(corrected(&queued, &[1], LATER_NS), [], "it may wait at the listener");
    assert_eq!(corrected(&queued, &[1, 2], LATER_NS), [], "a process holds it");
    assert_eq!(corrected(&queued, &[], 1_000), [], "it may have begun to wait just now");
    assert_eq!(corrected(&queued[1..], &[1], LATER_NS), [open], "there is no listener");
    assert_eq!(corrected(&other_port, &[1], LATER_NS), [open], "that listener has another port");
    assert_eq!(corrected(&orphan, &[1], LATER_NS), [Some(State::FinWait1)], "an orphan waits at no listener");
    assert_eq!(corrected(&queued, &[], LATER_NS).len(), 2, "no process holds the listener");
}

/// Its death and the listener's birth in its memory were lost, and its port was not known yet.
#[test]
fn a_listener_is_not_a_connect_before() {
    let mut connect = event(10, 1, State::Close, State::SynSent);
    connect.tuple.local_port = 0;
    let open = || told(std::slice::from_ref(&connect));
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
