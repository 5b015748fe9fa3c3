//! Streams with some kinds of records only.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    Test,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{Tracer, in_lab, sockstate, wait_until},
    observer::wait_for_states,
    resets,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    let kinds = vec![
        test("kinds: a trace has the kinds that were named, and no loss is silent", traced),
        test("kinds: each sink has its own kinds", sinks),
        test("kinds: a recording has the kinds that were named", recorded),
    ];
    kinds.into_iter().chain(resets::tests()).collect()
}

fn kinds(records: &[Value]) -> BTreeSet<&str> {
    records.iter().map(|record| record["kind"].as_str().expect("kind")).collect()
}

fn traced() {
    in_lab(|netns| {
        let port = fresh_port();
        let rule = ["--threshold", "CLOSE_WAIT=0", "--snapshot"];
        let mut all = Tracer::start(netns, &rule);
        let mut stuck = Tracer::start(netns, &[&rule[..], &["--records", "stuck,Resolved"]].concat());
        let mut moves = Tracer::start(netns, &[&rule[..], &["--records", "transitions"]].concat());
        let (listener, client, server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        stuck.wait_for(|record| record["kind"] == "stuck");
        all.wait_for(|record| record["kind"] == "stuck");
        drop((server, listener));
        stuck.wait_for(|record| record["kind"] == "resolved");
        all.wait_for(|record| record["kind"] == "resolved");
        let of_listener = |record: &Value| record["from"] == "LISTEN" && record["to"] == "CLOSE";
        // It may come before the record that says that the connection is no longer stuck.
        for tracer in [&mut moves, &mut all] {
            if !tracer.seen().iter().any(of_listener) {
                tracer.wait_for(of_listener);
            }
        }
        let (all, stuck, moves) = (all.stop().records, stuck.stop().records, moves.stop().records);
        assert!(kinds(&all).is_superset(&BTreeSet::from([
            "start",
            "transition",
            "stuck",
            "resolved",
            "stop"
        ])));
        let lost = |records: &[Value]| kinds(records).contains("lost");
        let expect = |records: &[Value], named: &[&'static str]| {
            let mut expected: BTreeSet<&str> = named.iter().copied().chain(["start", "stop"]).collect();
            expected.extend(lost(records).then_some("lost"));
            assert_eq!(kinds(records), expected);
        };
        expect(&stuck, &["stuck", "resolved"]);
        expect(&moves, &["transition"]);
        let transitions = |records: &[Value]| -> BTreeSet<String> {
            let of = records.iter().filter(|record| record["kind"] == "transition");
            of.map(|record| format!("{} {} {}", record["from"], record["to"], record["local"])).collect()
        };
        assert_eq!(transitions(&moves), transitions(&all));
    });
}

fn sinks() {
    in_lab(|netns| {
        let port = fresh_port();
        let some =
            "[sinks.some]\ntype = \"file\"\npath = \"DIR/some\"\nrecords = [\"stuck\", \"resolved\"]\n";
        let mut daemon = Raw::start(netns, &format!("{FILE}{some}"), |_| {});
        daemon.wait_for("\"kind\":\"start\"");
        connections(5, port);
        let read = |name: &str| fs::read_to_string(daemon.path(name)).unwrap_or_default();
        wait_until("the other sink has all of it", || {
            read("out").matches("\"to\":\"TIME_WAIT\"").count() >= 5
        });
        let paths = [daemon.path("out"), daemon.path("some")];
        assert!(daemon.end_now().success());
        let [all, some] = paths.map(|path| {
            let text = fs::read_to_string(path).expect("records");
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect::<Vec<Value>>()
        });
        assert!(kinds(&all).contains("transition"));
        let expected = BTreeSet::from(["start", "stuck", "resolved", "lost", "stop"]);
        assert!(kinds(&some).is_subset(&expected) && kinds(&some).contains("start"), "{some:?}");
        for (at, record) in some.iter().enumerate() {
            assert_eq!(record["seq"], at + 1, "numbered without a gap: {record}");
        }
    });
}

fn recorded() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("r.zst");
        let netns = netns.to_string();
        let mut record = sockstate();
        record.args([
            "record",
            "--alongside",
            "--netns",
            &netns,
            "--records",
            "stuck",
            "--duration",
            "300ms",
        ]);
        assert!(record.arg(&path).status().expect("sockstate").success());
        let replay = sockstate().args(["replay", "--format", "json"]).arg(&path).output().expect("replay");
        let text = String::from_utf8(replay.stdout).expect("UTF-8");
        let records: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert!(kinds(&records).is_subset(&BTreeSet::from(["start", "stuck", "lost", "stop"])), "{text}");
        assert!(kinds(&records).contains("start") && kinds(&records).contains("stop"), "{text}");
    });
}
