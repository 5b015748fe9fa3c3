//! Records of every kind, with every key that a record can have.

use std::{rc::Rc, sync::Arc};

use sockstate::model::{
    Address, Aggregate, Answered, Cause, Cgroup, ConnId, Connection, Container, Diagnosis, Dwell, Elsewhere,
    Frame, Holder, InState, Lifespan, Listener, Lost, LostPlace, Message, MissingStack, MptcpPart, OpenedBy,
    Owner, OwnerSource, PathStep, Pod, PodWorkload, Process, Reason, Record, Reset, Resolved, Resync, Role,
    Served, Snapshot, SocketInfo, SocketReport, Stack, Start, State, Stop, Stuck, Subject, Task, Timer,
    TimerKind, Traffic, Transferred, Transition, Transport, Tuple, Unnamed, Via, Watch, bounds::Cut,
};

/// 2026-11-26T12:00:00.123456789Z
const TIME_NS: i64 = 1_795_694_400_123_456_789;

fn v4() -> Tuple {
    Tuple {
        local: Address::from_v4([10, 0, 0, 7]),
        remote: Address::from_v4([192, 0, 2, 1]),
        local_port: 41000,
        remote_port: 5432,
        v6_socket: false,
        interface: 0,
    }
}

fn v6() -> Tuple {
    Tuple {
        local: Address::from_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        remote: Address::from_v6([0; 16]),
        local_port: 8080,
        remote_port: 0,
        v6_socket: true,
        interface: 3,
    }
}

fn container() -> Option<Container> {
    let (name, image) = (Some("post\ngres".into()), Some("registry:5000/db/postgres:17".into()));
    Some(Container { name, image, ..Container::new("4f5e".into(), Some("containerd")) })
}

fn pod() -> Option<Pod> {
    let (name, namespace) = (Some("db-0".into()), Some("shop".into()));
    let workload = Some(PodWorkload { kind: "StatefulSet".into(), name: "db".into() });
    let labels = [("app.kubernetes.io/name", "db"), ("tier", "\"back\"")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Some(Pod { name, namespace, workload, labels, ..Pod::new("pod-1".into()) })
}

fn known() -> Rc<Subject> {
    let owner = Owner {
        task: Rc::new(Task { pid: 4242, exec_id: 1, start_ns: 1, comm: *b"postgres: \"a\"\xff\0\0" }),
        comm: "postgres: \"a\"\u{fffd}".into(),
        exe: Some("/usr/bin/post\u{1}gres".into()),
        uid: Some(70),
        source: OwnerSource::Connect,
        cmdline: Some("postgres -D /var/lib\nx".into()),
    };
    Rc::new(Subject {
        id: 7,
        owner: Some(owner),
        netns: Some(4_026_531_840),
        cgroup: Some(Cgroup { id: 77, path: Some("/kubepods/pod1/4f5e".into()) }),
        container: container(),
        pod: pod(),
        unit: Some("db.service".into()),
    })
}

fn plain() -> Rc<Subject> {
    let owner = Owner {
        task: Rc::new(Task { pid: 7, exec_id: 1, start_ns: 1, comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0" }),
        comm: "curl".into(),
        exe: None,
        uid: None,
        source: OwnerSource::Scan,
        cmdline: None,
    };
    let cgroup = Some(Cgroup { id: 1, path: None });
    let container = Some(Container::new("x".into(), None));
    let (owner, netns, pod, unit) = (Some(owner), Some(1), None, None);
    Rc::new(Subject { id: 8, owner, netns, cgroup, container, pod, unit })
}

fn nothing() -> Rc<Subject> {
    let (owner, netns, cgroup, container, pod, unit) = (None, None, None, None, None, None);
    Rc::new(Subject { id: 9, owner, netns, cgroup, container, pod, unit })
}

fn long() -> Rc<Subject> {
    let owner = Owner {
        task: Rc::new(Task { pid: 9, exec_id: 1, start_ns: 1, comm: *b"long\0\0\0\0\0\0\0\0\0\0\0\0" }),
        comm: "long".into(),
        exe: Some("/x".repeat(600)),
        uid: Some(0),
        source: OwnerSource::Inherited,
        cmdline: None,
    };
    let container = Some(Container {
        name: Some("c".repeat(300)),
        image: Some("i".repeat(600)),
        ..Container::new("x".into(), None)
    });
    let pod =
        Some(Pod { name: Some("p".repeat(300)), namespace: Some("n".repeat(300)), ..Pod::new("uid".into()) });
    let (netns, cgroup, unit) = (Some(1), None, Some("u".repeat(300)));
    Rc::new(Subject { id: 10, owner: Some(owner), netns, cgroup, container, pod, unit })
}

fn conn(role: Option<Role>, tuple: Tuple, subject: Rc<Subject>, mini: bool) -> Connection {
    Connection { id: ConnId(0xdd32_7700_0000_0001), role, tuple, nat: None, peer: None, subject, mini }
}

fn server() -> Connection {
    conn(Some(Role::Server), v4(), plain(), false)
}

fn client() -> Connection {
    conn(Some(Role::Client), v4(), known(), false)
}

fn transition(conn: Connection, from: State, to: State) -> Transition {
    let (in_state, exact, illegal, cause, reset_why, errno) = (None, true, false, None, None, 0);
    Transition {
        time_ns: TIME_NS,
        conn,
        from,
        to,
        in_state,
        exact,
        illegal,
        cause,
        reset_why,
        errno,
        traffic: None,
    }
}

fn in_state(ns: u64, at_least: bool) -> Option<InState> {
    Some(InState { ns, at_least })
}

fn transitions() -> Vec<Transition> {
    let listener = conn(Some(Role::Listener), v6(), nothing(), false);
    let request = conn(Some(Role::Server), v4(), plain(), true);
    let unknown = conn(None, v6(), long(), false);
    vec![
        transition(client(), State::Close, State::SynSent),
        Transition {
            in_state: in_state(73_038, false),
            ..transition(client(), State::SynSent, State::Established)
        },
        Transition {
            in_state: in_state(u64::MAX, true),
            cause: Some(Cause::ResetSent),
            reset_why: Some("unread_data"),
            errno: 104,
            traffic: Some(Rc::new(traffic())),
            ..transition(server(), State::Established, State::Close)
        },
        Transition { exact: false, ..transition(request, State::Listen, State::NewSynRecv) },
        Transition {
            illegal: true,
            errno: 4095,
            ..transition(unknown, State::Unknown(13), State::Unknown(200))
        },
        Transition { cause: Some(Cause::Fin), ..transition(listener, State::Close, State::Listen) },
    ]
}

fn process(pid: u32, comm: &str) -> Arc<Process> {
    Arc::new(Process { pid, comm: comm.into(), exe: Some(format!("/bin/{comm}")), ..Process::default() })
}

fn holders() -> Vec<Holder> {
    let served = Served { netns: 99, container: container(), pod: Some(Pod::new("p".into())), unit: None };
    let rich = Process {
        pid: 11,
        comm: "rich".into(),
        exe: None,
        cgroup: Some("/system.slice".into()),
        container: container(),
        pod: pod(),
        unit: Some("rich.service".into()),
        serves: Some(Box::new(served)),
        ..Process::default()
    };
    let of = |process, via, watch| Holder { process, via, tid: None, close_on_exec: None, watch };
    let epoll = Watch::Epoll(vec!["EPOLLIN", "EPOLLRDHUP"]);
    vec![
        of(Arc::new(rich), Via::Descriptor(5), Some(epoll)),
        Holder { tid: Some(12), ..of(process(11, "ring"), Via::IoUring(6), Some(Watch::NoEpoll)) },
        of(process(13, "map"), Via::Mapping, None),
    ]
}

/// All that a look can find out of a socket.
fn examined() -> SocketReport {
    let listening: Arc<[_]> = Arc::from(vec![process(20, "accepts")]);
    let socket = SocketInfo {
        traffic: Some(Traffic { unread_bytes: 0, ..traffic() }),
        interface: Some("eth0".into()),
        mptcp: Some(MptcpPart::Whole { token: Some(0xbeef), subflows: 2 }),
        uid: Some(70),
        receive_queue: 11,
        send_queue: 4,
        timer: Some(Timer { kind: TimerKind::Keepalive, left_ns: 5 }),
        retransmits: 3,
        transport: Transport::Tcp,
        ..SocketInfo::bare(1, State::CloseWait, Tuple { interface: 2, ..v4() })
    };
    SocketReport {
        age: in_state(9, true),
        holders: holders(),
        of_kernel: true,
        elsewhere: Some(Arc::new(Elsewhere {
            messages: vec![Message { process: process(14, "unix"), fd: 3, count: 2 }],
            rings: Vec::new(),
        })),
        listeners: vec![Listener { queued: 3, backlog: 2, holders: listening }],
        unanswered_ns: Some(8),
        cut: vec![Cut { field: "holders", total: Some(70) }, Cut { field: "unit", total: None }],
        ..SocketReport::new(socket)
    }
}

fn diagnosis() -> Diagnosis {
    Diagnosis {
        reason: Reason::NotClosed,
        why: "rich (11) has read all and does not close".into(),
        advice: "Close it.".into(),
        commands: vec!["sudo ls -l /proc/11/fd/5".into(), "sudo \"x\"".into()],
        more_commands: 4,
        cannot_destroy: Some("this kernel has no ss -K".into()),
    }
}

fn stack() -> Stack {
    let frames = vec![
        Frame {
            function: Some("main::open<\"x\">".into()),
            file: Some("/src/main.rs".into()),
            line: Some(12),
            module: Some("/bin/rich".into()),
            offset: 4096,
            ..Frame::default()
        },
        Frame { offset: u64::MAX, unnamed: Some(Unnamed::Generated), ..Frame::default() },
        Frame {
            interpreter: Some("CPython 3.13".into()),
            language: Some("python"),
            function: Some("f".repeat(3000)),
            ..Frame::default()
        },
    ];
    Stack { id: 0xabc, by: OpenedBy::Connect, comm: "rich".into(), frames, complete: true }
}

fn stuck() -> Vec<Stuck> {
    let bare = Stuck {
        time_ns: TIME_NS,
        conn: conn(Some(Role::Client), Tuple { interface: 2, ..v4() }, known(), false),
        state: State::CloseWait,
        age: InState { ns: 120_000_000_000, at_least: false },
        times: 1,
        before_trace: false,
        found: None,
        opened: None,
    };
    let found = |examined| Some(Box::new((examined, diagnosis())));
    let partial = SocketInfo { is_partial: true, ..SocketInfo::bare(1, State::CloseWait, v4()) };
    let subflow = SocketInfo {
        mptcp: Some(MptcpPart::Subflow { token: None }),
        ..SocketInfo::bare(1, State::SynRecv, v4())
    };
    let mut short = diagnosis();
    (short.more_commands, short.cannot_destroy, short.reason) = (0, None, Reason::Unknown);
    vec![
        Stuck { opened: Some(Ok(Arc::new(stack()))), found: found(examined()), ..bare.clone() },
        Stuck { opened: Some(Err(MissingStack::BeforeHunt)), times: 255, ..bare.clone() },
        Stuck {
            conn: conn(None, v6(), long(), false),
            state: State::FinWait1,
            found: found(SocketReport::new(SocketInfo::bare(1, State::FinWait1, v6()))),
            ..bare.clone()
        },
        Stuck {
            age: InState { ns: 1, at_least: true },
            found: Some(Box::new((SocketReport::new(partial), short))),
            ..bare.clone()
        },
        Stuck {
            conn: conn(Some(Role::Server), v4(), plain(), true),
            state: State::NewSynRecv,
            found: found(SocketReport::new(subflow)),
            ..bare
        },
    ]
}

fn aggregates() -> Vec<Aggregate> {
    let mut dwell = Dwell::default();
    dwell.add(InState { ns: 3_000_000, at_least: false });
    let full = Aggregate {
        time_ns: TIME_NS,
        window_ns: 10_000_000_000,
        comm: Some("postgres".into()),
        unit: Some("db.service".into()),
        container: container(),
        pod: pod(),
        role: Some(Role::Server),
        port: 5432,
        peer: Some(Address::from_v4([192, 0, 2, 1])),
        from: State::SynRecv,
        to: State::Established,
        of_connections: false,
        cause: None,
        other: false,
        count: 12,
        dwell,
        transferred: None,
    };
    let other = Aggregate {
        comm: None,
        unit: None,
        container: None,
        pod: None,
        role: None,
        port: 0,
        peer: None,
        other: true,
        to: State::Unknown(20),
        ..full.clone()
    };
    let attempts = Aggregate {
        from: State::SynSent,
        to: State::Close,
        of_connections: true,
        cause: Some(Cause::Refused),
        transferred: Some(Transferred { bytes_sent: 0, bytes_received: 0, retransmits: 24 }),
        ..other.clone()
    };
    let ended = Aggregate {
        from: State::LastAck,
        to: State::Close,
        transferred: Some(Transferred { bytes_sent: u64::MAX, bytes_received: 4096, retransmits: 3 }),
        ..full.clone()
    };
    vec![full, other, attempts, ended]
}

fn traffic() -> Traffic {
    Traffic {
        bytes_sent: 1_048_576,
        bytes_received: u64::MAX,
        unread_bytes: 7,
        segments_sent: 730,
        segments_received: u32::MAX,
        retransmits: 3,
        rtt_smoothed_ns: Some(41_125),
        rtt_min_ns: None,
    }
}

fn lifespans() -> [Lifespan; 4] {
    let steps = |states: &[(State, Option<u64>)]| -> Vec<PathStep> {
        states.iter().map(|&(state, ns)| PathStep { state, ns }).collect()
    };
    let whole = Lifespan {
        time_ns: TIME_NS,
        is_final: true,
        conn: client(),
        begin_ns: TIME_NS - 1_000_000_123,
        at_least: false,
        duration_ns: 1_000_000_123,
        path: steps(&[
            (State::SynSent, Some(59_000)),
            (State::Established, Some(999_941_100)),
            (State::FinWait1, Some(10)),
            (State::FinWait2, Some(13)),
            (State::TimeWait, None),
        ]),
        cause: Some(Cause::Fin),
        reset_why: None,
        errno: 0,
        exact: true,
        incomplete: false,
        traffic: Some(Rc::new(traffic())),
    };
    let reset = Lifespan {
        conn: server(),
        path: steps(&[(State::SynRecv, Some(1)), (State::Established, Some(2)), (State::CloseWait, Some(3))]),
        cause: Some(Cause::ResetSent),
        reset_why: Some("unread_data"),
        errno: 104,
        ..whole.clone()
    };
    let partial = Lifespan {
        conn: conn(None, v6(), nothing(), false),
        at_least: true,
        path: steps(&[(State::Established, None), (State::Unknown(14), Some(4))]),
        cause: None,
        exact: false,
        incomplete: true,
        traffic: None,
        ..whole.clone()
    };
    let interim = Lifespan {
        is_final: false,
        path: steps(&[(State::SynSent, Some(59_000)), (State::Established, Some(999_941_123))]),
        cause: None,
        ..whole.clone()
    };
    [whole, reset, partial, interim]
}

fn ends() -> [Record; 6] {
    let start = Start {
        time_ns: TIME_NS,
        version: "0.1.0",
        host: "web1".into(),
        kernel: "6.18.0".into(),
        hook: "tp_btf",
        tier: "fentry",
        instance: 0xdd_3277,
        degraded: vec!["no cgroup: \"none\"".into()],
        adopted: Some(0x12),
    };
    let lost =
        Lost { time_ns: TIME_NS, since_ns: Some(TIME_NS - 5), count: 3, in_doubt: 2, place: LostPlace::Sink };
    let stop = Stop {
        time_ns: TIME_NS,
        reason: "signal",
        transitions: 9,
        lost: vec![(LostPlace::Evidence, 1), (LostPlace::Ring, 12)],
        illegal: 1,
    };
    [
        Record::Start(Start { degraded: Vec::new(), adopted: None, ..start.clone() }),
        Record::Start(start),
        Record::Lost(Lost { since_ns: None, in_doubt: 0, place: LostPlace::Ring, ..lost.clone() }),
        Record::Lost(lost),
        Record::Stop(Stop { lost: Vec::new(), ..stop.clone() }),
        Record::Stop(stop),
    ]
}

/// One reset of each family, and a number of them.
fn resets() -> [Reset; 3] {
    let reset = |tuple: Tuple, netns, flags| Reset {
        time_ns: TIME_NS,
        answered: Some(Answered { netns, tuple: tuple.of_any_interface(), flags }),
        count: 1,
    };
    let number = Reset { time_ns: TIME_NS, answered: None, count: 4321 };
    [reset(v4(), Some(4_026_531_840), 2), reset(v6(), None, 0xff), number]
}

/// All of them.
pub(crate) fn records() -> Vec<Record> {
    let snapshot = |conn, state| Record::Snapshot(Snapshot { time_ns: TIME_NS, conn, state });
    let resync = |was, state| Record::Resync(Resync { time_ns: TIME_NS, conn: server(), was, state });
    let resolved = Resolved {
        time_ns: TIME_NS,
        conn: client(),
        state: State::CloseWait,
        to: State::LastAck,
        age: InState { ns: 77, at_least: true },
        traffic: Some(Rc::new(traffic())),
    };
    let mut records = ends().to_vec();
    records.extend(transitions().into_iter().map(Record::Transition));
    records.extend([
        snapshot(conn(Some(Role::Listener), v6(), long(), false), State::Listen),
        snapshot(conn(Some(Role::Server), v4(), plain(), true), State::NewSynRecv),
        snapshot(conn(None, v4(), nothing(), false), State::Unknown(14)),
        resync(None, State::Established),
        resync(Some(State::Unknown(15)), State::Close),
    ]);
    records.extend(stuck().into_iter().map(Record::Stuck));
    records.push(Record::Resolved(resolved));
    records.extend(aggregates().into_iter().map(Box::new).map(Record::Aggregate));
    records.extend(lifespans().map(Box::new).map(Record::Connection));
    records.extend(resets().map(Record::Reset));
    records
}
