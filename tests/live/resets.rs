//! Resets for which there is no socket, compared with the connects that were refused and the segments that were answered.

use std::{io::Write, time::Instant};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{Story, Tracer, in_lab},
    reasons::port_of,
    skip,
    sockets::{Kind, forget, fresh_port},
    test,
    tun::{ACK, Peer, RST, Wire},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("resets: closed ports, and connections that are not known", one_for_each),
        test("resets: an ACK from nowhere, and a reset that is not answered", from_nowhere),
        test("resets: of a flood the first have records, and all are counted", flood),
        test("resets: the filter by port applies", filtered),
    ]
}

/// A tracer of resets, if this kernel shows them.
fn start(netns: u64, more: &[&str]) -> Option<Tracer> {
    let tracer = Tracer::start(netns, &[&["--records", "resets"], more].concat());
    let degraded = tracer.first()["degraded"].to_string();
    if degraded.contains("no records of resets") {
        skip(&degraded);
        return None;
    }
    Some(tracer)
}

/// What a reset's record says: its ends, and the flags of the segment.
fn answered(story: &Story) -> Vec<String> {
    let of = |record: &Value| {
        let [local, remote] = ["local", "remote"].map(|side| record[side].clone());
        format!(
            "{} {}:{} {}:{} {}",
            record["network"]["type"],
            local["address"],
            local["port"],
            remote["address"],
            remote["port"],
            record["flags"]
        )
    };
    let mut all: Vec<String> =
        story.of("reset").filter(|record| record.get("local").is_some()).map(of).collect();
    all.sort();
    all
}

fn wanted(kind: Kind, local: u64, remote: u64, flags: &str) -> String {
    let (address, family) = (kind.address_text(), kind.network_type());
    format!("\"{family}\" \"{address}\":{local} \"{address}\":{remote} {flags}")
}

fn counted(story: &Story) -> u64 {
    story.of("reset").filter_map(|record| record["count"].as_u64()).sum()
}

fn refused(result: std::io::Result<Socket>) {
    assert_eq!(result.expect_err("refused").raw_os_error(), Some(libc::ECONNREFUSED));
}

fn one_for_each() {
    in_lab(|netns| {
        let Some(tracer) = start(netns, &[]) else { return };
        let mut expected = Vec::new();
        for kind in Kind::ALL {
            let (closed, from) = (fresh_port(), fresh_port());
            refused(kind.connect_from(from, closed));
            expected.push(wanted(kind, closed.into(), from.into(), "[\"SYN\"]"));
            // This host forgets the server's end, and the client sends data.
            let port = fresh_port();
            let (listener, mut client, server) = kind.pair(port);
            drop(listener);
            forget(server);
            client.write_all(b"?").expect("write");
            expected.push(wanted(kind, port.into(), port_of(&client), "[\"PSH\",\"ACK\"]"));
            // Its end is a reset with a socket.
            let (_listener, client, server) = kind.pair(fresh_port());
            client.set_linger(Some(std::time::Duration::ZERO)).expect("linger");
            drop((client, server));
        }
        let story = tracer.stop();
        expected.sort();
        assert_eq!(answered(&story), expected);
        assert_eq!(counted(&story), expected.len() as u64);
        for record in story.of("reset") {
            assert_eq!((&record["netns"], &record["count"]), (&netns.into(), &1.into()), "{record}");
        }
    });
}

fn from_nowhere() {
    in_lab(|netns| {
        let mut wire = match Wire::new() {
            Ok(wire) => wire,
            Err(error) => return skip(&format!("no TUN device: {error}")),
        };
        let Some(tracer) = start(netns, &[]) else { return };
        let peer = Peer { from: fresh_port(), to: fresh_port(), seq: 1000, ack: 2000 };
        wire.say(&peer.segment(RST));
        wire.say(&peer.segment(RST | ACK));
        wire.say(&peer.segment(ACK));
        let answer = wire.hear_flags(RST);
        assert_eq!((answer.from, answer.to, answer.seq), (peer.to, peer.from, peer.ack));
        let story = tracer.stop();
        let all: Vec<&Value> = story.of("reset").collect();
        assert_eq!(all.len(), 1, "{all:#?}");
        assert_eq!(all[0]["flags"], serde_json::json!(["ACK"]), "{}", all[0]);
        assert_eq!(all[0]["local"]["port"], peer.to, "{}", all[0]);
        assert_eq!(all[0]["remote"]["port"], peer.from, "{}", all[0]);
    });
}

fn flood() {
    const FLOOD: u64 = 3000;
    /// Records in a second.
    const MOST: u64 = 100;
    in_lab(|netns| {
        let Some(tracer) = start(netns, &[]) else { return };
        let closed = fresh_port();
        let begun = Instant::now();
        for _ in 0..FLOOD {
            refused(Kind::V4.connect(closed));
        }
        // The first and the last second are parts of a second.
        let seconds = begun.elapsed().as_secs() + 2;
        let story = tracer.stop();
        let written = answered(&story).len() as u64;
        assert_eq!(counted(&story), FLOOD, "{written} have records");
        assert!((MOST..=seconds * MOST).contains(&written), "{written} records in {seconds} s");
        let numbers = story.of("reset").filter(|record| record.get("local").is_none()).count() as u64;
        assert!((1..=seconds).contains(&numbers), "{numbers} numbers in {seconds} s");
    });
}

fn filtered() {
    in_lab(|netns| {
        let (one, other) = (fresh_port(), fresh_port());
        let Some(tracer) = start(netns, &["--local-port", &one.to_string()]) else { return };
        for kind in Kind::ALL {
            refused(kind.connect(one));
            refused(kind.connect(other));
        }
        let story = tracer.stop();
        assert_eq!(counted(&story), Kind::ALL.len() as u64);
        for record in story.of("reset") {
            assert_eq!(record["local"]["port"], one, "{record}");
        }
    });
}
