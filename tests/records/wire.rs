//! The wire types: what is written is what is read, and the writer by hand writes what the types write.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use proptest::{collection::btree_map, option, prelude::*, sample::select};
use serde_json::Value;
use sockstate::{
    format::{Format, Json, Stamp},
    model::{
        Address, Answered, Cause, Cgroup, ClusterPeer, ConnId, Connection, Container, InState, Lifespan,
        Lost, LostPlace, MissingStack, Nat, Owner, OwnerSource, PathStep, PeerKind, Pod, PodWorkload, Record,
        Reset, Resolved, Resync, Role, Snapshot, Start, State, Stop, Stuck, Subject, Task, Traffic,
        Transition, Tuple, bounds,
    },
    wire::{self, Line, Parser},
};

use testkit::{golden, schema};

use crate::{corpus, formats};

const REASONS: [&str; 4] = ["unread_data", "linger", "data_after_close", "abort"];

pub(crate) fn written(format: &mut Json, record: &Record) -> String {
    let mut out = Vec::new();
    format.record(7, record, &mut out);
    String::from_utf8(out).expect("UTF-8")
}

pub(crate) fn read(line: &str) -> Line<'_> {
    Line::read(line.as_bytes()).expect("a line")
}

/// The line as the types write it.
fn text(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    line.write(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn every_line_is_written_again_as_it_was_read() {
    let labels = BTreeMap::from([("env".to_owned(), "pro\"d".to_owned())]);
    let stamped = || Json::stamped(&Stamp { host: "web1", instance: 1, labels: &labels });
    for mut json in [Json::default(), stamped(), Json::default().sampled(100), stamped().sampled(7)] {
        for record in corpus::records() {
            let line = written(&mut json, &record);
            assert_eq!(text(&read(&line)), line);
        }
    }
    let recording = golden::file("fixtures/recordings/sockstate-1.ndjson");
    let recording = std::fs::read_to_string(recording).expect("recording");
    for line in recording.lines() {
        let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(value(&text(&read(line))), value(line));
    }
}

#[test]
fn what_a_later_version_adds_is_skipped_and_what_an_earlier_one_lacks_is_not_known() {
    let record = r#"{"new":[1,{"conn":3}],"schema":"sockstate/1","kind":"transition","seq":1,
        "time":"2026-11-26T00:00:00.000000001Z","conn":"0000000000000001","from":"CLOSE","to":"SYN_SENT",
        "network":{"type":"ipv4","new":1},"local":{"address":"10.0.0.1","port":1},
        "remote":{"address":"10.0.0.2","port":2},"cause":"new","owner":{"pid":7,"comm":"x","source":"new"}}"#;
    let Some(Record::Transition(transition)) = Parser::default().parse(record.as_bytes()).expect("a record")
    else {
        panic!("a transition");
    };
    assert!(transition.exact && transition.cause.is_none() && transition.in_state.is_none());
    assert_eq!(transition.conn.subject.owner.as_ref().map(Owner::pid), Some(7));
    let later = record.replace("\"transition\"", "\"later\"");
    assert_eq!(Parser::default().parse(later.as_bytes()), Ok(None));
    let newer = record.replace("sockstate/1", "sockstate/2");
    let error = Parser::default().parse(newer.as_bytes()).expect_err("newer");
    assert_eq!(error, wire::ReadError::Schema("sockstate/2".into()));
    for missing in ["\"conn\"", "\"from\"", "\"to\"", "\"local\"", "\"network\"", "\"schema\"", "\"time\""] {
        let without = record.replace(missing, "\"other\"");
        assert!(Parser::default().parse(without.as_bytes()).is_err(), "{missing}");
    }
    for (right, wrong) in
        [("\"seq\":1", "\"seq\":\"1\""), ("\"pid\":7", "\"pid\":-7"), ("10.0.0.1", "10.0.1")]
    {
        let wrong = record.replace(right, wrong);
        assert!(Parser::default().parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

fn short() -> impl Strategy<Value = String> {
    "[a-z/]{1,40}|[\u{0}-\u{7f}]{1,20}|.{1,20}"
}

/// Also of those that are cut.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![8 => short(), 1 => "[a-z\u{1}\"]{300,1500}"]
}

fn task(pid: u32, comm: &str) -> Rc<Task> {
    let mut padded = [0; 16];
    padded.iter_mut().zip(comm.bytes()).for_each(|(to, from)| *to = from);
    Rc::new(Task { pid, exec_id: 0, start_ns: 0, comm: padded })
}

fn owner(text: BoxedStrategy<String>) -> BoxedStrategy<Owner> {
    (
        1_u32..,
        short(),
        option::of(text.clone()),
        option::of(any::<u32>()),
        select(&OwnerSource::ALL[..]),
        option::of(text),
    )
        .prop_map(|(pid, comm, exe, uid, source, cmdline)| Owner {
            task: task(pid, &comm),
            comm,
            exe,
            uid,
            source,
            cmdline: cmdline.map(Into::into),
        })
        .boxed()
}

/// Few numbers, so that the writer meets the same subject again; one number is one subject.
fn subject(text: BoxedStrategy<String>) -> BoxedStrategy<Subject> {
    let runtimes = option::of(select(vec!["docker", "lxc"]));
    let cgroup = (any::<u64>(), option::of(text.clone())).prop_map(|(id, path)| Cgroup { id, path });
    let names = || (option::of(text.clone()), option::of(text.clone()));
    let container = (text.clone(), runtimes, names()).prop_map(|(id, runtime, (name, image))| Container {
        id,
        runtime,
        name,
        image,
    });
    let workload =
        option::of((text.clone(), text.clone()).prop_map(|(kind, name)| PodWorkload { kind, name }));
    let labels = btree_map(text.clone(), text.clone(), 0..4)
        .prop_map(|all| bounds::labels(all.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
    let pod =
        (text.clone(), names(), workload, labels).prop_map(|(uid, (name, namespace), workload, labels)| {
            Pod { uid, name, namespace, workload, labels }
        });
    (
        option::of(owner(text.clone())),
        option::of(1_u32..),
        option::of(cgroup),
        option::of(container),
        option::of(pod),
        option::of(text),
    )
        .prop_map(|(owner, netns, cgroup, container, pod, unit)| Subject {
            id: 0,
            owner,
            netns,
            cgroup,
            container,
            pod,
            unit,
        })
        .boxed()
}

fn peer(text: BoxedStrategy<String>) -> impl Strategy<Value = ClusterPeer> {
    let workload = (text.clone(), text.clone()).prop_map(|(kind, name)| PodWorkload { kind, name });
    (select(&PeerKind::ALL[..]), text.clone(), text, option::of(workload))
        .prop_filter_map("too long", |(kind, namespace, name, workload)| {
            ClusterPeer { kind, namespace, name, workload }.checked()
        })
}

fn tuple() -> BoxedStrategy<Tuple> {
    let v4 = any::<[[u8; 4]; 2]>().prop_map(|ends| (ends.map(Address::from_v4), false));
    let v6 = any::<[[u8; 16]; 2]>().prop_map(|ends| (ends.map(Address::from_v6), true));
    let ports = prop_oneof![any::<(u16, u16)>(), Just((0, 0)), Just((80, 0))];
    let interface = prop_oneof![Just(0), any::<u32>()];
    (prop_oneof![v4, v6], ports, interface)
        .prop_map(|(([local, remote], v6_socket), ports, interface)| {
            let (local_port, remote_port) = ports;
            Tuple { local, remote, local_port, remote_port, v6_socket, interface }.of_any_socket()
        })
        .boxed()
}

/// Only of a mini-socket SYN_RECV is a request's, which the kernel calls otherwise.
fn state(mini: bool) -> impl Strategy<Value = State> {
    (0_u8..=255).prop_map(move |number| match State::from_number(number % 16) {
        State::SynRecv | State::NewSynRecv if mini => State::NewSynRecv,
        State::NewSynRecv => State::SynRecv,
        state => state,
    })
}

fn conn(text: BoxedStrategy<String>, mini: bool) -> BoxedStrategy<Connection> {
    let peer = option::of(peer(text.clone()));
    (any::<u64>(), option::of(select(&Role::ALL[..])), tuple(), option::of(tuple()), peer, subject(text))
        .prop_map(move |(id, role, tuple, beyond, peer, subject)| Connection {
            id: ConnId(id),
            role,
            tuple,
            nat: beyond.map(|beyond| Rc::new(Nat::of(&beyond))),
            peer: peer.map(Arc::new),
            subject: Rc::new(subject),
            mini,
        })
        .boxed()
}

fn in_state() -> impl Strategy<Value = InState> {
    (any::<u64>(), any::<bool>()).prop_map(|(ns, at_least)| InState { ns, at_least })
}

/// Errors with and without a name.
fn errno() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 1_u16..=200, any::<u16>()]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let rtt = any::<(Option<u64>, Option<u64>)>();
    (any::<[u64; 3]>(), any::<[u32; 3]>(), rtt).prop_map(|(bytes, segments, rtt)| Traffic {
        bytes_sent: bytes[0],
        bytes_received: bytes[1],
        unread_bytes: bytes[2],
        segments_sent: segments[0],
        segments_received: segments[1],
        retransmits: segments[2],
        rtt_smoothed_ns: rtt.0,
        rtt_min_ns: rtt.1,
    })
}

fn transition(text: BoxedStrategy<String>) -> BoxedStrategy<Transition> {
    any::<bool>()
        .prop_flat_map(move |mini| {
            let ends =
                (any::<i64>(), conn(text.clone(), mini), state(mini), state(mini), option::of(in_state()));
            let causes = (option::of(select(&Cause::ALL[..])), option::of(select(&REASONS[..])), errno());
            let traffic = option::of(traffic().prop_map(Rc::new));
            (ends, any::<(bool, bool)>(), causes, traffic).prop_map(
                |((time_ns, conn, from, to, in_state), (exact, illegal), causes, traffic)| {
                    let (cause, reset_why, errno) = causes;
                    Transition {
                        time_ns,
                        conn,
                        from,
                        to,
                        in_state,
                        exact,
                        illegal,
                        cause,
                        reset_why,
                        errno,
                        traffic,
                    }
                },
            )
        })
        .boxed()
}

fn lifespan(text: BoxedStrategy<String>) -> impl Strategy<Value = Lifespan> {
    let step = (state(false), option::of(any::<u64>())).prop_map(|(state, ns)| PathStep { state, ns });
    let times = (any::<i64>(), any::<i64>(), any::<u64>());
    let ends = (times, conn(text, false), proptest::collection::vec(step, 0..9));
    let causes = (option::of(select(&Cause::ALL[..])), option::of(select(&REASONS[..])), errno());
    let traffic = option::of(traffic().prop_map(Rc::new));
    (ends, any::<(bool, bool, bool, bool)>(), causes, traffic).prop_map(
        |(
            (times, conn, path),
            (is_final, at_least, exact, incomplete),
            (cause, reset_why, errno),
            traffic,
        )| Lifespan {
            time_ns: times.0,
            is_final,
            conn,
            begin_ns: times.1,
            at_least,
            duration_ns: times.2,
            path,
            cause,
            reset_why,
            errno,
            exact,
            incomplete,
            traffic,
        },
    )
}

/// A socket in a state, at a time.
fn socket(text: BoxedStrategy<String>) -> BoxedStrategy<(i64, Connection, State)> {
    any::<bool>().prop_flat_map(move |mini| (any::<i64>(), conn(text.clone(), mini), state(mini))).boxed()
}

fn of_sockets(text: BoxedStrategy<String>) -> impl Strategy<Value = Record> {
    let opened = option::of(select(&MissingStack::ALL[..]).prop_map(Err));
    prop_oneof![
        socket(text.clone()).prop_map(|(time_ns, conn, state)| Record::Snapshot(Snapshot {
            time_ns,
            conn,
            state
        })),
        (socket(text.clone()), option::of(state(false)))
            .prop_map(|((time_ns, conn, state), was)| Record::Resync(Resync { time_ns, conn, was, state })),
        (socket(text.clone()), state(false), in_state(), option::of(traffic().prop_map(Rc::new))).prop_map(
            |((time_ns, conn, state), to, age, traffic)| {
                Record::Resolved(Resolved { time_ns, conn, state, to, age, traffic })
            }
        ),
        (socket(text), in_state(), any::<u8>(), opened).prop_map(
            |((time_ns, conn, state), age, times, opened)| {
                Record::Stuck(Stuck {
                    time_ns,
                    conn,
                    state,
                    age,
                    times,
                    before_trace: false,
                    found: None,
                    opened,
                })
            }
        ),
    ]
}

fn of_streams() -> impl Strategy<Value = Record> {
    let places = || select(&LostPlace::ALL[..]);
    let lost = btree_map(places().prop_map(LostPlace::name), 1_u64.., 0..8);
    let lost = lost.prop_map(|lost| {
        let place = |name| LostPlace::ALL.into_iter().find(|place| place.name() == name);
        lost.into_iter().filter_map(|(name, count)| Some((place(name)?, count))).collect::<Vec<_>>()
    });
    let reasons = select(vec!["signal", "duration", "count"]);
    let answered = (option::of(1_u32..), tuple(), any::<u8>()).prop_map(|(netns, tuple, flags)| Answered {
        netns,
        tuple: tuple.of_any_interface(),
        flags,
    });
    prop_oneof![
        (any::<i64>(), option::of(answered), 1_u64..)
            .prop_map(|(time_ns, answered, count)| Record::Reset(Reset { time_ns, answered, count })),
        (any::<i64>(), option::of(any::<i64>()), any::<u64>(), any::<u64>(), places()).prop_map(
            |(time_ns, since_ns, count, in_doubt, place)| Record::Lost(Lost {
                time_ns,
                since_ns,
                count,
                in_doubt,
                place
            })
        ),
        (any::<i64>(), reasons, any::<u64>(), any::<u64>(), lost).prop_map(
            |(time_ns, reason, transitions, illegal, lost)| {
                Record::Stop(Stop { time_ns, reason, transitions, lost, illegal })
            }
        ),
        (
            any::<i64>(),
            short(),
            short(),
            0_u32..1 << 24,
            proptest::collection::vec(short(), 0..4),
            option::of(0_u32..9)
        )
            .prop_map(|(time_ns, host, kernel, instance, degraded, adopted)| Record::Start(Start {
                time_ns,
                version: "0.1.0",
                host,
                kernel,
                hook: "tp_btf",
                tier: "fentry",
                instance,
                degraded,
                adopted,
            })),
    ]
}

/// Numbers of subjects are each reader's own.
fn without_number(mut record: Record) -> Record {
    let conn = match &mut record {
        Record::Snapshot(snapshot) => &mut snapshot.conn,
        Record::Transition(transition) => &mut transition.conn,
        Record::Connection(lifespan) => &mut lifespan.conn,
        Record::Resync(resync) => &mut resync.conn,
        Record::Stuck(stuck) => &mut stuck.conn,
        Record::Resolved(resolved) => &mut resolved.conn,
        _ => return record,
    };
    conn.subject = Rc::new(Subject { id: 0, ..(*conn.subject).clone() });
    record
}

fn check(record: Record) -> Result<(), TestCaseError> {
    let line = written(&mut Json::default(), &record);
    prop_assert_eq!(&text(&read(&line)), &line);
    let parsed = Parser::default().parse(line.as_bytes()).expect("a record").expect("of a known kind");
    prop_assert_eq!(without_number(parsed), record, "{}", line);
    Ok(())
}

proptest! {
    #[test]
    fn a_transition_is_read_as_it_was(transition in transition(short().boxed())) {
        check(Record::Transition(transition))?;
    }

    #[test]
    fn a_connection_is_read_as_it_was(lifespan in lifespan(short().boxed())) {
        check(Record::Connection(Box::new(lifespan)))?;
    }

    #[test]
    fn a_record_of_a_socket_is_read_as_it_was(record in of_sockets(short().boxed())) {
        check(record)?;
    }

    #[test]
    fn a_record_of_a_stream_is_read_as_it_was(record in of_streams()) {
        check(record)?;
    }

    /// All records use the same writer, because the writer caches texts: a cached text with a wrong key would make the
    /// test fail.
    #[test]
    fn the_writer_by_hand_writes_what_the_types_write(
        transitions in proptest::collection::vec(transition(any_text().boxed()), 1..12),
        lifespan in lifespan(any_text().boxed()),
        order in proptest::collection::vec(0_usize..12, 1..24),
        closings in proptest::collection::vec(0_usize..12, 24),
    ) {
        let labels = BTreeMap::from([("a".to_owned(), "\u{1}\"".to_owned())]);
        let stamp = Stamp { host: "h", instance: 0xab, labels: &labels };
        let (mut plain, mut stamped) = (Json::default(), Json::stamped(&stamp));
        for (at, closing) in order.into_iter().zip(closings) {
            let id = (at % transitions.len()) as u64;
            let mut transition = transitions[id as usize].clone();
            let other = &transitions[closing % transitions.len()];
            // The same connection and owner with other addresses and another end of the line.
            transition.conn.tuple = other.conn.tuple;
            (transition.exact, transition.illegal) = (other.exact, other.illegal);
            (transition.cause, transition.errno) = (other.cause, other.errno);
            (transition.reset_why, transition.conn.mini) = (other.reset_why, other.conn.mini);
            transition.conn.subject = Rc::new(Subject { id, ..(*transition.conn.subject).clone() });
            transition.conn.id = ConnId(id);
            let whole = Lifespan { conn: transition.conn.clone(), ..lifespan.clone() };
            for record in [Record::Transition(transition), Record::Connection(Box::new(whole))] {
                for (json, keys) in [(&mut plain, wire::Stamp::default()), (&mut stamped, stamp.keys())] {
                    let line = written(json, &record);
                    prop_assert_eq!(&line, &text(&Line::of(7, &record, &keys)));
                    schema::check(&serde_json::from_str(&line).expect("JSON"));
                }
            }
        }
    }
}

/// The value of a line that was written in another format.
fn converted(format: &str, line: &str) -> Value {
    let mut out = Vec::new();
    formats::converter(format)(line.as_bytes(), &mut out);
    serde_json::from_slice(&out).expect("JSON")
}

proptest! {
    /// A line of an unknown kind keeps all of its keys.
    #[test]
    fn ecs_and_otlp_keep_all_keys_of_a_transition(transition in transition(any_text().boxed())) {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let mut json = Json::stamped(&Stamp { host: "h", instance: 0xab, labels: &labels });
        let line = written(&mut json, &Record::Transition(transition));
        let unknown = line.replacen("\"transition\"", "\"later\"", 1);
        let keys = |line: &str| {
            let mut keys = converted("ecs", line)["sockstate"].as_object().expect("an object").clone();
            // The owner and the pod have fields of their own.
            for key in ["kind", "owner", "workload"] {
                keys.remove(key);
            }
            keys
        };
        prop_assert_eq!(keys(&line), keys(&unknown));
        let attributes = |line: &str| {
            let mut attributes = converted("otlp", line)["attributes"].as_array().expect("a list").clone();
            attributes.retain(|attribute| {
                let key = attribute["key"].as_str().unwrap_or_default();
                let is_own = ["sockstate.owner", "sockstate.pod"].iter().any(|own| key.starts_with(own));
                key.starts_with("sockstate.") && !is_own
            });
            attributes
        };
        prop_assert_eq!(attributes(&line), attributes(&unknown));
    }
}
