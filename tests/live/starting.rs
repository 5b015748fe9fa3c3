//! Connections that come and go while the tracer starts, and filters that hide a part of what happens.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Test,
    lab::{Story, Tracer, in_lab, wait_until},
    netns::sysctl,
    observer::{is_in_vm, proc_net_tcp},
    owners::cgroup2_mount,
    resync::believed,
    roles::Actor,
    skip,
    sockets::{Kind, fresh_port, make_deaf},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("starting: under load every connection is reported once, in its state", under_load),
        test("filters: connects that were refused, and no others", refused_only),
        test("filters: what a filter hides is not stuck", hidden_is_not_stuck),
        test("filters: a cgroup that is made again", remade_cgroup),
    ]
}

/// The number of connections that stay open before [`churn`] slows down.
const MANY: usize = 4000;

/// Connects and closes until `is_over`. Returns the connections that stay open.
fn churn(port: u16, is_over: &AtomicBool) -> Vec<[socket2::Socket; 2]> {
    let listener = Kind::V4.listen(port);
    let mut open = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        for stays in [true, false] {
            let client = Kind::V4.connect(port).expect("connect");
            let server = listener.accept().expect("accept").0;
            if stays {
                open.push([client, server]);
            }
        }
        // On a busy machine, a start may take so long that descriptors or ports would run out.
        let pause_ms = if open.len() < MANY { 1 } else { 50 };
        thread::sleep(Duration::from_millis(pause_ms));
    }
    open
}

/// The record of a refused connect shows how far the stream has come.
fn catch_up(tracer: &mut Tracer) {
    let nobody = fresh_port();
    Kind::V4.connect(nobody).expect_err("nobody listens");
    tracer.wait_for(|record| record["remote"]["port"] == nobody && record["to"] == "CLOSE");
}

/// The states in which the load leaves its connections.
const SETTLED: [&str; 2] = ["ESTABLISHED", "TIME_WAIT"];

fn under_load() {
    if is_in_vm() {
        skip("an emulated machine is so slow that TIME_WAIT runs out while the tables are compared");
        return;
    }
    let port = fresh_port();
    in_lab(|netns| {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let load = scope.spawn(|| churn(port, &is_over));
            // Sockets that the walk at the start finds.
            wait_until("connections", || proc_net_tcp().len() > 50);
            let mut tracer = Tracer::start(netns, &["--snapshot"]);
            // Waits for a connection of the load that begins after the start: then everything that was in the ring
            // before has come.
            tracer.wait_for(|record| record["from"] == "CLOSE" && record["remote"]["port"] == port);
            is_over.store(true, Ordering::Relaxed);
            let open = load.join().expect("the load");
            // On a busy machine a softirq may handle the last FIN later.
            wait_until("the end of all closes", || {
                proc_net_tcp().iter().all(|(_, _, state)| SETTLED.contains(&&**state))
            });
            catch_up(&mut tracer);
            assert_eq!(believed(tracer.seen()), proc_net_tcp());
            let story = tracer.stop();
            assert_eq!(story.of("lost").count(), 0);
            let resyncs: Vec<&Value> = story.of("resync").collect();
            assert!(resyncs.is_empty(), "{resyncs:#?}");
            is_told_once(&story);
            assert!(story.of("snapshot").count() > 50);
            drop(open);
        });
    });
}

/// The local and the remote port.
type Ports = (Option<u64>, Option<u64>);

/// Checks that each pair of endpoints has one identity at a time, that the connections of the snapshot continue, and
/// that no transition is older than the start.
fn is_told_once(story: &Story) {
    let port = |record: &Value, end: &str| record[end]["port"].as_u64();
    // When each connection of a pair of endpoints came into the stream.
    let mut conns: HashMap<Ports, BTreeMap<&str, &str>> = HashMap::new();
    let mut ended: HashMap<&str, &str> = HashMap::new();
    let mut last: HashMap<&str, &str> = HashMap::new();
    let begin = story.records[0]["time"].as_str().expect("time");
    for record in &story.records {
        let conn = record["conn"].as_str().unwrap_or_default();
        match record["kind"].as_str() {
            Some("snapshot") => {
                assert!(last.insert(conn, record["state"].as_str().expect("state")).is_none(), "{record}");
            }
            Some("transition") => {
                assert!(record["time"].as_str() >= Some(begin), "{record}");
                if let Some(known) = last.insert(conn, record["to"].as_str().expect("state")) {
                    assert_eq!(record["from"], known, "{record}");
                } else {
                    assert!(record["from"] == "CLOSE" || record["from"] == "LISTEN", "{record}");
                }
            }
            _ => continue,
        }
        let time = record["time"].as_str().expect("time");
        if record["to"] == "CLOSE" {
            ended.insert(conn, time);
        }
        if port(record, "local").is_some() {
            conns
                .entry((port(record, "local"), port(record, "remote")))
                .or_default()
                .entry(conn)
                .or_insert(time);
        }
    }
    // On a slow machine, the load takes so long that it uses a port again.
    for (ends, conns) in &conns {
        let mut conns: Vec<_> =
            conns.iter().map(|(conn, first)| (*first, ended.get(conn).copied())).collect();
        conns.sort_unstable();
        let is_one_at_a_time = conns.windows(2).all(|two| two[0].1.is_some_and(|end| end <= two[1].0));
        assert!(is_one_at_a_time, "{ends:?}: {conns:?}");
    }
}

/// Successful connects between refused ones. The kernel uses the memory of ended sockets for the next ones.
fn refused_only() {
    let (port, nobody) = (fresh_port(), fresh_port());
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--from", "SYN_SENT", "--to", "CLOSE", "--resync", "500ms"]);
        let listener = Kind::V4.listen(port);
        let mut open = Vec::new();
        for round in 0..200 {
            let client = Kind::V4.connect(port).expect("connect");
            let server = listener.accept().expect("accept").0;
            match round % 3 {
                0 => open.push((client, server)),
                1 => drop((client, server)),
                _ => drop((server, client)),
            }
            if round % 50 == 0 {
                Kind::V4.connect(nobody).expect_err("nobody listens");
            }
        }
        for _ in 0..4 {
            tracer.wait_for(|record| record["kind"] == "transition");
        }
        let story = tracer.stop();
        for record in story.transitions() {
            assert_eq!(
                (&record["remote"]["port"], &record["cause"]),
                (&nobody.into(), &"refused".into()),
                "{record}"
            );
            assert!(record["in_state_ns"].as_u64().is_some(), "{record}");
        }
        assert_eq!(story.transitions().count(), 4);
        assert_eq!(story.of("resync").count() + story.of("stuck").count(), 0, "{:#?}", story.records);
        drop(open);
    });
}

/// With a filter on the local port, the kernel programs hide the transitions after a connect from another port.
fn hidden_is_not_stuck() {
    let port = fresh_port();
    in_lab(|netns| {
        for filter in ["--local-port", "--port"] {
            let mut tracer = Tracer::start(
                netns,
                &[filter, "40000-40001", "--threshold", "SYN_SENT=1", "--resync", "500ms"],
            );
            // This connection is established from a port that the filter excludes.
            sysctl("ipv4/ip_local_port_range", "41000 41999").expect("sysctl");
            let other = Kind::V4.pair(port);
            // Then a connection that is stuck in SYN_SENT.
            sysctl("ipv4/ip_local_port_range", "40000 40001").expect("sysctl");
            let deaf = Kind::V4.listen(port + 1);
            make_deaf(&deaf);
            let client = Kind::V4.start_connect(port + 1);
            let record = tracer.wait_for(|record| record["kind"] == "stuck");
            assert_eq!(
                (&record["state"], &record["remote"]["port"]),
                (&"SYN_SENT".into(), &(port + 1).into()),
                "{record}"
            );
            drop((other, client));
            let story = tracer.stop();
            for record in story.of("stuck").chain(story.of("resync")) {
                assert_eq!(record["remote"]["port"], port + 1, "{record}");
            }
        }
    });
}

/// The cgroup is new, as at each start of a unit. A process outside of it is never listed, a process in it always.
fn remade_cgroup() {
    let Some(mount) = cgroup2_mount() else {
        skip("no cgroup v2 is mounted");
        return;
    };
    let name = format!("sockstate-again-{}.service", std::process::id());
    let group = mount.join(&name);
    let port = fresh_port();
    let result = std::panic::catch_unwind(|| {
        in_lab(|netns| {
            std::fs::create_dir(&group).expect("make the cgroup");
            let mut tracer = Tracer::start(netns, &["--cgroup", &format!("/{name}")]);
            for round in 0..3 {
                let outside = Kind::V4.listen(port + 100 + round);
                let mut inside = Actor::start("late listener", port + round);
                std::fs::write(group.join("cgroup.procs"), inside.pid().to_string()).expect("move into it");
                inside.go_on();
                assert_eq!(inside.hear(), "listening");
                inside.kill();
                let record = tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
                assert_eq!(record["local"]["port"], port + round, "{record}");
                drop(outside);
                wait_until("the cgroup is empty", || std::fs::remove_dir(&group).is_ok());
                std::fs::create_dir(&group).expect("make the cgroup again");
            }
            let story = tracer.stop();
            for record in story.transitions() {
                assert_eq!(record["cgroup"]["path"], format!("/{name}"), "{record}");
            }
            assert_eq!(story.transitions().count(), 6);
        });
    });
    // Removes the cgroup, also if the test has failed.
    let _ = std::fs::remove_dir(&group);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
