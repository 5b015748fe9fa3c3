//! Owners of sockets whose owner has ended: the effect of looks at the holders.

use std::{collections::HashMap, rc::Rc};

use sockstate::{
    model::{Event, EventKind, KernelSocket, OwnerKey, OwnerSource, Snapshot, State, Task},
    track::{FoundOwner, Table, Visibility, with_owner},
};

use crate::{Names, event};

const MS: u64 = 1_000_000;
const LISTENER: u64 = 100;

fn task(pid: u32) -> Task {
    Task { pid, exec_id: 1, start_ns: pid.into(), comm: [b'x'; 16] }
}

/// A table, and the names for it.
#[derive(Default)]
struct Lab {
    names: Names,
}

impl Lab {
    /// A process listens, and ends.
    fn ended_listener(&mut self, table: &mut Table) {
        self.step(table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
        self.end(table, 2 * MS, 7);
    }

    #[expect(clippy::too_many_arguments, reason = "what a transition is made of")]
    fn step(
        &mut self,
        table: &mut Table,
        time_ns: u64,
        sk: u64,
        from: State,
        to: State,
        task: Option<Task>,
        listener: Option<u64>,
    ) {
        let mut event: Event = event(time_ns, sk, from, to);
        event.tuple.remote_port = sk as u16;
        event.kind = EventKind::Transition {
            from,
            to,
            task,
            listener: listener.map(KernelSocket),
            maybe_copy: false,
            closed_as: None,
            traffic: None,
        };
        table.apply(&event, &mut self.names);
    }

    /// A connection comes out of the listener.
    fn child(&mut self, table: &mut Table, time_ns: u64, sk: u64) {
        self.step(table, time_ns, sk, State::Listen, State::SynRecv, None, Some(LISTENER));
        self.step(table, time_ns, sk, State::SynRecv, State::Established, None, None);
    }

    fn end(&mut self, table: &mut Table, time_ns: u64, pid: u32) {
        let mut ended = event(time_ns, 0, State::Close, State::Close);
        ended.kind = EventKind::Process { task: task(pid), ended: true };
        table.apply(&ended, &mut self.names);
    }

    /// A process runs another program.
    fn exec(&mut self, table: &mut Table, time_ns: u64, pid: u32, exec_id: u32) {
        let mut renewed = event(time_ns, 0, State::Close, State::Close);
        renewed.kind = EventKind::Process { task: Task { exec_id, ..task(pid) }, ended: false };
        table.apply(&renewed, &mut self.names);
    }

    /// Answers the searches that are due, with these holders.
    fn look(&mut self, table: &mut Table, time_ns: u64, holders: &[u32]) -> Vec<u64> {
        let sockets = table.due_searches(time_ns);
        let tasks: Vec<Task> = holders.iter().map(|pid| task(*pid)).collect();
        let held: HashMap<u64, Vec<Task>> = sockets.iter().map(|sk| (*sk, tasks.clone())).collect();
        table.found_holders(&sockets, &held, time_ns, &mut self.names);
        sockets
    }
}

/// The process of the socket's owner, and the evidence.
fn owner(table: &Table, sk: u64) -> Option<(u32, OwnerSource)> {
    shown(table, sk).conn.subject.owner.as_ref().map(|owner| (owner.pid(), owner.source))
}

fn shown(table: &Table, sk: u64) -> Snapshot {
    let conn = table.conn(sk).expect("known");
    table.snapshot().find(|shown| shown.conn.id == conn).expect("there")
}

fn table() -> Table {
    Table::new(1, 0, Visibility::default())
}

#[test]
fn a_listener_belongs_to_its_only_holder() {
    let (mut lab, mut table) = (Lab::default(), table());
    lab.ended_listener(&mut table);
    lab.child(&mut table, 3 * MS, 1);
    assert_eq!(owner(&table, 1), None, "before the look");
    assert!(lab.look(&mut table, 50 * MS, &[8]).is_empty(), "not yet");
    assert_eq!(lab.look(&mut table, 200 * MS, &[7, 8]), [LISTENER]);
    assert_eq!(owner(&table, LISTENER), Some((8, OwnerSource::Scan)));
    lab.child(&mut table, 300 * MS, 2);
    assert_eq!(owner(&table, 2), Some((8, OwnerSource::Inherited)));
    // The same answer, and then several.
    assert_eq!(lab.look(&mut table, 2000 * MS, &[8]), [LISTENER]);
    lab.child(&mut table, 2100 * MS, 3);
    assert_eq!(lab.look(&mut table, 4000 * MS, &[8, 9]), [LISTENER]);
    assert_eq!(owner(&table, LISTENER), None);
    assert_eq!(owner(&table, 2), Some((8, OwnerSource::Inherited)), "it came while there was one holder");
    assert_eq!(owner(&table, 3), None, "it came between two looks that differ");
}

/// Connections that come while the look is under way belong to the next one.
#[test]
fn what_comes_during_a_look_waits_for_the_next() {
    let (mut lab, mut table) = (Lab::default(), table());
    lab.ended_listener(&mut table);
    lab.look(&mut table, 200 * MS, &[8]);
    lab.child(&mut table, 300 * MS, 1);
    let sockets = table.due_searches(2000 * MS);
    lab.child(&mut table, 2001 * MS, 2);
    let held = HashMap::from([(LISTENER, vec![task(8)])]);
    table.found_holders(&sockets, &held, 2002 * MS, &mut lab.names);
    lab.child(&mut table, 3500 * MS, 3);
    lab.look(&mut table, 4000 * MS, &[9]);
    let owners = [1, 2, 3].map(|sk| owner(&table, sk).map(|(pid, _)| pid));
    assert_eq!(owners, [Some(8), None, None]);
}

/// A worker closes a connection: a look shows whether the process that called listen() still has the listener.
#[test]
fn a_listener_that_its_process_has_closed_is_not_its() {
    for holders in [&[7_u32, 8][..], &[8], &[8, 9], &[]] {
        let (mut lab, mut table) = (Lab::default(), table());
        lab.step(&mut table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
        lab.child(&mut table, MS, 1);
        assert!(lab.look(&mut table, 2 * MS, holders).is_empty(), "nothing to doubt");
        lab.step(&mut table, 3 * MS, 1, State::Established, State::FinWait1, Some(task(8)), None);
        assert_eq!(lab.look(&mut table, 4 * MS, holders), [LISTENER]);
        lab.child(&mut table, 5 * MS, 2);
        let wanted = match holders {
            [8] => Some(8),
            [8, 9] => None,
            // The search finds no holder, which is no evidence.
            _ => Some(7),
        };
        assert_eq!(owner(&table, 2).map(|(pid, _)| pid), wanted, "{holders:?}");
        lab.step(&mut table, 6 * MS, 2, State::Established, State::FinWait1, Some(task(8)), None);
        assert!(lab.look(&mut table, 900 * MS, holders).is_empty(), "not again so soon");
    }
}

/// An exec closes what has FD_CLOEXEC: a look shows what the new program still has.
#[test]
fn an_exec_may_have_closed_what_others_have() {
    for holders in [&[7_u32][..], &[7, 8], &[8], &[8, 9], &[]] {
        let (mut lab, mut table) = (Lab::default(), table());
        lab.step(&mut table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
        lab.child(&mut table, 2, 1);
        lab.exec(&mut table, 3 * MS, 7, 2);
        lab.child(&mut table, 4 * MS, 2);
        assert!(lab.look(&mut table, 50 * MS, holders).is_empty(), "not before the exec is over");
        let mut searched = lab.look(&mut table, 200 * MS, holders);
        searched.sort_unstable();
        assert_eq!(searched, [1, LISTENER]);
        lab.child(&mut table, 300 * MS, 3);
        let wanted = match holders {
            // The second one came when it was not known whose the listener was.
            [8] => [Some((8, OwnerSource::Scan)), None, Some((8, OwnerSource::Inherited))],
            [8, 9] => [None; 3],
            // The search finds no holder, which is no evidence.
            _ => [Some((7, OwnerSource::Inherited)); 3],
        };
        assert_eq!([1, 2, 3].map(|sk| owner(&table, sk)), wanted, "{holders:?}");
    }
}

#[test]
fn each_exec_is_looked_at_but_not_all_the_time() {
    let (mut lab, mut table) = (Lab::default(), table());
    lab.step(&mut table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
    lab.exec(&mut table, 3 * MS, 7, 2);
    assert_eq!(lab.look(&mut table, 200 * MS, &[7, 8]), [LISTENER]);
    assert!(lab.look(&mut table, 900_000 * MS, &[8]).is_empty(), "nothing to doubt");
    lab.exec(&mut table, 900_001 * MS, 7, 3);
    assert_eq!(lab.look(&mut table, 900_200 * MS, &[7, 8]), [LISTENER]);
    lab.exec(&mut table, 900_300 * MS, 7, 4);
    assert!(lab.look(&mut table, 900_900 * MS, &[8]).is_empty(), "not again so soon");
    assert_eq!(lab.look(&mut table, 901_300 * MS, &[8]), [LISTENER]);
    assert_eq!(owner(&table, LISTENER), Some((8, OwnerSource::Scan)));
}

/// The descriptors of all processes have shown that the owner, which lives, does not have a connection that others have.
#[test]
fn what_its_owner_has_let_go_is_its_holders() {
    let (mut lab, mut table) = (Lab::default(), table());
    lab.step(&mut table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
    for sk in 1..=3 {
        lab.child(&mut table, sk + 1, sk);
    }
    let holder = OwnerKey { task: Rc::new(task(8)), source: OwnerSource::Scan };
    let settled: HashMap<_, _> = [1, 2]
        .map(|sk| {
            let before = Rc::clone(&shown(&table, sk).conn.subject);
            let subject = with_owner(&before, Some(holder.clone()), &mut lab.names);
            (table.conn(sk).expect("known"), FoundOwner { before, subject })
        })
        .into();
    // While the look was under way, a third process has closed one of them.
    lab.step(&mut table, 5, 2, State::Established, State::FinWait1, Some(task(9)), None);
    table.set_found_owners(&settled, MS);
    let scan = Some((8, OwnerSource::Scan));
    assert_eq!(owner(&table, 1), scan, "at once");
    assert_eq!(owner(&table, 2), Some((9, OwnerSource::Close)));
    assert_eq!(owner(&table, 3), Some((7, OwnerSource::Inherited)), "nothing was shown of it");
    assert_eq!(lab.look(&mut table, 2 * MS, &[8]), [LISTENER]);
    assert_eq!(owner(&table, LISTENER), scan);
}

#[test]
fn who_listens_on_other_ports_only() {
    let (mut lab, mut table) = (Lab::default(), table());
    let port = event(0, 1, State::Close, State::Listen).tuple.local_port;
    assert!(!table.listens_elsewhere(&task(7), port), "it listens nowhere");
    lab.step(&mut table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
    assert!(!table.listens_elsewhere(&task(7), port), "it listens there");
    assert!(table.listens_elsewhere(&task(7), port + 1));
    assert!(!table.listens_elsewhere(&task(8), port + 1), "another process");
}

/// Another name, without another program, closes nothing.
#[test]
fn another_name_is_no_doubt() {
    let (mut lab, mut table) = (Lab::default(), table());
    lab.step(&mut table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
    let mut renamed = event(2, 0, State::Close, State::Close);
    renamed.kind = EventKind::Process { task: Task { comm: [b'y'; 16], ..task(7) }, ended: false };
    table.apply(&renamed, &mut lab.names);
    assert!(lab.look(&mut table, 900 * MS, &[8]).is_empty());
    assert_eq!(owner(&table, LISTENER), Some((7, OwnerSource::Listen)));
}

/// A connection that comes during the search for a listener's owner has no owner, if the search finds another owner.
#[test]
fn what_comes_before_the_doubt_is_settled_is_disowned() {
    let (mut lab, mut table) = (Lab::default(), table());
    lab.step(&mut table, 1, LISTENER, State::Close, State::Listen, Some(task(7)), None);
    lab.exec(&mut table, 3 * MS, 7, 2);
    lab.child(&mut table, 4 * MS, 1);
    assert_eq!(owner(&table, 1), Some((7, OwnerSource::Inherited)));
    lab.look(&mut table, 200 * MS, &[8]);
    assert_eq!(owner(&table, LISTENER), Some((8, OwnerSource::Scan)));
    assert_eq!(owner(&table, 1), None);
}

#[test]
fn a_connection_that_is_left_open_belongs_to_its_only_holder() {
    let (mut lab, mut table) = (Lab::default(), table());
    let connected = |lab: &mut Lab, table: &mut Table, sk: u64| {
        lab.step(table, 1, sk, State::Close, State::SynSent, Some(task(7)), None);
        lab.step(table, 2, sk, State::SynSent, State::Established, None, None);
    };
    for sk in 1..=4 {
        connected(&mut lab, &mut table, sk);
    }
    lab.end(&mut table, MS, 7);
    // The end of the process closes one connection, and another process closes one before the search.
    lab.step(&mut table, 2 * MS, 1, State::Established, State::FinWait1, Some(task(7)), None);
    lab.step(&mut table, 3 * MS, 2, State::Established, State::FinWait1, Some(task(8)), None);
    let mut searched = table.due_searches(200 * MS);
    searched.sort_unstable();
    assert_eq!(searched, [3, 4]);
    // The process is still about to close one of them.
    let held = HashMap::from([(3, vec![task(8)]), (4, vec![task(7)])]);
    table.found_holders(&searched, &held, 210 * MS, &mut lab.names);
    assert_eq!(owner(&table, 1), Some((7, OwnerSource::Connect)));
    assert_eq!(owner(&table, 2), Some((8, OwnerSource::Close)));
    assert_eq!(owner(&table, 3), Some((8, OwnerSource::Scan)));
    assert_eq!(owner(&table, 4), Some((7, OwnerSource::Connect)));
    assert_eq!(lab.look(&mut table, 400 * MS, &[8, 9]), [4]);
    assert_eq!(owner(&table, 4), None, "one of two");
    assert!(lab.look(&mut table, 900_000 * MS, &[8]).is_empty(), "once is enough");
}

/// Sockets that exist at the start: a connection that several processes hold has no owner; a listener belongs to the
/// oldest process.
#[test]
fn of_several_holders_at_the_start_none_is_guessed() {
    let cases: [(State, &[u32], Option<u32>); 6] = [
        (State::Established, &[8], Some(8)),
        (State::Established, &[8, 8, 8], Some(8)),
        (State::Established, &[7, 8], None),
        (State::CloseWait, &[8, 7, 8, 9], None),
        // The process id of the first one may be the larger one.
        (State::Listen, &[8, 7, 9], Some(7)),
        (State::Listen, &[7, 8], Some(7)),
    ];
    for (state, holders, wanted) in cases {
        let (mut lab, mut table) = (Lab::default(), table());
        table.begin_walk();
        for &pid in holders {
            let mut held = event(MS, 1, State::Close, State::Close);
            held.kind = EventKind::Held { state, task: task(pid), fd: 3 };
            table.apply(&held, &mut lab.names);
        }
        table.end_walk();
        assert_eq!(owner(&table, 1).map(|(pid, _)| pid), wanted, "{state:?} {holders:?}");
    }
}
