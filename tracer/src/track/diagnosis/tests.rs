//! Each reason is tested with what makes it true, and with something similar that does not.

mod commands;

use std::sync::Arc;

use super::{diagnose, reason};
use crate::model::{
    Elsewhere, Holder, InState, Listener, Message, Peer, Process, Reason, SocketInfo, SocketReport, State,
    TcpTimes, Timer, TimerKind, Traffic, Transport, Tuple, Via,
};

const SECOND_NS: u64 = 1_000_000_000;

fn process(pid: u32, exe: &str) -> Arc<Process> {
    let parent_exe = Some("/bin/sh".into());
    Arc::new(Process {
        pid,
        comm: exe.into(),
        exe: Some(exe.into()),
        parent: 1,
        parent_exe,
        ..Process::default()
    })
}

fn holder(pid: u32, exe: &str) -> Holder {
    let via = Via::Descriptor(7);
    Holder { process: process(pid, exe), via, tid: None, close_on_exec: Some(false), watch: None }
}

fn listener(queued: u32, backlog: u32, pids: &[u32]) -> Listener {
    Listener { queued, backlog, holders: pids.iter().map(|pid| process(*pid, "srv")).collect() }
}

/// In use for 100 s, with a file and nothing in its queues.
fn socket(state: State) -> SocketReport {
    let old = 100 * SECOND_NS;
    let times = TcpTimes {
        since_ack_ns: old,
        since_data_sent_ns: old,
        since_data_received_ns: old,
        data_segments_sent: 3,
        ..TcpTimes::default()
    };
    SocketReport::new(SocketInfo {
        inode: 9,
        times: Some(times),
        ..SocketInfo::bare(1, state, Tuple { local_port: 80, remote_port: 5, ..Tuple::example() })
    })
}

/// The same in CLOSE_WAIT, open in the listener's process, then changed.
fn close_wait(change: impl Fn(&mut SocketReport)) -> SocketReport {
    let mut found = socket(State::CloseWait);
    found.holders = vec![holder(10, "srv")];
    found.listeners = vec![listener(0, 16, &[10])];
    change(&mut found);
    found
}

fn sent(found: &mut SocketReport, since_ns: u64, segments: u32) {
    if let Some(times) = &mut found.socket.times {
        (times.since_data_sent_ns, times.data_segments_sent) = (since_ns, segments);
    }
}

fn timer(found: &mut SocketReport, kind: TimerKind, retransmits: u8) {
    found.socket.timer = Some(Timer { kind, left_ns: SECOND_NS });
    found.socket.retransmits = retransmits;
}

fn answered(found: &mut SocketReport, window: Option<u32>, since_ns: u64) {
    if let Some(times) = &mut found.socket.times {
        (times.peer_window, times.since_ack_ns, times.segment_bytes) = (window, since_ns, 1448);
    }
}

/// Sent again a second ago, and answered at once: there is no room.
fn refused(found: &mut SocketReport) {
    found.socket.send_queue = 5;
    sent(found, SECOND_NS, 9);
    timer(found, TimerKind::Retransmit, 3);
    answered(found, Some(0), SECOND_NS);
}

/// Each thing that may be true, and the reason that it gives.
fn check(table: impl IntoIterator<Item = (&'static str, SocketReport, Reason)>) {
    for (what, found, wanted) in table {
        assert_eq!(reason(&found), wanted, "{what}");
        let diagnosis = diagnose(&found, None);
        assert!(!diagnosis.why.is_empty() && !diagnosis.advice.is_empty(), "{what}");
        assert!(!diagnosis.advice.contains("leaks"), "nobody is accused: {}", diagnosis.advice);
    }
}

#[test]
fn the_receive_queue() {
    check([
        ("all read", close_wait(|_| {}), Reason::NotClosed),
        ("a FIN", close_wait(|found| found.socket.receive_queue = 1), Reason::EofUnread),
        ("a byte and a FIN", close_wait(|found| found.socket.receive_queue = 2), Reason::UnreadData),
        ("no file", close_wait(|found| found.socket.inode = 0), Reason::NeverAccepted),
    ]);
    let proxy = close_wait(|found| found.half_closed = 2);
    assert!(diagnose(&proxy, None).why.contains("proxy"));
    assert!(!diagnose(&close_wait(|_| {}), None).why.contains("proxy"));
}

#[test]
fn data_that_the_host_sends() {
    let moment = SECOND_NS / 2;
    check([
        ("sent a moment ago", close_wait(|found| sent(found, moment, 1)), Reason::HalfClosedSending),
        (
            "the same, its end not read",
            close_wait(|found| {
                sent(found, moment, 1);
                found.socket.receive_queue = 1;
            }),
            Reason::HalfClosedSending,
        ),
        (
            "a request that was answered in the same tick",
            close_wait(|found| {
                sent(found, moment, 1);
                if let Some(times) = &mut found.socket.times {
                    times.since_data_received_ns = moment;
                }
            }),
            Reason::NotClosed,
        ),
        (
            "a request that was answered since",
            close_wait(|found| {
                sent(found, moment, 1);
                if let Some(times) = &mut found.socket.times {
                    times.since_data_received_ns = moment - 1;
                }
            }),
            Reason::NotClosed,
        ),
        ("a young connection that never sent", close_wait(|found| sent(found, moment, 0)), Reason::NotClosed),
        ("sent a second ago", close_wait(|found| sent(found, SECOND_NS, 1)), Reason::NotClosed),
    ]);
}

#[test]
fn data_before_and_after_the_fin() {
    let exact = |seconds: u64| Some(InState { ns: seconds * SECOND_NS, at_least: false });
    check([
        (
            "sent after the FIN, which a trace saw",
            close_wait(|found| {
                sent(found, 5 * SECOND_NS, 1);
                found.age = exact(6);
            }),
            Reason::HalfClosedSending,
        ),
        (
            "sent in the tick of the FIN, which a trace saw",
            close_wait(|found| {
                sent(found, 1_756_000_000, 1);
                found.age = Some(InState { ns: 1_756_187_173, at_least: false });
            }),
            Reason::NotClosed,
        ),
        (
            "sent two ticks after the FIN",
            close_wait(|found| {
                sent(found, 1_756_000_000, 1);
                found.age = Some(InState { ns: 1_776_187_173, at_least: false });
            }),
            Reason::HalfClosedSending,
        ),
        (
            "sent after the FIN, but long ago",
            close_wait(|found| {
                sent(found, 10 * SECOND_NS, 1);
                found.age = exact(60);
            }),
            Reason::NotClosed,
        ),
        (
            "sent before the FIN",
            close_wait(|found| {
                sent(found, 2 * SECOND_NS, 1);
                found.age = exact(1);
            }),
            Reason::NotClosed,
        ),
    ]);
}

#[test]
fn data_that_the_peer_has_not_acknowledged() {
    let moment = SECOND_NS / 2;
    check([
        ("on its way", close_wait(|found| found.socket.send_queue = 5), Reason::HalfClosedSending),
        (
            "sent again",
            close_wait(|found| {
                found.socket.send_queue = 5;
                sent(found, moment, 9);
                timer(found, TimerKind::Retransmit, 3);
            }),
            Reason::PeerNotAnswering,
        ),
        (
            "a closed window",
            close_wait(|found| {
                found.socket.send_queue = 5;
                timer(found, TimerKind::Probe, 0);
            }),
            Reason::PeerTakesNothing,
        ),
        (
            "a closed window, and probes without an answer",
            close_wait(|found| {
                found.socket.send_queue = 5;
                timer(found, TimerKind::Probe, 2);
            }),
            Reason::PeerNotAnswering,
        ),
        (
            "the timer of a closed window, and the window is open",
            close_wait(|found| {
                found.socket.send_queue = 5;
                sent(found, moment, 9);
                timer(found, TimerKind::Probe, 2);
                answered(found, Some(5), SECOND_NS);
            }),
            Reason::CannotSend,
        ),
        (
            "a window too small for what is to be sent",
            close_wait(|found| {
                found.socket.send_queue = 5;
                timer(found, TimerKind::Probe, 0);
                answered(found, Some(4), SECOND_NS);
            }),
            Reason::PeerTakesNothing,
        ),
        ("sent again, and answered by a closed window", close_wait(refused), Reason::PeerTakesNothing),
        (
            "the same, answered for the last time a second before",
            close_wait(|found| {
                refused(found);
                answered(found, Some(0), 2 * SECOND_NS);
            }),
            Reason::PeerNotAnswering,
        ),
        (
            "sent again, and the peer's window is open",
            close_wait(|found| {
                refused(found);
                answered(found, Some(1), SECOND_NS);
            }),
            Reason::PeerNotAnswering,
        ),
        (
            "a slow reader",
            close_wait(|found| {
                found.socket.send_queue = 5;
                sent(found, moment, 9);
                timer(found, TimerKind::Probe, 0);
            }),
            Reason::HalfClosedSending,
        ),
    ]);
}

#[test]
fn a_peer_that_does_not_take_or_not_answer() {
    let in_state = |state: State, change: fn(&mut SocketReport)| {
        let mut found = socket(state);
        change(&mut found);
        found
    };
    for state in [State::FinWait1, State::LastAck, State::Closing] {
        check([
            ("nothing said", in_state(state, |_| {}), Reason::Unknown),
            ("probed", in_state(state, |found| timer(found, TimerKind::Probe, 1)), Reason::PeerTakesNothing),
            (
                "probed in vain",
                in_state(state, |found| timer(found, TimerKind::Probe, 2)),
                Reason::PeerNotAnswering,
            ),
            (
                "not sent",
                in_state(state, |found| {
                    found.socket.send_queue = 1;
                    timer(found, TimerKind::Probe, 0);
                    answered(found, Some(1), SECOND_NS);
                }),
                Reason::CannotSend,
            ),
            ("refused", in_state(state, refused), Reason::PeerTakesNothing),
            ("sent once", in_state(state, |found| timer(found, TimerKind::Retransmit, 0)), Reason::Unknown),
            (
                "sent again",
                in_state(state, |found| timer(found, TimerKind::Retransmit, 1)),
                Reason::PeerNotAnswering,
            ),
        ]);
    }
    check([("a SYN, before there is a window", in_state(State::SynSent, refused), Reason::PeerNotAnswering)]);
}

#[test]
fn who_may_have_inherited_the_connection_of_a_server() {
    let child = |exe: &'static str| move |found: &mut SocketReport| found.holders = vec![holder(11, exe)];
    check([
        ("another program", close_wait(child("sleep")), Reason::HeldByChild),
        ("a worker", close_wait(child("srv")), Reason::NotClosed),
        ("both", close_wait(|found| found.holders.push(holder(11, "sleep"))), Reason::NotClosed),
        (
            "given as standard input",
            close_wait(|found| {
                found.holders = vec![Holder { via: Via::Descriptor(0), ..holder(11, "sleep") }];
            }),
            Reason::NotClosed,
        ),
        (
            "closed at an exec",
            close_wait(|found| {
                found.holders = vec![Holder { close_on_exec: Some(true), ..holder(11, "sleep") }];
            }),
            Reason::NotClosed,
        ),
        (
            "socket activation: a service manager listens too",
            {
                let mut found = close_wait(|found| {
                    found.holders = vec![holder(11, "web")];
                    let holders = [&found.listeners[0].holders[..], &[process(11, "web")]].concat();
                    found.listeners[0].holders = holders.into();
                });
                found.learn_opener(process(10, "srv"));
                found
            },
            Reason::NotClosed,
        ),
        (
            "handed to another unit",
            close_wait(|found| {
                let unit = |process: &Process, unit: &str| {
                    Arc::new(Process { unit: Some(unit.into()), ..process.clone() })
                };
                found.holders = vec![holder(11, "web")];
                found.holders[0].process = unit(&found.holders[0].process, "web@1.service");
                let others = &found.listeners[0].holders;
                let first = unit(&others[0], "init.scope");
                found.listeners[0].holders =
                    std::iter::once(first).chain(others[1..].iter().cloned()).collect();
            }),
            Reason::NotClosed,
        ),
        (
            "one of two listeners runs it",
            close_wait(|found| {
                found.holders = vec![holder(11, "sleep")];
                found
                    .listeners
                    .push(Listener { holders: [process(12, "sleep")].into(), ..listener(0, 1, &[]) });
            }),
            Reason::NotClosed,
        ),
    ]);
}

#[test]
fn who_may_have_inherited_the_connection_of_a_client() {
    let client = |age_ms: u64, exe: &str| {
        close_wait(|found| {
            let process = Process { age_ns: Some(age_ms * 1_000_000), ..(*process(11, exe)).clone() };
            found.holders = vec![Holder { process: Arc::new(process), ..holder(11, exe) }];
            found.listeners.clear();
        })
    };
    check([
        ("a client's child", client(99_000, "sleep"), Reason::HeldByChild),
        ("as old as the connection", client(100_000, "sleep"), Reason::NotClosed),
        ("of its parent's program", client(99_000, "/bin/sh"), Reason::NotClosed),
    ]);
    let mut traced = client(100_000, "sleep");
    assert!(
        diagnose(
            &SocketReport {
                socket: SocketInfo { receive_queue: 1, ..traced.socket.clone() },
                ..traced.clone()
            },
            None
        )
        .advice
        .contains("inherited"),
        "it cannot be told"
    );
    traced.learn_opener(process(4, "python"));
    assert_eq!(reason(&traced), Reason::HeldByChild, "a trace saw who connected");
    traced.learn_opener(process(11, "sleep"));
    assert_eq!(reason(&traced), Reason::NotClosed, "it did so itself, and by another program before");
}

#[test]
fn no_holder() {
    let nobody = |hidden: bool, elsewhere: Option<Elsewhere>| {
        close_wait(|found| {
            found.holders.clear();
            found.hidden_holders = hidden;
            found.elsewhere = elsewhere.clone().map(Arc::new);
        })
    };
    let message = Message { process: process(3, "worker"), fd: 4, count: 1 };
    let sent = Elsewhere { messages: vec![message], rings: Vec::new() };
    let rings = Elsewhere { rings: vec![process(5, "uring")], ..sent.clone() };
    check([
        ("in a queue", nobody(false, Some(sent.clone())), Reason::InFlight),
        ("or with a ring", nobody(false, Some(rings)), Reason::Unknown),
        ("in no queue", nobody(false, Some(Elsewhere::default())), Reason::Unknown),
        ("not looked for", nobody(false, None), Reason::Unknown),
        ("not all seen", nobody(true, Some(sent)), Reason::HolderHidden),
    ]);
    let of_kernel = |hidden: bool, queue: u32| {
        let mut found = nobody(hidden, None);
        (found.of_kernel, found.socket.receive_queue) = (true, queue);
        found
    };
    let mut sending = of_kernel(false, 0);
    sending.socket.send_queue = 9;
    check([
        ("no file", of_kernel(false, 0), Reason::HeldByKernel),
        ("which is certain also where others are hidden", of_kernel(true, 5), Reason::HeldByKernel),
        ("and it sends", sending.clone(), Reason::HalfClosedSending),
    ]);
    assert!(diagnose(&sending, None).advice.contains("the kernel has data to send"));
    for (queue, text) in [(0, "does not close"), (1, "not read the end of file"), (5, "4 bytes unread")] {
        assert!(diagnose(&of_kernel(false, queue), None).why.contains(text), "{queue}");
    }
    let mut shut = socket(State::FinWait2);
    assert!(diagnose(&shut, None).advice.contains("the application closes the socket"));
    shut.of_kernel = true;
    assert!(diagnose(&shut, None).advice.contains("the kernel closes the socket"));
    assert!(diagnose(&shut, None).advice.contains("tcp_fin_timeout"));
    shut.socket.transport = Transport::Mptcp;
    let advice = diagnose(&shut, None).advice;
    assert!(advice.contains("close_timeout") && !advice.contains("tcp_fin_timeout"), "{advice}");
}

#[test]
fn handshakes() {
    let request = |listeners: &[Listener], peer: Option<(State, u32, u64)>, retransmits: u8| {
        let mut found = socket(State::NewSynRecv);
        found.socket.inode = 0;
        found.listeners = listeners.to_vec();
        found.socket.retransmits = retransmits;
        found.peer = peer.map(|(state, unacknowledged, seconds)| Peer {
            state,
            unacknowledged,
            since_data_sent_ns: Some(seconds * SECOND_NS),
        });
        found
    };
    let (full, free) = (listener(3, 2, &[10]), listener(2, 2, &[11]));
    let silent = Some((State::Established, 0, 5));
    check([
        ("full", request(std::slice::from_ref(&full), None, 3), Reason::AcceptQueueFull),
        ("at its limit", request(std::slice::from_ref(&free), None, 3), Reason::HandshakeUnfinished),
        ("one of two is full", request(&[full.clone(), free.clone()], None, 3), Reason::HandshakeUnfinished),
        ("deferred", request(std::slice::from_ref(&free), silent, 0), Reason::DeferredAccept),
        (
            "full, and the client waits",
            request(std::slice::from_ref(&full), silent, 1),
            Reason::AcceptQueueFull,
        ),
        (
            "full, and deferred: for lack of room the SYN-ACK would be sent again",
            request(std::slice::from_ref(&full), silent, 0),
            Reason::DeferredAccept,
        ),
        (
            "full, and the client has not heard the SYN-ACK",
            request(std::slice::from_ref(&full), Some((State::SynSent, 1, 5)), 3),
            Reason::HandshakeUnfinished,
        ),
        ("sent again", request(std::slice::from_ref(&free), silent, 1), Reason::HandshakeUnfinished),
        (
            "it has spoken",
            request(std::slice::from_ref(&free), Some((State::Established, 1, 5)), 0),
            Reason::HandshakeUnfinished,
        ),
        (
            "too early",
            request(std::slice::from_ref(&free), Some((State::Established, 0, 1)), 0),
            Reason::HandshakeUnfinished,
        ),
        (
            "deaf",
            request(std::slice::from_ref(&free), Some((State::SynSent, 1, 5)), 0),
            Reason::HandshakeUnfinished,
        ),
        ("not on this host", request(std::slice::from_ref(&free), None, 0), Reason::HandshakeUnfinished),
    ]);
    let call = |listeners: &[Listener], retransmits: u8| {
        let mut found = socket(State::SynSent);
        found.listeners = listeners.to_vec();
        timer(&mut found, TimerKind::Retransmit, retransmits);
        found
    };
    check([
        ("to a full listener", call(std::slice::from_ref(&full), 2), Reason::AcceptQueueFull),
        ("to one with room", call(std::slice::from_ref(&free), 2), Reason::PeerNotAnswering),
        ("to another host", call(&[], 2), Reason::PeerNotAnswering),
        ("just sent", call(&[], 0), Reason::Unknown),
    ]);
    let answered = |mut found: SocketReport, segments_received| {
        found.socket.traffic = Some(Traffic { segments_received, ..Traffic::default() });
        found
    };
    check([
        ("no segment has come", answered(call(&[], 2), 0), Reason::PeerNotAnswering),
        ("challenge ACKs", answered(call(&[], 2), 3), Reason::AnsweredWithoutSynAck),
        ("the first one", answered(call(&[], 0), 1), Reason::AnsweredWithoutSynAck),
        ("a full listener", answered(call(std::slice::from_ref(&full), 2), 3), Reason::AcceptQueueFull),
    ]);
    let why = diagnose(&answered(call(&[], 2), 3), None).why;
    assert!(why.contains("3 segments") && why.contains("challenge ACKs"), "{why}");
}

#[test]
fn the_listener_of_several() {
    let mut found = socket(State::CloseWait);
    found.socket.inode = 0;
    found.listeners = vec![listener(1, 8, &[10]), listener(1, 8, &[11])];
    assert_eq!(found.creator(), None, "either");
    let advice = diagnose(&found, None).advice;
    assert!(advice.contains("srv (10) or srv (11)"), "{advice}");
    found.learn_opener(process(11, "srv"));
    assert_eq!(found.creator().map(|process| process.pid), Some(11));
    found.listeners = vec![listener(1, 8, &[10, 11])];
    assert_eq!(found.creator().map(|process| process.pid), Some(11), "a trace knows who called listen()");
    found.opener = None;
    assert_eq!(found.creator(), None, "two processes have the one listener");
}
