//! From bytes to records to text, without a kernel. This file: the connection table with random histories.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod allocations;
mod bounds;
mod busy;
mod bytes;
mod connections;
mod corpus;
mod corrections;
mod earlier_version;
mod formats;
mod owners;
mod renewed;
mod schemas;
mod severity;
mod starting;
mod texts;
mod watchdog;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use proptest::prelude::*;
use sockstate::{
    decode::decode,
    format::{Format, Json},
    model::{
        Address, Event, EventKind, Identify, KernelSocket, MiniEnd, MiniEndHow, Owner, Record, Scope, State,
        Subject, SubjectKey, Task, Threshold, Thresholds, Transition, Tuple,
    },
    track::{KernelTables, Table, Update, Visibility},
};
use sockstate_abi::abi::{AF_INET, flag, kind};
use testkit::schema;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Names by key, each key once.
#[derive(Default)]
struct Names {
    known: HashMap<SubjectKey, Rc<Subject>>,
}

impl Identify for Names {
    fn identify(&mut self, key: SubjectKey) -> Rc<Subject> {
        let id = self.known.len() as u64;
        let make = |key: &SubjectKey| {
            let owner = key.owner.as_ref().map(|owner| Owner {
                task: Rc::clone(&owner.task),
                comm: String::from_utf8_lossy(owner.task.comm()).into_owned(),
                exe: None,
                uid: key.uid,
                source: owner.source,
                cmdline: None,
            });
            let (netns, cgroup, container, pod, unit) = (key.netns, None, None, None, None);
            Rc::new(Subject { id, owner, netns, cgroup, container, pod, unit })
        };
        Rc::clone(self.known.entry(key.clone()).or_insert_with(|| make(&key)))
    }

    fn forget_process(&mut self, _: &Task) {}
}

fn event(time_ns: u64, sk: u64, from: State, to: State) -> Event {
    Event {
        time_ns,
        sk,
        cgroup: None,
        netns: Some(1),
        uid: Some(0),
        error: 0,
        tuple: Tuple {
            local: Address::from_v4([127, 0, 0, 1]),
            remote: Address::from_v4([127, 0, 0, 1]),
            local_port: 1000,
            remote_port: 2000,
            v6_socket: false,
            interface: 0,
        },
        kind: EventKind::Transition {
            from,
            to,
            task: None,
            listener: None,
            maybe_copy: false,
            closed_as: None,
            traffic: None,
        },
    }
}

/// A connect by a process of this name, as a transition.
fn connect_by(comm: &[u8]) -> Transition {
    let mut padded = [0; 16];
    padded[..comm.len()].copy_from_slice(comm);
    let task = Task { pid: 7, exec_id: 1, start_ns: 1, comm: padded };
    let mut event = event(1, 1, State::Close, State::SynSent);
    event.kind = EventKind::Transition {
        from: State::Close,
        to: State::SynSent,
        task: Some(task),
        listener: None,
        maybe_copy: false,
        closed_as: None,
        traffic: None,
    };
    transition(&mut Table::new(1, 0, Visibility::default()), &event, &mut Names::default())
        .expect("a transition")
}

/// The transition that the table reports for an event, if there is one.
fn transition(table: &mut Table, event: &Event, names: &mut Names) -> Option<Transition> {
    let mut found = None;
    table.apply(event, names).iter().cloned().for_each(|update| match update {
        Update::Record(Record::Transition(transition)) => assert!(found.replace(transition).is_none()),
        // The end of the previous socket at this address was not seen.
        Update::Record(Record::Resync(resync)) => assert_eq!(resync.state, State::Close),
        _ => panic!("nothing to complete, and nothing stuck"),
    });
    found
}

fn written(format: &mut dyn Format, transition: &Transition) -> String {
    let mut out = Vec::new();
    format.record(1, &Record::Transition(transition.clone()), &mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// A transition that the companion program writes a second time is reported once. The same transition of a later socket
/// is not a copy.
#[test]
fn second_copies() {
    let mut table = Table::new(1, 0, Visibility::default());
    let mut names = Names::default();
    let mut apply = |event: &Event| transition(&mut table, event, &mut names).is_some();
    let copy = |mut event: Event| {
        if let EventKind::Transition { maybe_copy, .. } = &mut event.kind {
            *maybe_copy = true;
        }
        event
    };
    let listen = event(1, 1, State::Close, State::Listen);
    let close = event(2, 1, State::Listen, State::Close);
    assert!(apply(&listen));
    assert!(!apply(&copy(listen.clone())), "a copy");
    assert!(apply(&copy(close.clone())), "only the companion saw it");
    assert!(!apply(&copy(close.clone())), "a copy of a death");
    assert!(apply(&listen), "again");
    assert!(apply(&close));
    assert!(!apply(&copy(close)));
}

#[test]
fn a_key_that_is_used_again_is_another_connection() {
    let mut table = Table::new(1, 0, Visibility::default());
    let mut names = Names::default();
    let mut conn = |event: &Event| {
        let transition = transition(&mut table, event, &mut names).expect("a transition");
        (transition.conn.id, transition.in_state)
    };
    let (first, _) = conn(&event(10, 1, State::Close, State::SynSent));
    let (same, in_state) = conn(&event(30, 1, State::SynSent, State::Established));
    assert_eq!((same, in_state.map(|in_state| in_state.ns)), (first, Some(20)));
    // The event of its end was lost.
    let (second, _) = conn(&event(50, 1, State::Close, State::SynSent));
    assert_ne!(second, first);
    // Death and birth were lost: other ports.
    let mut other = event(60, 1, State::Established, State::CloseWait);
    other.tuple.remote_port = 3000;
    let (third, in_state) = conn(&other);
    assert_ne!(third, second);
    assert_eq!(in_state, None, "never a wrong duration");
    // A transition was lost.
    let mut late = event(70, 1, State::FinWait1, State::FinWait2);
    late.tuple.remote_port = 3000;
    assert_eq!(conn(&late), (third, None));
}

/// The state of each connection according to the stream. `broken` counts the records of a connection after its end.
fn say(update: Update, last: &mut HashMap<u64, &str>, broken: &mut u32) {
    let (conn, state) = match update {
        Update::Record(Record::Transition(transition)) => (transition.conn.id, transition.to),
        Update::Record(Record::Resync(resync)) => (resync.conn.id, resync.state),
        Update::Record(Record::Stuck(stuck)) => {
            *broken += u32::from(last.get(&stuck.conn.id.0) != Some(&stuck.state.name()));
            return;
        }
        _ => return,
    };
    *broken += u32::from(last.insert(conn.0, state.name()) == Some("CLOSE"));
}

fn states() -> impl Strategy<Value = State> {
    (0_u8..15).prop_map(State::from_number)
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_cut_record_is_an_error(cut in 0_usize..88, old in any::<u8>(), new in any::<u8>()) {
        let good = bytes::with_task(bytes::v4(bytes::head(kind::TRANSITION, flag::TASK, old, new, AF_INET)));
        prop_assert!(decode(&good[..cut]).is_err());
    }

    /// Whatever order the kernel's words come in: no panic, no duration from nowhere, no socket kept after its end.
    #[test]
    fn any_history_is_survived(
        history in proptest::collection::vec((0_u64..6, states(), states(), any::<bool>()), 0..200)
    ) {
        let mut table = Table::new(1, 0, Visibility::default());
        let mut names = Names::default();
        let mut last: HashMap<u64, (&str, u64)> = HashMap::new();
        for (at, (sk, from, to, maybe)) in history.into_iter().enumerate() {
            let now = 100 * (at as u64 + 1);
            let mut event = event(now, sk, from, to);
            if let EventKind::Transition { maybe_copy, .. } = &mut event.kind {
                *maybe_copy = maybe;
            }
            if let Some(transition) = transition(&mut table, &event, &mut names) {
                if let Some(in_state) = transition.in_state {
                    prop_assert_eq!(Some(&(from.name(), now - in_state.ns)), last.get(&sk));
                }
                if to == State::Close {
                    last.remove(&sk);
                } else {
                    last.insert(sk, (to.name(), now));
                }
            }
            prop_assert_eq!(table.len(), last.len());
        }
        prop_assert_eq!(table.snapshot().count(), last.len());
    }

    /// The same with mini-sockets, resets, time and looks at the kernel's table: no panic, nothing waits for ever, and
    /// what the stream says is what the table holds.
    #[test]
    fn any_history_of_mini_sockets_is_survived(
        history in proptest::collection::vec(
            (0_u64..6, 0_u64..6, 0_u16..3, 0_u8..10, states(), states(), any::<bool>()), 0..300
        )
    ) {
        let visibility = Visibility { minis: true, resets: true, ..Visibility::default() };
        let mut table = Table::new(1, 0, visibility);
        let rule = |state| Threshold {
            scope: Scope { state: Some(state), ..Scope::default() },
            after_ns: Some(0),
        };
        let thresholds = Thresholds::with(&[State::CloseWait, State::FinWait2, State::SynRecv].map(rule));
        table.set_thresholds(thresholds);
        let mut names = Names::default();
        let mut last: HashMap<u64, &str> = HashMap::new();
        let mut broken = 0;
        let mut now = 0;
        for (sk, other, port, kind, from, to, flag) in history {
            now += 10_000_000;
            let mut event = event(now, sk, from, to);
            event.tuple.remote_port = port;
            let link = (other != 0).then_some(KernelSocket(other));
            let mini = matches!(to, State::NewSynRecv | State::TimeWait);
            if (4..7).contains(&kind) || (kind == 9 && mini) {
                // Mini-sockets and full ones live in memory of their own.
                event.sk += 100;
            }
            match kind {
                0..4 => {}
                4 => event.kind = EventKind::Mini { state: State::NewSynRecv, from: link, again: flag },
                5 => {
                    let state = if flag { State::TimeWait } else { State::FinWait2 };
                    event.kind = EventKind::Mini { state, from: link, again: flag };
                }
                6 => {
                    let how = if flag { MiniEndHow::Stopped } else { MiniEndHow::Expired };
                    event.kind = EventKind::MiniEnd(MiniEnd {
                        how,
                        netns_gone: false,
                        reused: other == 1,
                        listener_gone: other == 2,
                    });
                }
                7 => event.kind = EventKind::ResetSent { state: from, reason: None, linger_0: flag },
                8 => event.kind = EventKind::Cookie,
                _ => event.kind = EventKind::Socket { state: to, mini },
            }
            let mut out = |update: Update| say(update, &mut last, &mut broken);
            if kind == 9 {
                // A look at the kernel's table, which shows this socket or none.
                let sockets = if flag { std::slice::from_ref(&event) } else { &[] };
                let (namespaces, endpoints) = (&BTreeSet::from([1]), &BTreeMap::new());
                let shown = KernelTables { began_ns: now, namespaces, sockets, endpoints, held: None };
                let differences = table.differences(&shown);
                table.correct_confirmed(&differences, &shown, &mut names, &mut out);
            } else {
                table.apply(&event, &mut names).iter().cloned().for_each(&mut out);
            }
            table.tick(now, &mut names, &mut out);
        }
        table.tick(now + 1_000_000_000, &mut names, &mut |update: Update| say(update, &mut last, &mut broken));
        prop_assert_eq!(broken, 0);
        prop_assert!(!table.is_waiting());
        prop_assert_eq!(last.values().filter(|state| **state != "CLOSE").count(), table.len());
        prop_assert_eq!(table.snapshot().count(), table.len());
    }

    #[test]
    fn any_name_makes_valid_json(comm in proptest::collection::vec(any::<u8>(), 0..16)) {
        let text = written(&mut Json::default(), &connect_by(&comm));
        schema::check(&serde_json::from_str(&text).expect("JSON"));
    }
}
