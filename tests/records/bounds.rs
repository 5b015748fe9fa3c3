//! Values that others choose make no record larger than a datagram, and a record says what it leaves out.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use serde_json::Value;
use sockstate::{
    format::{
        Csv, Format, Json, Stamp, Table,
        convert::{Syslog, journal, otlp_protobuf},
        socket_json, stuck_json,
    },
    model::{
        Address, Cgroup, ClusterPeer, ConnId, Connection, Container, Diagnosis, Elsewhere, Frame, Holder,
        InState, Listener, Message, Nat, OpenedBy, Owner, OwnerSource, PeerKind, Pod, PodWorkload, Process,
        Reason, Record, Role, Served, SocketEntry, SocketInfo, SocketReport, Stack, State, Stuck, Subject,
        Task, Transition, Transport, Tuple, Via, Watch, bounds,
    },
    wire::Parser,
};
use testkit::schema;

use crate::formats::converter;

/// Payload of UDP over IPv4.
const DATAGRAM: usize = 65_507;

/// Everything that a process, a user or a container may choose is `text`, and there are `count` of each.
struct Hostile {
    text: String,
    count: usize,
}

impl Hostile {
    fn text(&self) -> String {
        self.text.clone()
    }

    fn comm(&self) -> String {
        self.text.chars().take(15).collect()
    }

    fn container(&self) -> Option<Container> {
        let (name, image) = (Some(self.text()), Some(self.text()));
        Some(Container { id: self.text(), runtime: Some("containerd"), name, image })
    }

    fn pod(&self) -> Option<Pod> {
        let (uid, name, namespace) = (self.text(), Some(self.text()), Some(self.text()));
        Some(Pod { uid, name, namespace, ..Pod::default() })
    }

    fn process(&self, pid: u32) -> Arc<Process> {
        let (container, pod, unit) = (self.container(), self.pod(), Some(self.text()));
        let serves =
            Served { netns: u32::MAX, container: container.clone(), pod: pod.clone(), unit: unit.clone() };
        Arc::new(Process {
            pid,
            comm: self.comm(),
            exe: Some(self.text()),
            cgroup: Some(self.text()),
            container,
            pod,
            unit,
            serves: Some(Box::new(serves)),
            ..Process::default()
        })
    }

    fn processes(&self) -> Vec<Arc<Process>> {
        (0..self.count as u32).map(|at| self.process(4_000_000 + at)).collect()
    }

    fn subject(&self) -> Rc<Subject> {
        let owner = Owner {
            task: Rc::new(Task { pid: 4_000_000, exec_id: 1, start_ns: 1, comm: *b"hostile hostile\0" }),
            comm: self.comm(),
            exe: Some(self.text()),
            uid: Some(u32::MAX - 1),
            source: OwnerSource::Inherited,
            cmdline: Some(self.text().into()),
        };
        Rc::new(Subject {
            id: 1,
            owner: Some(owner),
            netns: Some(u32::MAX),
            cgroup: Some(Cgroup { id: u64::MAX, path: Some(self.text()) }),
            container: self.container(),
            pod: self.pod().map(|pod| Pod { workload: self.workload(), labels: self.labels(), ..pod }),
            unit: Some(self.text()),
        })
    }

    fn workload(&self) -> Option<PodWorkload> {
        Some(PodWorkload { kind: self.text(), name: self.text() })
    }

    fn peer(&self) -> ClusterPeer {
        let text = || bounds::keep(self.text(), bounds::NAME - 4);
        let workload = Some(PodWorkload { kind: text(), name: text() });
        ClusterPeer { kind: PeerKind::Service, namespace: text(), name: text(), workload }
    }

    /// As many as a record has.
    fn labels(&self) -> BTreeMap<String, String> {
        let part: String = self.text.chars().take(10).collect();
        let labels: Vec<String> = (0..100).map(|number| format!("{number:03}{part}")).collect();
        bounds::labels(labels.iter().map(|label| (label.as_str(), part.as_str())))
    }

    fn examined(&self) -> SocketReport {
        let holder = |process: Arc<Process>| Holder {
            process,
            via: Via::Descriptor(1_000_000),
            tid: Some(4_000_000),
            close_on_exec: None,
            watch: Some(Watch::Epoll(vec!["EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLERR", "EPOLLHUP"])),
        };
        let processes = self.processes();
        let listening: Arc<[_]> = processes.clone().into();
        let listener = |_| Listener { queued: u32::MAX, backlog: u32::MAX, holders: Arc::clone(&listening) };
        let message = |process| Message { process, fd: u32::MAX, count: u32::MAX };
        SocketReport {
            age: Some(InState { ns: u64::MAX, at_least: true }),
            holders: processes.iter().cloned().map(holder).collect(),
            listeners: (0..self.count).map(listener).collect(),
            elsewhere: Some(Arc::new(Elsewhere {
                messages: processes.into_iter().map(message).collect(),
                rings: Vec::new(),
            })),
            unanswered_ns: Some(u64::MAX),
            ..SocketReport::new(SocketInfo {
                netns: u32::MAX,
                transport: Transport::Tcp,
                mptcp: None,
                state: State::CloseWait,
                mini: false,
                tuple: tuple(),
                interface: Some(Arc::from(&*self.comm())),
                uid: Some(1),
                inode: 7,
                cgroup: None,
                is_v6_only: false,
                is_transparent: false,
                is_partial: false,
                receive_queue: u32::MAX,
                send_queue: u32::MAX,
                timer: None,
                retransmits: 255,
                times: None,
                traffic: None,
                request: None,
            })
        }
    }

    /// As the program makes it, but with sentences that are as long as they can be.
    fn diagnosis(&self, found: &SocketReport) -> Diagnosis {
        let made = sockstate::track::diagnose(found, None);
        Diagnosis {
            reason: Reason::HeldByChild,
            why: self.text(),
            advice: self.text(),
            cannot_destroy: Some(self.text()),
            ..made
        }
    }

    fn stuck(&self) -> Stuck {
        let found = self.examined();
        let diagnosis = self.diagnosis(&found);
        Stuck {
            time_ns: i64::MAX,
            conn: Connection {
                id: ConnId(u64::MAX),
                role: Some(Role::Listener),
                tuple: tuple(),
                nat: Some(Rc::new(Nat::of(&tuple()))),
                peer: Some(Arc::new(self.peer())),
                subject: self.subject(),
                mini: true,
            },
            state: State::CloseWait,
            age: InState { ns: u64::MAX, at_least: true },
            times: 255,
            before_trace: false,
            found: Some(Box::new((found, diagnosis))),
            opened: None,
        }
    }
}

fn tuple() -> Tuple {
    Tuple {
        local: Address::from_v6([0xff; 16]),
        remote: Address::from_v6([0xfe; 16]),
        local_port: 65_535,
        remote_port: 65_534,
        v6_socket: true,
        interface: u32::MAX,
    }
}

/// The worst texts that processes can choose: characters that take six bytes in JSON, quotes, characters of four bytes,
/// and names that are not UTF-8.
fn hostile() -> impl Iterator<Item = Hostile> {
    let texts = ["\u{1}", "\"", "\u{1f600}", "\u{fffd}", "x"].map(|c| c.repeat(5000));
    // Short texts, so that the keys are what takes room.
    let texts = texts.into_iter().chain(["x".to_owned(), "x".repeat(80), "\u{1b}".repeat(300)]);
    texts.flat_map(|text| [1, 40, 700].map(|count| Hostile { text: text.clone(), count }))
}

fn written(record: &Record) -> Vec<u8> {
    let labels = BTreeMap::from([("env".to_owned(), "production".to_owned())]);
    let host = "h".repeat(64);
    let mut out = Vec::new();
    let stamp = Stamp { host: &host, instance: 0xff_ffff, labels: &labels };
    Json::stamped(&stamp).record(u64::MAX, record, &mut out);
    out
}

fn record(line: &[u8]) -> Value {
    let record = serde_json::from_slice(line).expect("JSON");
    schema::check(&record);
    record
}

/// The fields that are longer than they are there, with how many there are.
fn cuts(record: &Value) -> BTreeMap<&str, Option<u64>> {
    let list = record["truncated"].as_array().map_or(&[][..], Vec::as_slice);
    let all: BTreeMap<_, _> =
        list.iter().map(|cut| (cut["field"].as_str().expect("a field"), cut["total"].as_u64())).collect();
    assert_eq!(all.len(), list.len(), "each once: {list:?}");
    all
}

#[test]
fn a_stuck_record_fits_into_a_datagram_in_every_format() {
    let syslog = Syslog::new(3, &"h".repeat(255), u32::MAX);
    let mut longest = BTreeMap::new();
    for hostile in hostile() {
        let line = written(&Record::Stuck(hostile.stuck()));
        let found = record(&line);
        let mut sizes = vec![("json", line.len())];
        type Convert<'a> = Box<dyn FnMut(&[u8], &mut Vec<u8>) + 'a>;
        let formats: [(_, Convert<'_>); 5] = [
            ("ecs", Box::new(converter("ecs"))),
            ("otlp", Box::new(converter("otlp"))),
            ("otlp in protobuf", Box::new(otlp_protobuf)),
            ("syslog", Box::new(|line, out| syslog.convert(line, out))),
            ("journal", Box::new(journal)),
        ];
        for (name, mut convert) in formats {
            let mut out = Vec::new();
            convert(&line, &mut out);
            let text = String::from_utf8_lossy(&out);
            assert_eq!(text.contains("truncated"), !found["truncated"].is_null(), "{name}");
            sizes.push((name, out.len()));
        }
        for (name, bytes) in sizes {
            // journald takes more than a datagram.
            assert!(
                bytes <= DATAGRAM || name == "journal",
                "{name}: {bytes} bytes, {:?}",
                hostile.text.get(..4)
            );
            let longest: &mut usize = longest.entry(name).or_default();
            *longest = bytes.max(*longest);
        }
        let mut table = Vec::new();
        Table::new(false, None).record(1, &Record::Stuck(hostile.stuck()), &mut table);
        Csv::default().record(1, &Record::Stuck(hostile.stuck()), &mut table);
        assert!(table.len() < 8 << 10, "{}", table.len());
    }
    // Otherwise the test would not test the limit.
    assert!(longest["otlp"] > DATAGRAM / 2, "{longest:?}");
}

#[test]
fn a_record_says_what_it_leaves_out() {
    let long = Hostile { text: "/é".repeat(4000), count: 301 };
    let found = record(&written(&Record::Stuck(long.stuck())));
    let cut = cuts(&found);
    assert_eq!(cut.get("holders"), Some(&Some(301)));
    // One command for each holder, and the command that ends the socket, if this kernel has it.
    assert_eq!(cut.get("commands"), Some(&Some(301 + u64::from(found["cannot_destroy"].is_null()))));
    for field in ["owner.exe", "owner.cmdline", "cgroup.path", "unit", "why", "advice", "holders[].exe"] {
        assert_eq!(cut.get(field), Some(&None), "{field}");
    }
    assert_eq!(cut.get("listeners"), Some(&Some(301)));
    let listed = found["holders"].as_array().expect("holders").len();
    assert!((4..301).contains(&listed), "{listed}");
    let cmdline = found["owner"]["cmdline"].as_str().expect("a command line");
    assert!(cmdline.len() > bounds::COMMAND_LINE - 4 && long.text.starts_with(cmdline), "{}", cmdline.len());

    let usual = Hostile { text: "/usr/lib/postgresql/17/bin/postgres".into(), count: 12 };
    let found = record(&written(&Record::Stuck(usual.stuck())));
    assert_eq!(found["holders"].as_array().map(Vec::len), Some(12));
    assert!(!cuts(&found).contains_key("holders"), "{found}");
    let shorter = Hostile { count: 3, ..usual };
    let found = record(&written(&Record::Stuck(shorter.stuck())));
    assert_eq!(found["truncated"], Value::Null);
}

#[test]
fn every_kind_of_record_is_bounded() {
    let long = Hostile { text: "\u{2}".repeat(9000), count: 1 };
    let transition = Record::Transition(Transition {
        time_ns: 1,
        conn: Connection {
            id: ConnId(1),
            role: None,
            tuple: tuple(),
            nat: None,
            peer: None,
            subject: long.subject(),
            mini: false,
        },
        from: State::Close,
        to: State::SynSent,
        in_state: None,
        exact: true,
        illegal: false,
        cause: None,
        reset_why: None,
        errno: 0,
        traffic: None,
    });
    let mut json = Json::default();
    // The second time from what was kept of the first.
    for _ in 0..2 {
        let mut out = Vec::new();
        json.record(1, &transition, &mut out);
        let found = record(&out);
        assert_eq!(cuts(&found).len(), 12, "{:?}", cuts(&found));
        assert!(out.len() < 11 << 10, "{}", out.len());
    }
    let looked = SocketEntry {
        report: Hostile { count: 5000, text: "x".repeat(3000) }.examined(),
        subject: long.subject(),
    };
    let diagnosis = long.diagnosis(&looked.report);
    for line in [
        socket_json(&looked, "2026-11-26T00:00:00.000000000Z"),
        stuck_json(&looked, &diagnosis, "2026-11-26T00:00:00.000000000Z"),
    ] {
        let found = record(line.as_bytes());
        assert_eq!(cuts(&found).get("holders"), Some(&Some(5000)));
        assert!(line.len() < 2 << 20, "{}", line.len());
    }
}

#[test]
fn a_call_path_is_bounded() {
    let frame = Frame {
        function: Some("f".repeat(90_000)),
        file: Some("/f".repeat(90_000)),
        module: Some("/m".repeat(90_000)),
        ..Frame::default()
    };
    let stack = |count| Stack {
        id: 1,
        by: OpenedBy::Accept,
        comm: "x".into(),
        frames: vec![frame.clone(); count],
        complete: true,
    };
    let small = Hostile { text: "x".into(), count: 1 };
    let of = |count| {
        let stuck = Stuck { opened: Some(Ok(Arc::new(stack(count)))), ..small.stuck() };
        written(&Record::Stuck(stuck))
    };
    let found = record(&of(3));
    assert_eq!(found["opened"]["frames"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        cuts(&found).keys().copied().collect::<Vec<_>>(),
        ["opened.frames[].file", "opened.frames[].function", "opened.frames[].module"]
    );
    let line = of(400);
    assert_eq!(cuts(&record(&line)).get("opened.frames"), Some(&Some(400)));
    assert!(line.len() < 1 << 20, "{}", line.len());
}

#[test]
fn what_was_left_out_is_known_when_it_is_read_again() {
    let long = Hostile { text: "/x".repeat(4000), count: 301 };
    let line = written(&Record::Stuck(long.stuck()));
    let Some(Record::Stuck(stuck)) = Parser::default().parse(&line).expect("a record") else {
        panic!("a stuck record");
    };
    let (report, diagnosis) = *stuck.found.expect("what was found");
    assert_eq!(report.holder_count(), 301);
    let looked = SocketEntry { report, subject: stuck.conn.subject };
    let again = record(stuck_json(&looked, &diagnosis, "2026-11-26T00:00:00.000000000Z").as_bytes());
    let (before, after) = (record(&line), &again);
    for field in ["holders", "commands", "listeners", "why", "advice", "unit"] {
        assert_eq!(cuts(after).get(field), cuts(&before).get(field), "{field}");
    }
}
