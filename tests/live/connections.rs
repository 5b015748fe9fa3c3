//! The records of whole connections: compared with the transitions of the same trace, and with what this program did.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::Shutdown,
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    Test, interims,
    lab::{Tracer, in_lab, sockstate, wait_until},
    netns::sysctl,
    observer::wait_for_states,
    restart::{DaemonFiles, end, kill, reported_pair, state_files},
    sockets::{Kind, fresh_port, reset_on_close},
    test, windows,
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kind in Kind::ALL {
        tests
            .push(test(format!("connections: one record for each side, {kind:?}"), move || both_sides(kind)));
    }
    tests.push(test("connections: refused, unanswered and half-open ones", never_established));
    tests.push(test("connections: a flood of attempts has few records, and is counted exactly", flood));
    tests.push(test("connections: a reset has its cause, and nobody closed first", reset));
    tests.push(test("connections: one that is older than the trace says so", older));
    tests.push(test("connections: a filter by states takes those with such a change", by_states));
    tests
        .push(test("connections: rows of CSV have the columns of tcplife, and those of the table 120", rows));
    tests.push(test("connections: restart: the path goes on in the next daemon", goes_on));
    tests.push(test("connections: restart: killed, each has one record, or is in doubt", killed));
    tests.extend(interims::tests());
    tests.extend(windows::tests());
    tests
}

const KINDS: [&str; 2] = ["--records", "transitions,connections"];

fn is_connection(record: &Value) -> bool {
    record["kind"] == "connection"
}

/// The path that the transitions of one connection tell, up to TIME_WAIT or CLOSE; `None` if it has not ended.
fn told(transitions: &[&Value]) -> Option<Vec<Value>> {
    let mut path = Vec::new();
    for step in transitions {
        let (from, to) = (&step["from"], &step["to"]);
        if from != "CLOSE" && from != "LISTEN" {
            path.push(json!({ "state": from, "ns": step["in_state_ns"] }));
        }
        if to == "TIME_WAIT" {
            path.push(json!({ "state": to }));
        }
        if to == "TIME_WAIT" || to == "CLOSE" {
            return Some(path);
        }
    }
    None
}

/// Every connection that has ended by its transitions has exactly one record, which says the same as the transitions.
/// Returns how many there are.
pub(crate) fn compare_with_transitions(records: &[Value]) -> usize {
    let mut transitions: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let mut connections: BTreeMap<&str, &Value> = BTreeMap::new();
    let mut corrected = BTreeSet::new();
    for record in records {
        let Some(conn) = record["conn"].as_str() else { continue };
        match record["kind"].as_str() {
            Some("transition") if record["role"] != "listener" && record["to"] != "LISTEN" => {
                transitions.entry(conn).or_default().push(record);
            }
            // What was lost or hidden was corrected.
            Some("resync") => _ = corrected.insert(conn),
            Some("connection") => assert!(connections.insert(conn, record).is_none(), "twice: {record}"),
            _ => {}
        }
    }
    let counted = records.iter().filter(|record| record["of_connections"] == true);
    let counted: u64 = counted.map(|record| record["count"].as_u64().expect("count")).sum();
    let mut unrecorded = 0;
    for conn in &corrected {
        transitions.remove(conn);
        let found = connections.remove(conn);
        assert!(found.is_none_or(|connection| connection["incomplete"] == true), "{found:?}");
    }
    for (conn, steps) in &transitions {
        // The end of TIME_WAIT alone: the connection is older than the trace.
        if steps[0]["from"] == "TIME_WAIT" || steps[0]["from"] == "LISTEN" && steps[0]["to"] == "CLOSE" {
            continue;
        }
        let (path, found) = (told(steps), connections.remove(conn));
        let Some(path) = path else {
            assert!(found.is_none(), "it goes on: {found:?}");
            continue;
        };
        let Some(connection) = found else {
            let is_attempt = |step: &Value| step["state"] == "SYN_SENT" || step["state"] == "SYN_RECV";
            assert!(path.iter().all(is_attempt), "no record: {steps:#?}");
            unrecorded += 1;
            continue;
        };
        assert_eq!(connection["path"], json!(path), "{steps:#?}");
        let end =
            steps.iter().find(|step| step["to"] == "TIME_WAIT" || step["to"] == "CLOSE").expect("an end");
        assert_eq!((&connection["end"], &connection["time"]), (&end["time"], &end["time"]));
        for key in [
            "errno",
            "reset_why",
            "bytes",
            "segments",
            "retransmits",
            "rtt",
            "unread_bytes",
            "local",
            "remote",
        ] {
            assert_eq!(connection.get(key), end.get(key), "{key}: {connection}");
        }
        assert_eq!(connection["cause"], end.get("cause").cloned().unwrap_or_default(), "{connection}");
        let sum: u64 = path.iter().filter_map(|step| step["ns"].as_u64()).sum();
        assert_eq!(connection["duration_ns"], sum, "{connection}");
        if steps[0]["from"] == "CLOSE" || steps[0]["from"] == "LISTEN" {
            assert_eq!(connection["begin"], steps[0]["time"]);
        }
    }
    assert_eq!(unrecorded, counted, "each has a record or is counted");
    assert!(connections.is_empty(), "without transitions: {connections:#?}");
    transitions.len()
}

fn states(connection: &Value) -> Vec<&str> {
    connection["path"].as_array().expect("path").iter().filter_map(|step| step["state"].as_str()).collect()
}

/// The client closes first, after both have sent something.
fn both_sides(kind: Kind) {
    const REQUEST: usize = 54_321;
    const ANSWER: usize = 200_003;
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &KINDS);
        let port = fresh_port();
        let (listener, mut client, mut server) = kind.pair(port);
        client.write_all(&vec![1; REQUEST]).expect("write");
        server.read_exact(&mut vec![0; REQUEST]).expect("read");
        std::thread::scope(|scope| {
            scope.spawn(|| server.write_all(&vec![2; ANSWER]).expect("write"));
            client.read_exact(&mut vec![0; ANSWER]).expect("read");
        });
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(server.read(&mut [0]).expect("end of file"), 0);
        drop(server);
        let at_server = tracer.wait_for(|record| is_connection(record) && record["role"] == "server");
        let is_clients = |record: &Value| is_connection(record) && record["role"] == "client";
        let at_client = match tracer.seen().iter().find(|record| is_clients(record)) {
            Some(seen) => seen.clone(),
            None => tracer.wait_for(is_clients),
        };
        drop((client, listener));
        let story = tracer.stop();
        assert_eq!(compare_with_transitions(&story.records), 2);
        assert_eq!(states(&at_client).last(), Some(&"TIME_WAIT"));
        assert_eq!(states(&at_client)[..3], ["SYN_SENT", "ESTABLISHED", "FIN_WAIT1"]);
        assert_eq!(states(&at_server), ["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"]);
        assert_eq!(
            (&at_client["closed_first"], &at_server["closed_first"]),
            (&json!("local"), &json!("remote"))
        );
        assert_eq!(at_client["bytes"], json!({ "sent": REQUEST, "received": ANSWER }));
        assert_eq!(at_server["bytes"], json!({ "sent": ANSWER, "received": REQUEST }));
        for connection in [&at_client, &at_server] {
            assert_eq!(connection["handshake_ns"], connection["path"][0]["ns"], "{connection}");
            assert_eq!(connection["owner"]["pid"], std::process::id(), "{connection}");
            assert_eq!(connection["exact"], true, "{connection}");
            assert!(
                connection.get("incomplete").is_none() && connection.get("at_least").is_none(),
                "{connection}"
            );
            assert_eq!(connection["cause"], "fin", "{connection}");
        }
        assert_eq!(at_client["network"], at_server["network"], "both have one community id");
    });
}

fn never_established() {
    in_lab(|netns| {
        sysctl("ipv4/tcp_syn_retries", "1").expect("sysctl");
        sysctl("ipv4/tcp_synack_retries", "0").expect("sysctl");
        let mut tracer = Tracer::start(netns, &["--records", "connections"]);
        let port = fresh_port();
        Kind::V4.connect(port).expect_err("nobody listens");
        let refused = tracer.wait_for(is_connection);
        assert_eq!((&refused["cause"], &refused["errno"]), (&json!("refused"), &json!("ECONNREFUSED")));
        assert_eq!(states(&refused), ["SYN_SENT"]);
        assert_eq!(refused["segments"]["sent"], 1, "{refused}");
        // The client drops the SYN-ACK: its connect times out, and the request expires.
        let listener = Kind::V4.listen(port);
        let client = Kind::V4.start_deaf_connect(port);
        let mut ends = BTreeMap::new();
        while ends.len() < 2 {
            let end = tracer.wait_for(is_connection);
            ends.insert(end["role"].as_str().expect("role").to_owned(), end);
        }
        assert_eq!(ends["client"]["cause"], "connect_timeout");
        assert!(ends["client"]["retransmits"].as_u64() >= Some(1), "{}", ends["client"]);
        assert_eq!(
            (states(&ends["server"]), &ends["server"]["cause"]),
            (vec!["SYN_RECV"], &json!("expired"))
        );
        for end in ends.values().chain([&refused]) {
            assert!(end.get("handshake_ns").is_none() && end["closed_first"].is_null(), "{end}");
        }
        drop((client, listener));
        let kinds: Vec<Value> = tracer.stop().records.iter().map(|record| record["kind"].clone()).collect();
        assert!(!kinds.contains(&json!("transition")), "{kinds:?}");
    });
}

/// Refused connects, and requests that nobody completes.
fn flood() {
    const REFUSED: u64 = 3000;
    const REQUESTS: usize = 250;
    in_lab(|netns| {
        sysctl("ipv4/tcp_syn_retries", "1").expect("sysctl");
        sysctl("ipv4/tcp_synack_retries", "0").expect("sysctl");
        let began = Instant::now();
        let mut tracer = Tracer::start(netns, &KINDS);
        let (dead, port) = (fresh_port(), fresh_port());
        for _ in 0..REFUSED {
            Kind::V4.connect(dead).expect_err("nobody listens");
        }
        let listener = Kind::V4.listen(port);
        let clients: Vec<_> = (0..REQUESTS).map(|_| Kind::V4.start_deaf_connect(port)).collect();
        let mut connects = REQUESTS;
        while connects > 0 {
            tracer.wait_for(|record| record["cause"] == "connect_timeout" && record["kind"] == "transition");
            connects -= 1;
        }
        drop((clients, listener));
        let last = fresh_port();
        Kind::V4.connect(last).expect_err("nobody listens");
        // Its record may be in a count.
        tracer.wait_for(|record| record["to"] == "CLOSE" && record["remote"]["port"] == last);
        let records = tracer.stop().records;
        assert!(compare_with_transitions(&records) as u64 > REFUSED + REQUESTS as u64);
        let refused =
            records.iter().filter(|record| is_connection(record) && record["remote"]["port"] == dead);
        let counted = records.iter().filter(|record| record["cause"] == "refused" && record["port"] == dead);
        let counted: u64 = counted.filter_map(|record| record["count"].as_u64()).sum();
        assert_eq!(refused.clone().count() as u64 + counted, REFUSED);
        let limit = 100 * (began.elapsed().as_secs() + 2);
        let written = connections(&records).len() as u64;
        assert!(written <= limit, "{written} of at most {limit}");
    });
}

fn reset() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &KINDS);
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        reset_on_close(&client);
        drop(client);
        let mut causes = BTreeMap::new();
        while causes.len() < 2 {
            let end = tracer.wait_for(is_connection);
            assert_eq!((states(&end).last(), &end["closed_first"]), (Some(&"ESTABLISHED"), &Value::Null));
            causes.insert(end["role"].to_string(), (end["cause"].clone(), end["reset_why"].clone()));
        }
        assert_eq!(causes["\"client\""], (json!("reset_sent"), json!("linger")));
        assert_eq!(causes["\"server\""].0, "reset_received");
        drop((server, listener));
        compare_with_transitions(&tracer.stop().records);
    });
}

fn older() {
    in_lab(|netns| {
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        let mut tracer = Tracer::start(netns, &["--records", "connections"]);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop(server);
        for _ in 0..2 {
            let end = tracer.wait_for(is_connection);
            assert_eq!(
                (&end["at_least"], &end["path"][0]["state"]),
                (&json!(true), &json!("ESTABLISHED")),
                "{end}"
            );
            assert!(end.get("handshake_ns").is_none() && end.get("incomplete").is_none(), "{end}");
            assert!(end["duration_ns"].as_u64() > Some(0), "{end}");
        }
        drop(listener);
        tracer.stop();
    });
}

/// `--to CLOSE_WAIT` takes the connection that the peer closed first, with its whole path.
fn by_states() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--records", "connections", "--to", "CLOSE_WAIT"]);
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        reset_on_close(&client);
        drop((client, server, listener));
        let port = fresh_port();
        let (listener, client, server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop((server, listener));
        let end = tracer.wait_for(is_connection);
        assert_eq!(states(&end), ["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"]);
        assert_eq!(end["local"]["port"], port);
        let story = tracer.stop();
        assert_eq!(story.of("connection").count(), 1);
    });
}

/// `replay` writes what `trace` would have written.
fn replayed(records: &[Value], format: &str) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    for record in records {
        writeln!(file, "{record}").expect("write");
    }
    let mut replay = sockstate();
    replay.args(["replay", "--records", "connections", "--format", format]).arg(file.path());
    let output = replay.output().expect("replay");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

fn rows() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &KINDS);
        let port = fresh_port();
        let (listener, mut client, mut server) = Kind::V4.pair(port);
        client.write_all(&[7; 5000]).expect("write");
        server.read_exact(&mut [0; 5000]).expect("read");
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop((server, listener));
        for _ in 0..2 {
            tracer.wait_for(is_connection);
        }
        let records = tracer.stop().records;
        let [header, rows @ ..] = &replayed(&records, "csv")[..] else { panic!("no header") };
        assert_eq!(header, "PID,COMM,IP,LADDR,LPORT,RADDR,RPORT,TX_KB,RX_KB,MS");
        assert_eq!(rows.len(), 2, "{rows:?}");
        for row in rows {
            let cells: Vec<&str> = row.split(',').collect();
            let pid = std::process::id().to_string();
            assert_eq!((cells[0], cells[2], cells[3], cells[5]), (&*pid, "4", "127.0.0.1", "127.0.0.1"));
            let ports = [cells[4], cells[6]].map(|port| port.parse::<u16>().expect("a port"));
            assert!(ports.contains(&port), "{row}");
            let kilobytes = if ports[0] == port { ("0", "4") } else { ("4", "0") };
            assert_eq!((cells[7], cells[8]), kilobytes, "{row}");
            assert!(cells[9].parse::<f64>().expect("ms") > 0.0);
        }
        let table = replayed(&records, "table");
        assert!(
            table[0].contains("SENT") && table[0].contains("LASTED") && !table[0].contains("FROM"),
            "{table:?}"
        );
        assert_eq!(
            table.iter().filter(|row| row.contains("4.8k") || row.contains("5.0k")).count(),
            2,
            "{table:#?}"
        );
        assert_eq!(table.iter().filter(|row| row.contains("fin, remote")).count(), 1, "{table:#?}");
        assert!(table.iter().all(|row| row.len() <= 120), "{table:#?}");
    });
}

/// The kinds of records in the file of a daemon.
const FILE_KINDS: Option<&str> = Some(r#"["transitions", "connections", "resyncs"]"#);

fn connections(records: &[Value]) -> Vec<&Value> {
    records.iter().filter(|record| is_connection(record)).collect()
}

fn goes_on() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(mut files) = DaemonFiles::new(port) else { return };
        files.kinds = FILE_KINDS;
        files.configure(netns, port, "");
        let first = files.start(1);
        let (listener, client, server) = reported_pair(&files, port);
        end(first);
        drop(client);
        wait_for_states(&["LISTEN", "CLOSE_WAIT", "FIN_WAIT2"]);
        let second = files.start(2);
        drop((server, listener));
        wait_until("both ends are recorded", || connections(&files.records()).len() == 2);
        end(second);
        let records = files.records();
        assert_eq!(compare_with_transitions(&records), 2);
        for connection in connections(&records) {
            assert!(
                connection.get("incomplete").is_none() && connection.get("at_least").is_none(),
                "{connection}"
            );
            assert!(connection["handshake_ns"].as_u64() > Some(0), "{connection}");
        }
    });
}

/// Connections that end before and after the daemon is killed.
fn killed() {
    const ENDED: usize = 20;
    in_lab(|netns| {
        let port = fresh_port();
        let Some(mut files) = DaemonFiles::new(port) else { return };
        files.kinds = FILE_KINDS;
        files.configure(netns, port, "");
        let first = files.start(1);
        let listener = Kind::V4.listen(port);
        let open = || {
            let client = Kind::V4.connect(port).expect("connect");
            (client, listener.accept().expect("accept").0)
        };
        let stays = open();
        let others: Vec<_> = (0..ENDED).map(|_| open()).collect();
        // Some of them may be in the saved table when they end.
        wait_until("the state is saved", || !state_files(&files.pin, ".state").is_empty());
        for (client, server) in others {
            reset_on_close(&client);
            drop((client, server));
        }
        wait_until("the ends are recorded", || connections(&files.records()).len() == 2 * ENDED);
        kill(first);
        let second = files.start(2);
        reset_on_close(&stays.0);
        drop(stays);
        drop(listener);
        wait_until("the last ends are recorded", || connections(&files.records()).len() >= 2 * ENDED + 2);
        end(second);
        let records = files.records();
        let all = connections(&records);
        let conns: BTreeSet<&str> = all.iter().filter_map(|record| record["conn"].as_str()).collect();
        assert_eq!((conns.len(), all.len()), (2 * ENDED + 2, 2 * ENDED + 2), "each has one record");
        let in_doubt: u64 = records
            .iter()
            .filter(|record| record["kind"] == "lost" && record["place"] == "crash")
            .filter_map(|record| record["in_doubt"].as_u64())
            .sum();
        assert!(in_doubt <= 2 * ENDED as u64, "{in_doubt}");
    });
}
