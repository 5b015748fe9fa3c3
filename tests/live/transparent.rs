//! Connections that a transparent proxy (TPROXY) accepts, although its listener has another port.

use std::process;

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, in_lab},
    look_test,
    observer::wait_for_states,
    reasons::port_of,
    roles::Actor,
    skip,
    sockets::{Kind, fresh_port, option},
    stuck::look,
    tools,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![look_test("listeners: a transparent one, and another's on the connection's port", transparent)]
}

/// Another process listens on the port that clients connect to. A rule redirects connections to this port to the
/// listener of the test.
fn transparent() {
    in_lab(|netns| {
        let Some(mut nft) = tools::find("nft", "nftables") else { return };
        let (ours, port) = (fresh_port(), fresh_port());
        let mut other = Actor::start("idle reuseport", port);
        assert_eq!(other.hear(), "listening");
        let mut tracer = Tracer::start(netns, &["--threshold", "CLOSE_WAIT=1"]);
        // The other process's listener gets one connection, and the test's listener gets another.
        let direct = Kind::V4.connect(port).expect("connect");
        let listener = Kind::V4.listen(ours);
        option(&listener, libc::SOL_IP, libc::IP_TRANSPARENT, 1);
        let rule = format!(
            "table ip t {{ chain c {{ type filter hook prerouting priority -150; tcp dport {port} tproxy to 127.0.0.1:{ours}; }}; }}"
        );
        if !nft.arg(rule).status().expect("nft").success() {
            drop(tracer);
            return skip("this kernel has no TPROXY for nftables");
        }
        let accepted_client = Kind::V4.connect(port).expect("connect");
        let accepted = listener.accept().expect("accept").0;
        let waiting = Kind::V4.connect(port).expect("connect");
        let [direct_port, accepted_port, waiting_port] = [&direct, &accepted_client, &waiting].map(port_of);
        drop((direct, accepted_client, waiting));
        wait_for_states(&[&["LISTEN"; 2][..], &["CLOSE_WAIT"; 3], &["FIN_WAIT2"; 3]].concat());
        let (we, they) = (u64::from(process::id()), u64::from(other.pid()));
        let found = look(netns, &["close-wait", "--older-than", "0"]);
        let of = |records: &[Value], port: u64| {
            records.iter().find(|record| record["remote"]["port"] == port).expect("one of them").clone()
        };
        let creator = |record: &Value| record["creator"]["pid"].as_u64();
        let (waits, waits_there) = (of(&found, waiting_port), of(&found, direct_port));
        assert_eq!((&waits["reason"], creator(&waits)), (&"never_accepted".into(), Some(we)), "{waits}");
        assert_eq!(creator(&waits_there), Some(they), "{waits_there}");
        let held = of(&found, accepted_port);
        assert_eq!((&held["holders"][0]["pid"], creator(&held)), (&we.into(), None), "{held}");
        assert_eq!(held["listeners"][0]["holders"][0]["pid"], we, "{held}");
        // A trace has seen the listener of each connection, and keeps this evidence.
        for (port, pid) in [(direct_port, they), (accepted_port, we), (waiting_port, we)] {
            let is_conn = |record: &Value| {
                record["kind"] == "stuck"
                    && record["remote"]["port"] == port
                    && record["state"] == "CLOSE_WAIT"
            };
            if !tracer.poll(is_conn) {
                tracer.wait_for(is_conn);
            }
            let stuck = tracer.seen().iter().find(|record| is_conn(record)).expect("stuck");
            assert_eq!(stuck["owner"]["pid"], pid, "{stuck}");
        }
        drop((accepted, listener));
        other.end();
        tracer.stop();
    });
}
