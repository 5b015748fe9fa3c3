//! What a connection has transferred: in the record of its end, compared with what this program did, and with what
//! bpftrace reads of the same socket at the same moment.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use socket2::Socket;

use crate::{
    Test,
    lab::{Tracer, in_lab},
    netns::sysctl,
    observer, skip,
    sockets::{Kind, fresh_port, reset_on_close},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for kind in Kind::ALL {
        tests.push(test(format!("traffic: bytes of both sides, {kind:?}"), move || both_sides(kind)));
        tests.push(test(format!("traffic: a reset with unread data, {kind:?}"), move || unread(kind)));
    }
    tests.push(test("traffic: SYNs that are not answered are retransmits", unanswered));
    tests.push(test("traffic: a listener has none", listener));
    tests.push(test("traffic: stuck and resolved have it, as ss shows it", stuck));
    tests
}

const KEYS: [&str; 5] = ["bytes", "segments", "retransmits", "rtt", "unread_bytes"];

const SCRIPT: &str = r#"
BEGIN { printf("ready\n"); }
tracepoint:sock:inet_sock_set_state
/args->protocol == 6 && args->newstate == 7 && args->oldstate != 10 && (args->sport == PORT || args->dport == PORT)/ {
    $tcp = (struct tcp_sock *)args->skaddr;
    printf("%d %d %llu %llu %llu %u %u %u %u %u %u\n", args->sport, args->dport, $tcp->bytes_sent,
        $tcp->bytes_retrans, $tcp->bytes_received, $tcp->segs_out, $tcp->segs_in, $tcp->total_retrans, $tcp->srtt_us,
        $tcp->rtt_min.s[0].v, $tcp->rcv_nxt - $tcp->copied_seq);
}
"#;

/// bpftrace's reading of the sockets with one port.
struct Reading {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Reading {
    /// `None` in a virtual machine, which has no bpftrace.
    fn start(port: u16) -> Option<Self> {
        if observer::is_in_vm() {
            return None;
        }
        let mut bpftrace = Command::new("bpftrace");
        bpftrace.args(["-e", &SCRIPT.replace("PORT", &port.to_string())]);
        let mut child = bpftrace.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("bpftrace");
        let mut reading = Self { lines: BufReader::new(child.stdout.take().expect("stdout")), child };
        while reading.line() != "ready" {}
        Some(reading)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).expect("bpftrace") > 0, "bpftrace has ended");
        line.trim().to_owned()
    }

    /// The keys of the records about both closed sockets, by the local port. `fin`: both have received a FIN.
    fn keys(&mut self, fin: bool) -> BTreeMap<u16, Value> {
        (0..2).map(|_| self.line()).map(|line| keys(&line, fin)).collect()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keys(line: &str, fin: bool) -> (u16, Value) {
    let fields: Vec<u64> = line.split(' ').map(|field| field.parse().expect("a number")).collect();
    let [local, _, sent, again, received, segs_out, segs_in, retransmits, srtt, rtt_min, unread] = fields[..]
    else {
        panic!("{line}");
    };
    let local = u16::try_from(local).expect("a port");
    let fin = u64::from(fin);
    let keys = json!({
        "bytes": { "sent": sent - again, "received": received - fin },
        "segments": { "sent": segs_out, "received": segs_in },
        "retransmits": retransmits,
        "rtt": {
            "smoothed_ns": (srtt != 0).then_some(srtt * 1000 / 8),
            "min_ns": (rtt_min != u64::from(u32::MAX)).then_some(rtt_min * 1000),
        },
        "unread_bytes": unread.saturating_sub(fin),
    });
    (local, keys)
}

fn traffic(record: &Value) -> Value {
    KEYS.iter().map(|key| ((*key).to_owned(), record[key].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn has_traffic(record: &Value) -> bool {
    record.get("bytes").is_some()
}

/// The record with the traffic of the connection of each role. Every connection has one.
fn ends(records: &[Value], port: u16) -> BTreeMap<String, Value> {
    let of_port = |record: &&Value| record["local"]["port"] == port || record["remote"]["port"] == port;
    let transitions = records.iter().filter(|record| record["kind"] == "transition").filter(of_port);
    let mut ends = BTreeMap::new();
    for record in transitions.filter(|record| has_traffic(record)) {
        assert!(["CLOSE", "TIME_WAIT"].contains(&record["to"].as_str().expect("state")), "{record}");
        let role = record["role"].as_str().expect("role").to_owned();
        assert!(ends.insert(role, record.clone()).is_none(), "twice: {record}");
    }
    ends
}

/// Compares the records with what bpftrace has read, if it runs. `fin`: both sides have received a FIN.
fn compare(ends: &BTreeMap<String, Value>, reading: Option<Reading>, fin: bool) {
    let Some(mut reading) = reading else { return };
    let seen = reading.keys(fin);
    for end in ends.values() {
        let local = end["local"]["port"].as_u64().expect("port") as u16;
        assert_eq!(traffic(end), seen[&local], "on the right is what bpftrace read");
    }
}

fn send(from: &mut Socket, to: &mut Socket, bytes: usize) {
    let mut read = vec![0; bytes];
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&vec![7; bytes]).expect("write"));
        to.read_exact(&mut read).expect("read");
    });
}

/// The client closes first: its record of TIME_WAIT and the server's record of CLOSE have the bytes.
fn both_sides(kind: Kind) {
    const REQUEST: usize = 123_457;
    const ANSWER: usize = 3_000_001;
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let reading = Reading::start(port);
        let (listener, mut client, mut server) = kind.pair(port);
        send(&mut client, &mut server, REQUEST);
        send(&mut server, &mut client, ANSWER);
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(server.read(&mut [0]).expect("end of file"), 0);
        drop(server);
        tracer.wait_for(|record| record["from"] == "LAST_ACK" && record["to"] == "CLOSE");
        drop((client, listener));
        let story = tracer.stop();
        let ends = ends(&story.records, port);
        assert_eq!(ends["client"]["bytes"], json!({ "sent": REQUEST, "received": ANSWER }));
        assert_eq!(ends["server"]["bytes"], json!({ "sent": ANSWER, "received": REQUEST }));
        for end in ends.values() {
            assert_eq!(end["unread_bytes"], 0, "{end}");
            assert!(end["rtt"]["smoothed_ns"].as_u64() >= end["rtt"]["min_ns"].as_u64(), "{end}");
        }
        compare(&ends, reading, true);
    });
}

/// The server closes with data that it has not read.
fn unread(kind: Kind) {
    const READ: usize = 1_000;
    const LEFT: usize = 2_345;
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let reading = Reading::start(port);
        let (listener, mut client, mut server) = kind.pair(port);
        client.write_all(&[7; READ + LEFT]).expect("write");
        server.read_exact(&mut [0; READ]).expect("read");
        let mut peeked = [std::mem::MaybeUninit::uninit(); LEFT];
        while server.peek(&mut peeked).expect("peek") < LEFT {}
        drop(server);
        tracer.wait_for(|record| record["cause"] == "reset_received");
        drop((client, listener));
        let story = tracer.stop();
        let ends = ends(&story.records, port);
        let bytes = |role: &str| (ends[role]["bytes"].clone(), ends[role]["unread_bytes"].clone());
        assert_eq!(bytes("server"), (json!({ "sent": 0, "received": READ + LEFT }), LEFT.into()));
        assert_eq!(bytes("client"), (json!({ "sent": READ + LEFT, "received": 0 }), 0.into()));
        compare(&ends, reading, false);
    });
}

/// A connect whose SYNs are not answered: how often the kernel sends one depends on its version.
fn unanswered() {
    in_lab(|netns| {
        sysctl("ipv4/tcp_syn_retries", "1").expect("sysctl");
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let _listener = Kind::V4.listen(port);
        let client = Kind::V4.start_deaf_connect(port);
        let end = tracer.wait_for(|record| record["from"] == "SYN_SENT" && record["to"] == "CLOSE");
        assert_eq!(end["cause"], "connect_timeout", "{end}");
        let retransmits = end["retransmits"].as_u64().expect("a number");
        assert!(retransmits >= 1, "{end}");
        assert_eq!(end["segments"], json!({ "sent": 1 + retransmits, "received": 0 }), "{end}");
        assert_eq!(end["bytes"], json!({ "sent": 0, "received": 0 }), "{end}");
        assert_eq!(end["rtt"], json!({ "smoothed_ns": null, "min_ns": null }), "{end}");
        drop(client);
        tracer.stop();
    });
}

fn listener() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        drop(Kind::V4.listen(fresh_port()));
        let end = tracer.wait_for(|record| record["from"] == "LISTEN");
        assert!(!has_traffic(&end), "{end}");
        tracer.stop();
    });
}

/// The value behind `key:` in what `ss -i` shows of the socket with this local port.
fn shown_by_ss(port: u16, key: &str) -> u64 {
    let filter = format!("sport = :{port}");
    let output = Command::new("ss").args(["-tinH", "state", "close-wait", &filter]).output().expect("ss");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let word = text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'));
    word.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{key}: {text}"))
}

/// The server is in CLOSE_WAIT, and then resets the connection.
fn stuck() {
    const REQUEST: usize = 20_000;
    const ANSWER: usize = 7_000;
    if observer::is_in_vm() {
        return skip("needs ss");
    }
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--threshold", "CLOSE_WAIT=0"]);
        let port = fresh_port();
        let (listener, mut client, mut server) = Kind::V4.pair(port);
        send(&mut client, &mut server, REQUEST);
        send(&mut server, &mut client, ANSWER);
        drop(client);
        let stuck = tracer.wait_for(|record| record["kind"] == "stuck");
        assert_eq!(stuck["local"]["port"], port, "{stuck}");
        assert_eq!(stuck["bytes"], json!({ "sent": ANSWER, "received": REQUEST }), "{stuck}");
        // Nothing is sent in CLOSE_WAIT.
        let segments =
            json!({ "sent": shown_by_ss(port, "segs_out"), "received": shown_by_ss(port, "segs_in") });
        assert_eq!(stuck["segments"], segments, "{stuck}");
        assert_eq!(shown_by_ss(port, "bytes_sent"), ANSWER as u64);
        assert_eq!((&stuck["total_retransmits"], &stuck["unread_bytes"]), (&json!(0), &json!(0)), "{stuck}");
        assert!(stuck["rtt"]["smoothed_ns"].as_u64() >= stuck["rtt"]["min_ns"].as_u64(), "{stuck}");
        reset_on_close(&server);
        drop((server, listener));
        let resolved = tracer.wait_for(|record| record["kind"] == "resolved");
        assert_eq!(resolved["to"], "CLOSE", "{resolved}");
        let story = tracer.stop();
        let of_server = |record: &&Value| record["role"] == "server" && record["to"] == "CLOSE";
        let end = story.of("transition").find(of_server).expect("the end");
        assert_eq!(traffic(&resolved), traffic(end));
        assert_eq!(resolved["bytes"], stuck["bytes"], "{resolved}");
    });
}
