//! A process that becomes another program, or ends: only the owners of its own sockets change.

use sockstate::{
    model::{Event, EventKind, State, Task},
    track::{Table, Visibility},
};

use crate::{Names, event};

fn task(pid: u32, exec_id: u32, start_ns: u64) -> Task {
    Task { pid, exec_id, start_ns, comm: [b'a' + exec_id as u8; 16] }
}

/// A transition that a call of the process `task` causes.
fn call(sk: u64, from: State, to: State, task: Task) -> Event {
    let kind = EventKind::Transition {
        from,
        to,
        task: Some(task),
        listener: None,
        maybe_copy: false,
        closed_as: None,
        traffic: None,
    };
    Event { kind, ..event(sk, sk, from, to) }
}

fn process(task: Task, ended: bool) -> Event {
    Event { kind: EventKind::Process { task, ended }, ..event(100, 0, State::Close, State::Close) }
}

fn table(events: &[Event]) -> Table {
    let mut table = Table::new(1, 0, Visibility::default());
    events.iter().for_each(|event| {
        table.apply(event, &mut Names::default());
    });
    table
}

/// The owner's program of each connection, by the order of their ids.
fn programs(table: &Table) -> Vec<u32> {
    let mut all: Vec<_> = table.snapshot().collect();
    all.sort_by_key(|transition| transition.conn.id.0);
    all.iter()
        .map(|transition| transition.conn.subject.owner.as_ref().expect("an owner").task.exec_id)
        .collect()
}

#[test]
fn an_exec_renews_what_the_process_owns() {
    let (before, other) = (task(7, 0, 5), task(8, 0, 5));
    let mut table = table(&[
        call(1, State::Close, State::Listen, before.clone()),
        call(2, State::Close, State::SynSent, before.clone()),
        call(3, State::Close, State::SynSent, other),
        // The same number, before it was given to this process.
        call(4, State::Close, State::SynSent, task(7, 0, 1)),
        call(5, State::Close, State::SynSent, before),
        event(60, 5, State::SynSent, State::Close),
    ]);
    table.apply(&process(task(7, 1, 5), false), &mut Names::default());
    assert_eq!(programs(&table), [1, 1, 0, 0]);
    table.apply(&process(task(7, 2, 5), false), &mut Names::default());
    assert_eq!(programs(&table), [2, 2, 0, 0]);
}

#[test]
fn the_end_of_a_listeners_owner_is_noticed_by_the_next_sockstate_too() {
    let owner = task(7, 0, 5);
    let old = table(&[call(1, State::Close, State::Listen, owner.clone())]);
    let mut table = Table::new(1, 0, Visibility::default());
    table.restore(&old.save(), old.last_id(), true, &mut Names::default());
    table.apply(&process(task(8, 0, 5), true), &mut Names::default());
    table.apply(&process(task(7, 0, 1), true), &mut Names::default());
    assert_eq!(table.next_search_ns(), None, "others have ended");
    table.apply(&process(owner, true), &mut Names::default());
    assert!(table.next_search_ns().is_some(), "its holders are looked for");
}
