//! The JSON Schemas, which are made of the types: they have the keys of the lines, and refuse what is no line.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use serde_json::{Map, Value, json};
use sockstate::{
    format::{Group, Json, Stamp, group_json, look_json, socket_json, stuck_json},
    model::{
        Address, Cgroup, ConnId, Connection, Container, Diagnosis, Elsewhere, Gap, GapKind, Holder, InState,
        Listener, Message, MptcpPart, Nat, Pod, PodWorkload, Process, Reason, Record, Role, Served,
        SocketEntry, SocketInfo, SocketReport, State, Stuck, Subject, Timer, TimerKind, Traffic, Tuple, Via,
        Watch, bounds::Cut,
    },
    wire::{self, Kind, Line},
};
use testkit::{golden, schema};

use crate::{
    corpus,
    wire::{read, written},
};

/// A schema, by the name of its file in docs.
fn document(name: &str) -> Value {
    let path = golden::file(&format!("../docs/{name}.schema.json"));
    serde_json::from_str(&std::fs::read_to_string(path).expect("schema")).expect("JSON")
}

/// A kind's line with only the keys that each line of the kind has.
fn least() -> [Line<'static>; 11] {
    [
        Line::new(Kind::Start(wire::Start::default())),
        Line::new(Kind::Snapshot(wire::Snapshot::default())),
        Line::new(Kind::Transition(wire::Transition::default())),
        Line::new(Kind::Connection(Box::default())),
        Line::new(Kind::Aggregate(wire::Aggregate::default())),
        Line::new(Kind::Resync(wire::Resync::default())),
        Line::new(Kind::Stuck(Box::default())),
        Line::new(Kind::Resolved(wire::Resolved::default())),
        Line::new(Kind::Reset(wire::Reset::default())),
        Line::new(Kind::Lost(wire::Lost::default())),
        Line::new(Kind::Stop(wire::Stop::default())),
    ]
}

type Seen<'s> = BTreeMap<*const Value, (&'s Map<String, Value>, BTreeSet<String>)>;

/// Notes the keys of each object in `value`, by the place in the schema that describes it.
fn note<'s>(root: &'s Value, node: &'s Value, value: &Value, seen: &mut Seen<'s>) {
    // A value that may be null is a choice between null and something else.
    let choices = node["anyOf"].as_array();
    let node =
        choices.and_then(|choices| choices.iter().find(|choice| choice["type"] != "null")).unwrap_or(node);
    let reference = node["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    let node = reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(node);
    match value {
        Value::Object(keys) => {
            let Some(properties) = node["properties"].as_object() else { return };
            let known = &mut seen.entry(std::ptr::from_ref(node)).or_insert((properties, BTreeSet::new())).1;
            known.extend(keys.keys().cloned());
            for (key, value) in keys {
                note(root, &properties[key], value, seen);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| note(root, &node["items"], item, seen)),
        _ => {}
    }
}

fn assert_all_keys(seen: &Seen<'_>) {
    for (properties, seen) in seen.values() {
        assert_eq!(properties.keys().collect::<BTreeSet<_>>(), seen.iter().collect(), "keys");
    }
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The corpus as values, stamped and not.
fn values() -> Vec<Value> {
    let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let stamp = Stamp { host: "web1", instance: 1, labels: &labels };
    let mut values = Vec::new();
    for mut json in [Json::default(), Json::stamped(&stamp), Json::default().sampled(100)] {
        let lines = corpus::records().into_iter().map(|record| written(&mut json, &record));
        values.extend(lines.map(|line| serde_json::from_str::<Value>(&line).expect("JSON")));
    }
    values
}

#[test]
fn the_schema_has_the_keys_that_the_types_have() {
    let schema = document("events");
    for line in least() {
        let value = serde_json::to_value(&line).expect("JSON");
        assert_eq!(
            keys(&value),
            texts(&schema["$defs"][line.kind.name()]["required"]),
            "{}",
            line.kind.name()
        );
    }
    let mut seen = BTreeMap::new();
    for mut value in values() {
        if !value["holders"].is_null() {
            // Only of a listener, which is never stuck.
            value["backlog"] = json!({"queued": 1, "limit": 2, "full": false});
            if !value["holders"][0]["serves"].is_null() {
                value["holders"][0]["serves"]["unit"] = "x.service".into();
            }
        }
        for state in ["state", "from", "to", "was"] {
            if value.get(state).is_some() {
                value[format!("{state}_number")] = 5.into();
            }
        }
        if !value["conn"].is_null() && value["kind"] != "connection" {
            value["mini"] = true.into();
        }
        let of_sockets = !value["conn"].is_null();
        let end = json!({"address": "10.0.0.3", "port": 8080});
        let id = "1:LQU9qZlK+B5F3KDmev6m5PMibrg=";
        let peer = json!({
            "kind": "pod", "namespace": "shop", "name": "db-0", "workload": {"kind": "StatefulSet", "name": "db"},
        });
        let of_workloads = of_sockets || value["kind"] == "aggregate";
        for (key, other, can_have) in [
            ("truncated", json!([{"field": "unit"}]), of_workloads),
            ("interface", json!({"index": 2, "name": "eth0"}), of_sockets),
            ("nat", json!({"local": end, "remote": end, "community_id": id}), of_sockets),
            ("peer", peer, of_sockets),
            ("pod", json!({"uid": "x"}), of_workloads),
            ("unit", json!("x.service"), of_workloads),
        ] {
            if can_have && value.get(key).is_none() {
                value[key] = other;
            }
        }
        // The types know these keys, too.
        let text = value.to_string();
        assert_eq!(serde_json::to_value(read(&text)).expect("JSON"), value);
        let kind = value["kind"].as_str().expect("a kind").to_owned();
        note(&schema, &schema["$defs"][&kind], &value, &mut seen);
    }
    assert!(seen.len() > 25, "{}", seen.len());
    assert_all_keys(&seen);
}

/// Fails unless each change of a valid line makes it invalid: another key, a key of another type, no key where the key
/// is required, a value that is not in the set.
fn assert_refused(is_valid: fn(&Value) -> bool, value: &Value, required: &BTreeSet<&str>) {
    let with = |key: &str, changed: Option<Value>| {
        let mut keys = value.as_object().expect("an object").clone();
        match changed {
            Some(changed) => keys.insert(key.into(), changed),
            None => keys.remove(key),
        };
        is_valid(&Value::Object(keys))
    };
    assert!(is_valid(value) && !with("other", Some(json!(1))), "{value}");
    for key in keys(value) {
        assert!(!with(key, Some(json!([[1]]))), "{key} of another type");
        assert!(!required.contains(key) || !with(key, None), "without {key}");
    }
    for key in [
        "kind",
        "state",
        "from",
        "to",
        "role",
        "cause",
        "reset_why",
        "place",
        "reason",
        "reasons",
        "opening",
        "closed_first",
    ] {
        assert!(value.get(key).is_none() || !with(key, Some(json!("other"))), "another {key}");
    }
}

#[test]
fn the_schema_refuses_what_is_no_record() {
    for value in values() {
        let least = least().into_iter().find(|line| value["kind"] == line.kind.name()).expect("a kind");
        let least = serde_json::to_value(&least).expect("JSON");
        assert_refused(schema::is_valid, &value, &keys(&least));
    }
}

#[test]
fn a_stuck_record_has_all_that_a_look_finds_or_nothing_of_it() {
    let values = values();
    let examined = values.iter().find(|value| value["kind"] == "stuck" && !value["reason"].is_null());
    let examined = examined.expect("an examined socket").as_object().expect("an object");
    let without = |absent: &[&str]| {
        let mut keys = examined.clone();
        keys.retain(|key, _| !absent.contains(&key.as_str()));
        schema::is_valid(&Value::Object(keys))
    };
    for key in ["holders", "creator", "timer", "retransmits", "unanswered_ns", "reason", "why", "commands"] {
        assert!(!without(&[key]), "without {key}");
    }
    // A listener has an accept queue, and no bytes.
    let (report, state) = (listener(false, None).report, State::Listen);
    let (tuple, subject) = (report.socket.tuple, subject());
    let (id, role) = (ConnId(1), Some(Role::Listener));
    let conn = Connection { id, role, tuple, nat: None, peer: None, subject, mini: false };
    let (age, found) = (InState { ns: 1, at_least: true }, Some(Box::new((report, diagnosis(None)))));
    let stuck = Stuck { time_ns: 0, conn, state, age, times: 1, before_trace: false, found, opened: None };
    let line = written(&mut Json::default(), &Record::Stuck(stuck));
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert!(!line["backlog"].is_null() && line.get("unread_bytes").is_none(), "{line}");
    schema::check(&line);
    assert!(!without(&["unread_bytes", "unsent_bytes"]), "no bytes of a connection");
}

fn container(id: &str, runtime: &'static str) -> Container {
    Container::new(id.into(), Some(runtime))
}

fn process(pid: u32) -> Arc<Process> {
    let named =
        Container { name: Some("web".into()), image: Some("nginx:1".into()), ..container("c1", "docker") };
    let (container, unit) = (Some(named), Some("x.service".to_owned()));
    let workload = Some(PodWorkload { kind: "Job".into(), name: "web".into() });
    let labels = [("app".to_owned(), "web".to_owned())].into();
    let (name, namespace) = (Some("web-1".into()), Some("shop".into()));
    let pod = Some(Pod { name, namespace, workload, labels, ..Pod::new("p1".into()) });
    let served = Served { netns: 7, container: container.clone(), pod: pod.clone(), unit: unit.clone() };
    Arc::new(Process {
        pid,
        comm: "server".into(),
        exe: Some("/bin/server".into()),
        cgroup: Some("/a".into()),
        container,
        pod,
        unit,
        serves: Some(Box::new(served)),
        ..Process::default()
    })
}

fn subject() -> Rc<Subject> {
    Rc::new(Subject {
        id: 0,
        owner: None,
        netns: Some(1),
        cgroup: Some(Cgroup { id: 7, path: Some("/machine.slice".into()) }),
        container: Some(container("db", "libvirt")),
        pod: Some(Pod::new("p2".into())),
        unit: Some("y.service".into()),
    })
}

fn tuple() -> Tuple {
    Tuple {
        local: Address::from_v4([10, 0, 0, 1]),
        remote: Address::from_v4([10, 0, 0, 2]),
        local_port: 80,
        remote_port: 81,
        v6_socket: false,
        interface: 2,
    }
}

/// A socket with every key that a socket can have, but for those of a listener.
fn full() -> SocketEntry {
    let holder = |via, watch| Holder { process: process(7), via, tid: Some(8), close_on_exec: None, watch };
    let report = SocketReport {
        age: Some(InState { ns: 5, at_least: true }),
        age_at_most_ns: Some(9),
        holders: vec![
            holder(Via::Descriptor(3), Some(Watch::Epoll(vec!["EPOLLIN"]))),
            holder(Via::IoUring(4), Some(Watch::NoEpoll)),
            holder(Via::Mapping, None),
        ],
        of_kernel: true,
        elsewhere: Some(Arc::new(Elsewhere {
            messages: vec![Message { process: process(9), fd: 3, count: 1 }],
            rings: Vec::new(),
        })),
        listeners: vec![Listener { queued: 1, backlog: 2, holders: [process(11)].into() }],
        nat: Some(Nat::of(&tuple())),
        unanswered_ns: Some(3),
        cut: vec![Cut { field: "holders", total: Some(9) }],
        ..SocketReport::new(SocketInfo {
            mini: true,
            interface: Some("eth0".into()),
            uid: Some(1000),
            timer: Some(Timer { kind: TimerKind::Keepalive, left_ns: 1 }),
            traffic: Some(Traffic::default()),
            mptcp: Some(MptcpPart::Subflow { token: Some(0xab) }),
            ..SocketInfo::bare(1, State::Unknown(42), tuple())
        })
    };
    SocketEntry { report, subject: subject() }
}

/// A listener, whose tables could be read or not.
fn listener(is_partial: bool, mptcp: Option<MptcpPart>) -> SocketEntry {
    let socket = SocketInfo { is_partial, mptcp, ..SocketInfo::bare(1, State::Listen, tuple()) };
    SocketEntry { report: SocketReport::new(socket), subject: subject() }
}

fn diagnosis(cannot_destroy: Option<&str>) -> Diagnosis {
    Diagnosis {
        reason: Reason::NotClosed,
        why: "why".into(),
        advice: "advice".into(),
        commands: vec!["ss -t".into()],
        more_commands: 0,
        cannot_destroy: cannot_destroy.map(str::to_owned),
    }
}

/// The lines of looks: of each kind with all keys, and with only those that each line of the kind has.
fn look_lines() -> (Vec<Value>, Vec<Value>) {
    let time = "2026-11-26T00:00:00.000000000Z";
    let value = |line: String| serde_json::from_str::<Value>(&line).expect("JSON");
    let (full, listener_of_mptcp) =
        (full(), listener(false, Some(MptcpPart::Whole { token: None, subflows: 2 })));
    let mut unsure = full.clone();
    unsure.report.may_be_stuck = true;
    let all = Diagnosis { more_commands: 1, ..diagnosis(Some("it ends")) };
    let group = |key: String| Group {
        key,
        count: 2,
        oldest_ns: Some(1),
        unread_bytes: 0,
        states: BTreeMap::from([("CLOSE_WAIT", 2)]),
        reasons: BTreeMap::from([("not_closed", 2)]),
    };
    let gap = |why: String| [Gap::new(GapKind::Processes, why)];
    let lines = [
        socket_json(&full, time),
        socket_json(&listener_of_mptcp, time),
        stuck_json(&unsure, &all, time),
        stuck_json(&listener_of_mptcp, &all, time),
        group_json(&group("x".repeat(5000)), time),
        look_json(Some(1), &gap("y".repeat(2000)), time),
    ];
    // What was cut, and where the socket was created, is not in every line.
    let mut bare = listener(true, None);
    bare.report.socket.tuple.interface = 0;
    bare.subject = Rc::new(Subject { container: None, pod: None, unit: None, ..(*bare.subject).clone() });
    let least = [
        socket_json(&bare, time),
        stuck_json(&bare, &diagnosis(None), time),
        group_json(&group("x".into()), time),
        look_json(None, &gap("y".into()), time),
    ];
    (lines.map(value).into(), least.map(value).into())
}

#[test]
fn the_schema_of_a_look_has_the_keys_of_its_lines() {
    let schema = document("look");
    let (lines, least) = look_lines();
    let mut seen = BTreeMap::new();
    for line in &lines {
        schema::check(line);
        note(&schema, &schema["$defs"][line["kind"].as_str().expect("a kind")], line, &mut seen);
    }
    assert_eq!(schema["oneOf"].as_array().map(Vec::len), Some(least.len()));
    for line in &least {
        schema::check(line);
        let kind = line["kind"].as_str().expect("a kind");
        assert_eq!(keys(line), texts(&schema["$defs"][kind]["required"]), "{kind}");
    }
    assert!(seen.len() > 15, "{}", seen.len());
    assert_all_keys(&seen);
}

#[test]
fn the_schema_of_a_look_refuses_what_is_no_line() {
    let (lines, least) = look_lines();
    for line in lines.iter().chain(&least) {
        let least = least.iter().find(|least| least["kind"] == line["kind"]).expect("a kind");
        assert_refused(schema::is_valid_look, line, &keys(least));
    }
    let mut socket = lines[0].clone();
    for (place, wrong) in [
        ("/holders/0/fd", Value::Null),
        ("/holders/0/epoll/0", json!("EPOLLET")),
        ("/local/port", json!(0)),
        ("/network/transport", json!("udp")),
        ("/timer/name", json!("off")),
        ("/made_in/container/runtime", json!("other")),
        ("/truncated", json!([])),
        ("/mini", json!(false)),
        ("/time", json!("2026-11-26")),
    ] {
        let value = socket.pointer_mut(place).expect("a value");
        let right = std::mem::replace(value, wrong);
        assert!(!schema::is_valid_look(&socket), "{place}");
        *socket.pointer_mut(place).expect("a value") = right;
        assert!(schema::is_valid_look(&socket), "{place}");
    }
}
