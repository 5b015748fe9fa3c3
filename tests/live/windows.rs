//! What windows say about the connections that ended in them: compared with what this program sent, with the counter of its
//! network namespace, and with the records of the connections.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
};

use serde_json::{Value, json};

use crate::{
    Test,
    daemon::Daemon,
    lab::{in_lab, wait_until},
    netns::sysctl,
    schema,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![test("windows: bytes, retransmits and handshakes are exact", exact)]
}

/// The sums of several records.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    sent: u64,
    received: u64,
    retransmits: u64,
    handshakes: u64,
    handshakes_ns: u64,
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// By role, what the windows say.
fn of_windows(records: &[Value]) -> BTreeMap<String, Sums> {
    let mut all: BTreeMap<String, Sums> = BTreeMap::new();
    for record in records.iter().filter(|record| record["kind"] == "aggregate") {
        let sums = all.entry(record["role"].to_string()).or_default();
        sums.sent += number(&record["bytes"]["sent"]);
        sums.received += number(&record["bytes"]["received"]);
        sums.retransmits += number(&record["retransmits"]);
        let buckets = record["handshake"]["buckets"].as_array();
        sums.handshakes += buckets.into_iter().flatten().map(|bucket| number(&bucket["count"])).sum::<u64>();
        sums.handshakes_ns += number(&record["handshake"]["sum_ns"]);
        let has_ended = record["to"] == "TIME_WAIT" || record["to"] == "CLOSE";
        assert!(has_ended || record.get("bytes").is_none(), "{record}");
        assert_eq!(record.get("handshake").is_some(), record["to"] == "ESTABLISHED", "{record}");
    }
    all
}

/// By role, what the records of the connections say.
fn of_connections(records: &[Value]) -> BTreeMap<String, Sums> {
    let mut all: BTreeMap<String, Sums> = BTreeMap::new();
    for record in records.iter().filter(|record| record["kind"] == "connection") {
        let sums = all.entry(record["role"].to_string()).or_default();
        sums.sent += number(&record["bytes"]["sent"]);
        sums.received += number(&record["bytes"]["received"]);
        sums.retransmits += number(&record["retransmits"]);
        sums.handshakes += u64::from(record.get("handshake_ns").is_some());
        sums.handshakes_ns += number(&record["handshake_ns"]);
    }
    all
}

/// Segments that this network namespace has sent again.
fn retransmitted() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let mut words = || lines.next().expect("a line").split_whitespace();
    let (names, values) = (words(), words());
    let found = names.zip(values).find(|(name, _)| *name == "RetransSegs").expect("the counter");
    found.1.parse().expect("a number")
}

/// Pairs that send a request and an answer, and one connect that nobody answers. One window has a row for each peer, in the
/// other all but one are counted together.
fn exact() {
    const PAIRS: u64 = 12;
    const REQUEST: usize = 3_001;
    const ANSWER: usize = 70_003;
    in_lab(|netns| {
        sysctl("ipv4/tcp_syn_retries", "1").expect("sysctl");
        let port = fresh_port();
        let file = |name: &str, more: &str| {
            format!("[sinks.{name}]\ntype = \"file\"\npath = \"DIR/{name}\"\n{more}\n")
        };
        let sinks = [
            file("counted", "aggregate = \"1h\""),
            file("few", "aggregate = \"1h\"\naggregate-keys = 1"),
            file("short", "aggregate = \"50ms\""),
            file("connections", "records = [\"connections\"]"),
        ];
        let mut daemon = Daemon::start(netns, port, &sinks.concat());
        let listener = Kind::V4.listen(port);
        for at in 0..PAIRS {
            let mut client = Kind::V4.connect(port).expect("connect");
            let (mut server, _) = listener.accept().expect("accept");
            client.write_all(&[7; REQUEST]).expect("write");
            server.read_exact(&mut [0; REQUEST]).expect("read");
            std::thread::scope(|scope| {
                scope.spawn(|| server.write_all(&[7; ANSWER]).expect("write"));
                client.read_exact(&mut [0; ANSWER]).expect("read");
            });
            if at % 2 == 0 { drop((client, server)) } else { drop((server, client)) }
        }
        // A listener would answer each SYN, and the namespace counts its answers, too.
        drop(listener);
        let deaf = Kind::V4.start_deaf_connect(port);
        daemon.tracer.wait_for(|record| record["cause"] == "connect_timeout");
        drop(deaf);
        let path = daemon.path("connections");
        wait_until("each has its record", || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            text.matches("\"kind\":\"connection\"").count() as u64 == 2 * PAIRS + 1
        });
        let again = retransmitted();
        let (_, directory) = daemon.stop();
        let read = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(directory.path().join(name)).expect(name);
            let records = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
            records.inspect(schema::check).collect()
        };
        let expected = of_connections(&read("connections"));
        let (client, server) = (&expected["\"client\""], &expected["\"server\""]);
        let [request, answer] = [REQUEST, ANSWER].map(|bytes| PAIRS * bytes as u64);
        assert_eq!((client.sent, client.received), (request, answer));
        assert_eq!((server.sent, server.received), (answer, request));
        assert_eq!((client.handshakes, server.handshakes), (PAIRS, PAIRS));
        assert_eq!(client.retransmits + server.retransmits, again, "by the namespace's own counter");
        assert!(client.retransmits >= 1, "{client:?}");
        for name in ["counted", "few", "short"] {
            let records = read(name);
            let mut found = of_windows(&records);
            // The listener has a row, too.
            found.remove("\"listener\"");
            assert_eq!(found, expected, "{name}");
        }
        let counted = read("counted");
        let row = |role: &str, from: &str| {
            let is_row = |record: &&Value| record["role"] == role && record["from"] == from;
            counted.iter().find(is_row).cloned().unwrap_or_else(|| panic!("no row of {role} {from}"))
        };
        let timed_out = row("client", "SYN_SENT");
        assert_eq!(timed_out["peer"]["address"], "127.0.0.1");
        let half = |bytes: usize| PAIRS / 2 * bytes as u64;
        let ended = row("server", "LAST_ACK");
        assert_eq!((&ended["count"], &ended["port"]), (&json!(PAIRS / 2), &json!(port)), "{ended}");
        assert_eq!(ended["bytes"], json!({ "sent": half(ANSWER), "received": half(REQUEST) }), "{ended}");
    });
}
