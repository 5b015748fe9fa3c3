//! Ages of states, compared with what the test knows: lower and upper bounds, and unknown ages.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};

use crate::{
    Test,
    lab::{Tracer, in_lab, sockstate, wait_until},
    look_test,
    observer::wait_for_states,
    schema, skip,
    sockets::{Kind, fresh_port, make_deaf, option},
    test, time_namespaces,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("ages: answers to keepalive probes hide an age, and the look says so", hidden),
        look_test("ages: a half-open connection whose client repeats its SYN", repeated_syns),
        test("ages: in a time namespace", time_namespace),
        test("ages: a cgroup outside of a private cgroup namespace has no path", cgroup_namespace),
    ]
}

/// The records of a look, checked against the schema, its text, and its exit code.
fn look(netns: u64, args: &[&str]) -> (Vec<Value>, String, Option<i32>) {
    let netns = netns.to_string();
    let output = sockstate().args(args).args(["--netns", &netns]).output().expect("sockstate");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    records.iter().for_each(schema::check);
    (records, text, output.status.code())
}

fn ns(record: &Value, key: &str) -> Duration {
    Duration::from_nanos(record[key].as_u64().unwrap_or_else(|| panic!("no {key} in {record}")))
}

/// Sends a keepalive probe each second.
fn probe(socket: &Socket) {
    let often = TcpKeepalive::new().with_time(Duration::from_secs(1)).with_interval(Duration::from_secs(1));
    SockRef::from(socket).set_tcp_keepalive(&often).expect("keepalive");
}

fn hidden() {
    in_lab(|netns| {
        let begun = Instant::now();
        let port = fresh_port();
        let (_listener, client, server) = Kind::V4.pair(port);
        probe(&client);
        probe(&server);
        let quiet_port = fresh_port();
        let (_quiet_listener, quiet_client, quiet_server) = Kind::V4.pair(quiet_port);
        client.shutdown(std::net::Shutdown::Write).expect("shutdown");
        wait_for_states(&["LISTEN", "LISTEN", "ESTABLISHED", "ESTABLISHED", "FIN_WAIT2", "CLOSE_WAIT"]);
        let since = Instant::now();
        thread::sleep(Duration::from_secs(4));
        // Another connection enters its state only now. It was as quiet as the first one before, but it sends no
        // keepalive probes.
        drop(quiet_client);
        let json = ["stuck", "--older-than", "3s", "--format", "json"];
        let waited = since.elapsed();
        let (records, ..) = look(netns, &json);
        let of = |port: u16| {
            records
                .iter()
                .filter(move |record| record["local"]["port"] == port || record["remote"]["port"] == port)
        };
        assert_eq!(of(port).count(), 2, "{records:#?}");
        for record in of(port) {
            assert_eq!(
                (&record["may_be_stuck"], &record["age_at_least"]),
                (&true.into(), &true.into()),
                "{record}"
            );
            assert!(ns(record, "age_ns") < Duration::from_secs(3), "{record}");
            // The kernel counts in milliseconds, or in ticks of up to ten.
            assert!(
                ns(record, "age_at_most_ns") + Duration::from_millis(20)
                    >= waited - Duration::from_millis(500)
            );
            assert!(ns(record, "age_at_most_ns") <= begun.elapsed() + Duration::from_millis(20), "{record}");
        }
        if begun.elapsed() < Duration::from_secs(6) {
            assert_eq!(of(quiet_port).count(), 0, "{records:#?}");
        }
        let (_, text, code) = look(netns, &["close-wait", "--check", "--older-than", "3s"]);
        assert_eq!(code, Some(3), "{text}");
        assert!(text.starts_with("SOCKSTATE UNKNOWN - 0 sockets stuck; 1 may be"), "{text}");
        let (_, text, _) = look(netns, &["stuck", "--older-than", "3s", "--format", "table"]);
        assert!(text.contains("not known: at least") && text.contains(" ?>"), "{text}");
        // The state is certainly younger than an hour, because the handshake is.
        let (records, text, code) = look(netns, &["close-wait", "--check", "--older-than", "1h"]);
        assert_eq!((records.len(), code), (0, Some(0)), "{text}");
        drop((client, server, quiet_server));
    });
}

fn repeated_syns() {
    in_lab(|netns| {
        let port = fresh_port();
        let _listener = Kind::V4.listen(port);
        let begun = Instant::now();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        make_deaf(&client);
        // TCP_USER_TIMEOUT shortens only the last interval between two SYNs.
        option(&client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 9000);
        client.set_nonblocking(true).expect("nonblocking");
        let _ = client.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into());
        let mut oldest = Duration::ZERO;
        let mut answers = 0;
        wait_until("SYN-ACKs are sent again, and the timer runs out", || {
            let (records, ..) = look(netns, &["sockets", "--format", "json"]);
            let elapsed = begun.elapsed();
            for record in records
                .iter()
                .filter(|record| ["SYN_RECV", "SYN_SENT"].contains(&record["state"].as_str().unwrap_or("")))
            {
                let age = record["age_ns"].as_u64().map(Duration::from_nanos).unwrap_or_default();
                assert!(age <= elapsed, "{age:?} in {elapsed:?}: {record}");
                if record["state"] == "SYN_RECV" {
                    oldest = oldest.max(age);
                    answers = answers.max(record["retransmits"].as_u64().expect("number"));
                }
            }
            elapsed > Duration::from_secs(7)
        });
        assert!(answers >= 2, "{answers} SYN-ACKs were sent again");
        assert!(oldest >= Duration::from_secs(1), "a bound that says something: {oldest:?}");
    });
}

/// The clocks of this time namespace are a day or more ahead of the kernel's own clocks.
fn time_namespace() {
    if !time_namespaces::exist() {
        return;
    }
    in_lab(|netns| {
        let mut tracer = in_time_namespace(netns);
        let port = fresh_port();
        let (_listener, client, server) = Kind::V4.pair(port);
        let before = jiff::Timestamp::now();
        drop(client);
        let closed = tracer.wait_for(|record| record["to"] == "CLOSE_WAIT");
        let after = jiff::Timestamp::now();
        let time: jiff::Timestamp = closed["time"].as_str().expect("time").parse().expect("time");
        let slack = jiff::SignedDuration::from_millis(50);
        assert!(time >= before - slack && time <= after + slack, "{before} {time} {after}");
        // The tracer has identified the process: for that it compares the process's start with /proc of the time
        // namespace.
        assert!(closed["owner"]["exe"].is_string(), "{closed}");
        let stuck = tracer.wait_for(|record| record["kind"] == "stuck");
        let age = ns(&stuck, "age_ns");
        assert!(age >= Duration::from_secs(1) && age < Duration::from_secs(20), "{stuck}");
        drop(server);
        tracer.stop();
    });
}

/// Starts the tracer in this time namespace.
fn in_time_namespace(netns: u64) -> Tracer {
    let mut command = sockstate();
    command.args(["trace", "--format", "json", "--alongside", "--threshold", "CLOSE_WAIT=1"]);
    command.args(["--netns", &netns.to_string()]);
    time_namespaces::enter(&mut command, "monotonic 86400 0\nboottime 172800 0\n".to_owned());
    Tracer::spawn(&mut command)
}

/// A look from a cgroup namespace whose root is not the root of the hierarchy.
fn cgroup_namespace() {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let Some(mount) = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| fields[1].to_owned())
    }) else {
        return skip("no cgroup v2 hierarchy is mounted");
    };
    let own = format!("{mount}/sockstate-test-{}", std::process::id());
    if fs::create_dir(&own).is_err() {
        return skip("cannot make a cgroup here");
    }
    let outside = in_lab(|netns| {
        // The listener is created in the cgroup of the test, which the cgroup namespace of the look does not contain.
        let listener = Kind::V4.listen(fresh_port());
        let script = format!(
            "echo $$ > {own}/cgroup.procs && exec unshare --cgroup --mount sh -c 'umount -l {mount}; mount -t cgroup2 none {mount} && \
             exec {} sockets --format json --netns {netns}'",
            env!("CARGO_BIN_EXE_sockstate")
        );
        let output = Command::new("sh").args(["-c", &script]).output();
        drop(listener);
        output
    });
    wait_until("the cgroup is empty", || fs::remove_dir(&own).is_ok());
    let output = outside.expect("sh");
    if !output.status.success() {
        return skip(&format!("unshare --cgroup: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let record: Value = serde_json::from_str(text.lines().next().expect("a socket")).expect("JSON");
    assert!(record["cgroup"].is_null() || record["cgroup"]["path"].is_null(), "{record}");
}
