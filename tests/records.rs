//! From bytes to records to text, without a kernel: malformed records, nasty names, random histories.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "records/corrections.rs"]
mod corrections;
#[path = "support/schema.rs"]
mod schema;
#[path = "records/starting.rs"]
mod starting;

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use proptest::prelude::*;
use serde_json::Value;
use sockstate::{
    decode::{DecodeError, decode},
    format::{Csv, Format, Json, Table as TableFormat},
    model::{
        Address, Event, EventKind, Identify, KernelSocket, Lost, LostPlace, MiniEnd, MiniEndHow, Notice,
        Owner, Scope, SocketInfo, State, Subject, SubjectKey, Task, Threshold, Thresholds, Transition,
        Transport, Tuple,
    },
    track::{Applied, Shown, Sight, Table},
};
use sockstate_abi::abi::{AF_INET, AF_INET6, flag, kind};

/// Bytes of a head, as the kernel programs write it.
fn head(kind: u8, flags: u8, old: u8, new: u8, family: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(7_u64.to_ne_bytes()); // time
    bytes.extend(0xffff_8880_1234_5678_u64.to_ne_bytes()); // sk
    bytes.extend(42_u64.to_ne_bytes()); // cgroup
    bytes.extend(4_026_531_840_u32.to_ne_bytes()); // netns
    bytes.extend(1000_u32.to_ne_bytes()); // uid
    bytes.extend([kind, flags, old, new]);
    bytes.extend(family.to_ne_bytes());
    bytes.extend(104_u16.to_ne_bytes()); // error
    bytes.extend(8080_u16.to_ne_bytes());
    bytes.extend(40000_u16.to_ne_bytes());
    bytes.extend(9_u32.to_ne_bytes()); // extra
    bytes
}

fn v4(mut head: Vec<u8>) -> Vec<u8> {
    head.extend([127, 0, 0, 1, 10, 0, 0, 2]);
    head
}

fn with_task(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(77_u32.to_ne_bytes());
    bytes.extend(3_u32.to_ne_bytes());
    bytes.extend(5_000_000_000_u64.to_ne_bytes());
    bytes.extend(b"nginx\0garbage\0\0\0");
    bytes
}

#[test]
fn well_formed_records() {
    let event = decode(&v4(head(kind::TRANSITION, 0, 1, 8, AF_INET))).expect("plain");
    assert_eq!(event.tuple.local, Address::from_v4([127, 0, 0, 1]));
    assert_eq!((event.tuple.local_port, event.tuple.remote_port), (8080, 40000));
    assert_eq!(
        (event.cgroup, event.netns, event.uid, event.error),
        (Some(42), Some(4_026_531_840), Some(1000), 104)
    );
    let EventKind::Transition { from, to, task, listener, maybe_copy, .. } = event.kind else {
        panic!("kind")
    };
    assert_eq!(
        (from, to, task, listener, maybe_copy),
        (State::Established, State::CloseWait, None, None, false)
    );

    let event = decode(&with_task(v4(head(kind::TRANSITION, flag::TASK | flag::COMPANION, 7, 2, AF_INET))));
    let EventKind::Transition { task: Some(task), maybe_copy: true, .. } = event.expect("task").kind else {
        panic!("task")
    };
    assert_eq!((task.pid, task.exec_id, task.start_ns, task.comm()), (77, 3, 5_000_000_000, &b"nginx"[..]));

    let mut bytes = head(kind::TRANSITION, flag::V6 | flag::LISTENER, 10, 3, AF_INET6);
    bytes.extend([0; 32]);
    bytes.extend(99_u64.to_ne_bytes());
    // The ring pads records.
    bytes.extend([0; 8]);
    let event = decode(&bytes).expect("listener");
    assert!(matches!(event.kind, EventKind::Transition { listener: Some(KernelSocket(99)), .. }));

    let event = decode(&v4(head(kind::TRANSITION, flag::BARE, 1, 7, AF_INET))).expect("bare");
    assert_eq!((event.uid, event.error), (None, 0));

    // A state of a kernel to come.
    let event = decode(&v4(head(kind::TRANSITION, 0, 1, 200, AF_INET))).expect("unknown state");
    assert!(matches!(event.kind, EventKind::Transition { to: State::Unknown(200), .. }));
}

#[test]
fn malformed_records() {
    let good = with_task(v4(head(kind::TRANSITION, flag::TASK, 7, 2, AF_INET)));
    for len in 0..good.len() {
        let error = decode(&good[..len]).expect_err("cut short");
        let part = match len {
            0..48 => "head",
            48..56 => "addresses",
            _ => "task",
        };
        assert_eq!(error, DecodeError::Short { len, part });
    }
    // Addresses of IPv6 promised, those of IPv4 there.
    let error = decode(&v4(head(kind::TRANSITION, flag::V6, 1, 8, AF_INET6))).expect_err("short");
    assert_eq!(error, DecodeError::Short { len: 56, part: "addresses" });
    let error = decode(&v4(head(kind::TRANSITION, flag::LISTENER, 10, 3, AF_INET))).expect_err("short");
    assert_eq!(error, DecodeError::Short { len: 56, part: "listener" });
    assert_eq!(decode(&v4(head(0, 0, 1, 8, AF_INET))), Err(DecodeError::Kind(0)));
    assert_eq!(decode(&v4(head(255, 0, 1, 8, AF_INET))), Err(DecodeError::Kind(255)));
    assert_eq!(decode(&v4(head(kind::TRANSITION, 0, 1, 8, 1))), Err(DecodeError::Family(1)));
    assert_eq!(decode(&v4(head(kind::FILE, 0, 1, 1, AF_INET))), Err(DecodeError::NoTask(kind::FILE)));
    // Misaligned by the caller: nothing depends on alignment.
    let mut shifted = vec![0];
    shifted.extend(&good);
    assert_eq!(decode(&shifted[1..]), decode(&good));
}

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
            let (netns, cgroup, container, pod_uid, unit) = (key.netns, None, None, None, None);
            Rc::new(Subject { id, owner, netns, cgroup, container, pod_uid, unit })
        };
        Rc::clone(self.known.entry(key.clone()).or_insert_with(|| make(&key)))
    }

    fn read_again(&mut self, _: &Task) {}
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
    };
    transition(&mut Table::new(1, 0, Sight::default()), &event, &mut Names::default()).expect("a transition")
}

/// What the table reports of an event, if anything.
fn transition(table: &mut Table, event: &Event, names: &mut Names) -> Option<Transition> {
    let mut found = None;
    table.apply(event, names, &mut |applied| match applied {
        Applied::Transition(transition) => assert!(found.replace(transition).is_none()),
        // What had the key before has ended unseen.
        Applied::Resync(resync) => assert_eq!(resync.state, State::Close),
        _ => panic!("nothing to complete, and nothing stuck"),
    });
    found
}

fn written(format: &mut dyn Format, transition: &Transition) -> String {
    let mut out = Vec::new();
    format.transition(1, transition, &mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// A program chooses its own name; no format may fall for it.
#[test]
fn nasty_names() {
    for comm in [
        &b"say \"hi\""[..],
        b"two\nlines",
        b"a,b",
        b"tab\tcr\r",
        b"esc\x1b[2J",
        b"\xff\xfe\x80bad",
        b"back\\slash",
        b"\xc2\x9b31m",
    ] {
        let transition = connect_by(comm);
        let readable = String::from_utf8_lossy(comm);
        let json = written(&mut Json::default(), &transition);
        assert_eq!(json.matches('\n').count(), 1, "{json}");
        let record: Value = serde_json::from_str(&json).expect("JSON");
        schema::check(&record);
        assert_eq!(record["owner"]["comm"], *readable);

        let csv = written(&mut Csv, &transition);
        assert_eq!(csv.matches('\n').count(), 1, "{csv}");
        assert!(!csv.trim_end().chars().any(char::is_control), "{csv:?}");
        assert_eq!(fields(csv.trim_end()), 11, "{csv}");

        let table = written(&mut TableFormat::new(false), &transition);
        assert_eq!(table.matches('\n').count(), 1);
        assert!(!table.trim_end().chars().any(char::is_control), "{table:?}");
    }
}

/// Number of fields of a CSV line (RFC 4180).
fn fields(line: &str) -> usize {
    let mut quoted = false;
    1 + line
        .chars()
        .filter(|&c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        })
        .count()
}

#[test]
fn csv_has_the_columns_of_tcpstates() {
    let mut out = Vec::new();
    Csv.header(&mut out);
    let header = String::from_utf8(out).expect("text");
    assert_eq!(header, "SKADDR,C-PID,C-COMM,IP,LADDR,LPORT,RADDR,RPORT,OLDSTATE,NEWSTATE,MS\n");
    let line = written(&mut Csv, &connect_by(b"curl"));
    assert_eq!(line, "0000010000000001,7,curl,4,127.0.0.1,1000,127.0.0.1,2000,CLOSE,SYN_SENT,\n");
}

#[test]
fn colours_only_when_asked_for() {
    let transition = connect_by(b"curl");
    assert!(written(&mut TableFormat::new(true), &transition).contains("\x1b["));
    assert!(!written(&mut TableFormat::new(false), &transition).contains('\x1b'));
}

#[test]
fn unknown_states_keep_their_number() {
    let mut transition = connect_by(b"x");
    transition.to = State::Unknown(13);
    transition.errno = 4095;
    let record: Value = serde_json::from_str(&written(&mut Json::default(), &transition)).expect("JSON");
    schema::check(&record);
    assert_eq!((&record["to"], &record["to_number"]), (&"UNKNOWN".into(), &13.into()));
    assert_eq!(record["errno"], "E4095");
    assert!(written(&mut TableFormat::new(false), &transition).contains("UNKNOWN(13)"));
}

#[test]
fn what_tcp_does_not_do_is_marked() {
    let mut table = Table::new(1, 0, Sight::default());
    let mut names = Names::default();
    let mut line = |event: &Event| {
        let it = transition(&mut table, event, &mut names).expect("a transition");
        let text = written(&mut Json::default(), &it);
        let record: Value = serde_json::from_str(&text).expect("JSON");
        schema::check(&record);
        record["illegal"].clone()
    };
    assert_eq!(line(&event(10, 1, State::Close, State::SynSent)), Value::Null);
    assert_eq!(line(&event(20, 1, State::SynSent, State::TimeWait)), true);
    assert_eq!(line(&event(30, 1, State::TimeWait, State::Close)), Value::Null);
    assert_eq!(table.illegal(), 1);
}

#[test]
fn losses_are_records() {
    let lost = Notice::Lost(Lost { time_ns: 1_500_000_000, count: 12, place: LostPlace::Ring });
    let mut out = Vec::new();
    Json::default().notice(3, &lost, &mut out);
    let record: Value = serde_json::from_slice(&out).expect("JSON");
    schema::check(&record);
    assert_eq!((&record["count"], &record["place"], &record["seq"]), (&12.into(), &"ring".into(), &3.into()));
    assert_eq!(record["time"], "1970-01-01T00:00:01.500000000Z");
    let mut out = Vec::new();
    TableFormat::new(false).notice(3, &lost, &mut out);
    assert!(String::from_utf8(out).expect("text").contains("LOST 12 transitions (ring)"));
}

/// What the companion program writes twice is reported once; a socket that does the same again is not a copy.
#[test]
fn second_copies() {
    let mut table = Table::new(1, 0, Sight::default());
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
    let mut table = Table::new(1, 0, Sight::default());
    let mut names = Names::default();
    let mut conn = |event: &Event| {
        let transition = transition(&mut table, event, &mut names).expect("a transition");
        (transition.conn, transition.in_state)
    };
    let (first, _) = conn(&event(10, 1, State::Close, State::SynSent));
    let (same, in_state) = conn(&event(30, 1, State::SynSent, State::Established));
    assert_eq!((same, in_state.map(|it| it.ns)), (first, Some(20)));
    // Its death was lost.
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

/// Said once past the threshold, again at double the distance, and once when it is over; others never.
#[test]
fn what_stays_too_long_is_said() {
    const S: u64 = 1_000_000_000;
    let mut table = Table::new(1, 0, Sight::default());
    let mut names = Names::default();
    table.set_thresholds(Thresholds::default());
    let mut said = Vec::new();
    let at = |now: u64, table: &mut Table, names: &mut Names, event: Option<Event>, said: &mut Vec<_>| {
        let mut out = |applied: Applied| match applied {
            Applied::Stuck(it) => {
                said.push((now / S, it.conn.0 & 0xff, format!("{} {}", it.state, it.times)))
            }
            Applied::Resolved(it) => {
                said.push((
                    now / S,
                    it.conn.0 & 0xff,
                    format!("{} -> {} after {}", it.state, it.to, it.age.ns / S),
                ));
            }
            _ => {}
        };
        if let Some(event) = event {
            table.apply(&event, names, &mut out);
        }
        table.tick(now, names, &mut out);
    };
    let to = |second: u64, sk: u64, from: State, to: State| Some(event(second * S, sk, from, to));
    for sk in 1..=3 {
        at(S, &mut table, &mut names, to(1, sk, State::Close, State::SynSent), &mut said);
        at(S, &mut table, &mut names, to(1, sk, State::SynSent, State::Established), &mut said);
    }
    at(10 * S, &mut table, &mut names, to(10, 2, State::Established, State::CloseWait), &mut said);
    at(20 * S, &mut table, &mut names, to(20, 3, State::Established, State::CloseWait), &mut said);
    for second in 21..300 {
        // The third moves on in time.
        let moves = (second == 50).then(|| to(50, 3, State::CloseWait, State::LastAck)).flatten();
        at(second * S, &mut table, &mut names, moves, &mut said);
        let ends = (second == 51).then(|| to(51, 3, State::LastAck, State::Close)).flatten();
        at(second * S, &mut table, &mut names, ends, &mut said);
    }
    at(300 * S, &mut table, &mut names, to(300, 2, State::CloseWait, State::LastAck), &mut said);
    let second = |at: u64, text: &str| (at, 2, text.to_owned());
    assert_eq!(
        said,
        [
            second(71, "CLOSE_WAIT 1"),
            second(131, "CLOSE_WAIT 2"),
            second(251, "CLOSE_WAIT 3"),
            second(300, "CLOSE_WAIT -> LAST_ACK after 290"),
        ]
    );
}

/// What was stuck long before the tracer has one record at first, and the next ones at double the distance from then on.
#[test]
fn what_was_stuck_before_is_said_once() {
    const S: u64 = 1_000_000_000;
    let mut table = Table::new(1, 0, Sight::default());
    let mut names = Names::default();
    let begin = 10_000 * S;
    for sk in 1..=2 {
        let mut old = event(begin, sk, State::CloseWait, State::CloseWait);
        old.tuple.remote_port += sk as u16;
        old.kind = EventKind::Socket { state: State::CloseWait, mini: false };
        table.apply(&old, &mut names, &mut |_| {});
    }
    table.set_thresholds(Thresholds::default());
    // The first has been in its state for over two hours, of the second nothing is known.
    let mut tuple = event(0, 1, State::CloseWait, State::CloseWait).tuple;
    tuple.remote_port += 1;
    let socket = SocketInfo {
        netns: 1,
        transport: Transport::Tcp,
        state: State::CloseWait,
        mini: false,
        tuple,
        interface: None,
        uid: None,
        inode: 5,
        cgroup: None,
        is_partial: false,
        receive_queue: 1,
        send_queue: 0,
        timer: None,
        retransmits: 0,
        times: None,
        request: None,
    };
    table.backdate(begin, std::iter::once((&socket, 8_000 * S)));
    let mut said = Vec::new();
    for second in 0..1_000 {
        let now = begin + second * S;
        table.tick(now, &mut names, &mut |applied: Applied| match applied {
            Applied::Stuck(it) => said.push((second, it.tuple.remote_port, it.times, it.age.ns / S)),
            other => panic!("{other:?}"),
        });
    }
    let of = |port: u16| said.iter().filter(move |it| it.1 == port).map(|it| (it.0, it.2, it.3));
    assert_eq!(
        of(2001).collect::<Vec<_>>(),
        [(0, 1, 8_000), (61, 2, 8_061), (181, 3, 8_181), (421, 4, 8_421), (901, 5, 8_901)]
    );
    assert_eq!(of(2002).map(|it| it.0).collect::<Vec<_>>(), [61, 121, 241, 481, 961]);
}

/// What a reader of the stream believes of each connection; `broken` counts what is said of one after its end.
fn say(applied: Applied, last: &mut HashMap<u64, &str>, broken: &mut u32) {
    let (conn, state) = match applied {
        Applied::Transition(it) => (it.conn, it.to),
        Applied::Resync(it) => (it.conn, it.state),
        Applied::Stuck(it) => {
            *broken += u32::from(last.get(&it.conn.0) != Some(&it.state.name()));
            return;
        }
        Applied::Completed(..) | Applied::Resolved(_) => return,
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
        let good = with_task(v4(head(kind::TRANSITION, flag::TASK, old, new, AF_INET)));
        prop_assert!(decode(&good[..cut]).is_err());
    }

    /// Whatever order the kernel's words come in: no panic, no duration from nowhere, no socket kept after its end.
    #[test]
    fn any_history_is_survived(
        history in proptest::collection::vec((0_u64..6, states(), states(), any::<bool>()), 0..200)
    ) {
        let mut table = Table::new(1, 0, Sight::default());
        let mut names = Names::default();
        let mut last: HashMap<u64, (&str, u64)> = HashMap::new();
        for (at, (sk, from, to, maybe)) in history.into_iter().enumerate() {
            let now = 100 * (at as u64 + 1);
            let mut event = event(now, sk, from, to);
            if let EventKind::Transition { maybe_copy, .. } = &mut event.kind {
                *maybe_copy = maybe;
            }
            if let Some(it) = transition(&mut table, &event, &mut names) {
                if let Some(in_state) = it.in_state {
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
        let sight = Sight { minis: true, resets: true, ..Sight::default() };
        let mut table = Table::new(1, 0, sight);
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
            let mut out = |applied: Applied| say(applied, &mut last, &mut broken);
            if kind == 9 {
                // A look at the kernel's table, which shows this socket or none.
                let sockets = if flag { std::slice::from_ref(&event) } else { &[] };
                let shown = Shown { began_ns: now, namespaces: &BTreeSet::from([1]), sockets, held: None };
                let doubts = table.doubts(&shown);
                table.settle(&doubts, &shown, &mut names, &mut out);
            } else {
                table.apply(&event, &mut names, &mut out);
            }
            table.tick(now, &mut names, &mut out);
        }
        table.tick(now + 1_000_000_000, &mut names, &mut |it: Applied| say(it, &mut last, &mut broken));
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
