//! Listeners and their accept queues: who owns the queued connections, and what a full queue does.

use std::{io::Write, process};

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, can_list_holders, in_lab, sockstate, wait_until},
    look_test,
    netns::sysctl,
    observer::{proc_net_tcp, wait_for_states},
    reasons::{port_of, text},
    roles::Actor,
    sockets::{Kind, fresh_port, make_deaf, make_hear, option},
    stuck::look,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("reasons: a full accept queue drops SYNs", full_queue_drops_syns),
        look_test("reasons: a full accept queue drops the last ACK", full_queue_drops_acks),
        look_test("reasons: the kernel waits for data, or the last ACK is lost", deferred),
        look_test("listeners: the listener of the queue, or all candidates", reuseport),
        look_test("listeners: of two families on one port", families),
    ]
}

/// The states of the sockets with this local port.
pub(crate) fn states_of(port: u64) -> Vec<String> {
    let lines = proc_net_tcp().into_iter().filter(|line| u64::from(line.0) == port);
    lines.map(|line| line.2).collect()
}

fn full_queue_drops_syns() {
    in_lab(|netns| {
        let (port, other) = (fresh_port(), fresh_port());
        let listener = Kind::V4.listen_for(port, 1);
        let _first = Kind::V4.connect(port).expect("connect");
        let listening =
            || look(netns, &["sockets", "--state", "LISTEN", "--port", &port.to_string()]).remove(0);
        assert_eq!(listening()["backlog"]["full"], false, "at its limit: {}", listening());
        let _second = Kind::V4.connect(port).expect("connect");
        assert_eq!(listening()["backlog"]["full"], true, "{}", listening());
        let number = netns.to_string();
        let table = ["sockets", "--format", "table", "--state", "LISTEN", "--netns", &number];
        let output = sockstate().args(table).output().expect("sockstate");
        assert!(String::from_utf8_lossy(&output.stdout).contains("/1 full"), "{output:?}");
        // Another client, whose SYN is lost while the queue is full.
        let deaf = Kind::V4.listen(other);
        make_deaf(&deaf);
        let _dropped = Kind::V4.start_connect(port);
        let _lost = Kind::V4.start_connect(other);
        let mut found = Vec::new();
        wait_until("both SYNs are sent again", || {
            found = look(netns, &["stuck", "--state", "SYN_SENT", "--older-than", "0"]);
            found.len() == 2 && found.iter().all(|record| record["retransmits"].as_u64() > Some(0))
        });
        for record in &found {
            let is_full = record["remote"]["port"] == port;
            let wanted = if is_full { "accept_queue_full" } else { "peer_not_answering" };
            assert_eq!(record["reason"], wanted, "{record}");
            let whose = format!("({})", process::id());
            assert_eq!(text(record, "why").contains(&whose), is_full, "{record}");
            assert_eq!(record["listeners"][0]["full"], is_full, "{record}");
        }
        drop((listener, deaf));
    });
}

fn full_queue_drops_acks() {
    in_lab(|netns| {
        sysctl("ipv4/tcp_synack_retries", "5").expect("sysctl");
        let port = fresh_port();
        let listener = Kind::V4.listen_for(port, 1);
        let waits = Kind::V4.start_deaf_connect(port);
        wait_until("a request", || proc_net_tcp().iter().any(|line| line.2 == "SYN_RECV"));
        let _queued = [Kind::V4.connect(port).expect("connect"), Kind::V4.connect(port).expect("connect")];
        // The client receives the next SYN-ACK, and answers.
        make_hear(&waits);
        wait_until("its handshake", || states_of(port_of(&waits)) == ["ESTABLISHED"]);
        let found = look(netns, &["stuck", "--state", "SYN_RECV", "--older-than", "0"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["reason"], "accept_queue_full", "{found:?}");
        assert!(text(&found[0], "why").contains("has come and is dropped"), "{found:?}");
        assert_eq!(found[0]["creator"]["pid"], process::id());
        drop(listener);
    });
}

fn deferred() {
    in_lab(|netns| {
        let (port, other) = (fresh_port(), fresh_port());
        let listener = Kind::V4.listen(port);
        option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 60);
        let mut silent = Kind::V4.connect(port).expect("connect");
        // The last ACK of the other handshake is lost.
        let lossy = Kind::V4.listen(other);
        let lost = Kind::V4.start_deaf_connect(other);
        wait_until("requests", || proc_net_tcp().iter().filter(|line| line.2 == "SYN_RECV").count() == 2);
        make_deaf(&lossy);
        make_hear(&lost);
        wait_until("its handshake", || states_of(port_of(&lost)) == ["ESTABLISHED"]);
        let mut found = Vec::new();
        wait_until("the SYN-ACK would have been sent again", || {
            found = look(netns, &["stuck", "--state", "SYN_RECV", "--older-than", "0"]);
            assert_eq!(found.len(), 2, "{found:?}");
            found.iter().any(|record| record["reason"] == "deferred_accept")
        });
        for record in &found {
            let wanted =
                if record["local"]["port"] == port { "deferred_accept" } else { "handshake_unfinished" };
            assert_eq!(record["reason"], wanted, "{record}");
        }
        silent.write_all(b"x").expect("write");
        listener.accept().expect("accept");
        drop(lossy);
    });
}

fn reuseport() {
    for own_first in [true, false] {
        in_lab(|netns| {
            let port = fresh_port();
            let mut others = Vec::new();
            let mut start = |role: &str| {
                let mut actor = Actor::start(role, port);
                assert_eq!(actor.hear(), "listening");
                others.push(actor);
            };
            if !own_first {
                start("reuseport");
            }
            let blocked = Kind::V4.bind_shared(port);
            blocked.listen(64).expect("listen");
            if own_first {
                start("reuseport");
            }
            let mut tracer = Tracer::start(netns, &["--threshold", "CLOSE_WAIT=1"]);
            let waiting = || look(netns, &["close-wait", "--older-than", "0"]);
            wait_until("one that falls to the blocked listener", || {
                drop(Kind::V4.connect(port).expect("connect"));
                !waiting().is_empty()
            });
            wait_until("the other one accepts and closes its own", || {
                waiting().iter().all(|record| record["holders"] == Value::Array(Vec::new()))
            });
            for record in waiting() {
                assert_eq!(record["reason"], "never_accepted", "{record}");
                assert_eq!(record["creator"]["pid"], process::id(), "{record}");
            }
            let traced = tracer.wait_for(|record| record["kind"] == "stuck");
            assert_eq!(traced["creator"]["pid"], process::id(), "{traced}");
            // The listener is older than the trace.
            let owner = if can_list_holders() { process::id().into() } else { Value::Null };
            assert_eq!(traced["owner"]["pid"], owner, "{traced}");
            tracer.stop();
            // Two processes share the listener and accept nothing. A look cannot find out which of them should accept.
            start("idle reuseport");
            let idle = others.last().expect("started").pid();
            wait_until("one waits at each", || {
                drop(Kind::V4.connect(port).expect("connect"));
                let listening = look(netns, &["sockets", "--state", "LISTEN"]);
                listening.iter().filter(|record| record["backlog"]["queued"].as_u64() > Some(0)).count() == 2
            });
            let record = waiting().remove(0);
            assert_eq!(record["creator"], Value::Null, "{record}");
            assert_eq!(record["listeners"].as_array().map(Vec::len), Some(2), "{record}");
            for pid in [process::id(), idle] {
                assert!(text(&record, "advice").contains(&format!("({pid})")), "{record}");
            }
            let groups = look(netns, &["close-wait", "--older-than", "0", "--group-by", "process"]);
            let key = text(&groups[0], "key");
            assert!(key.starts_with("never accepted by ") && key.contains(" or "), "{key}");
        });
    }
}

fn families() {
    in_lab(|netns| {
        let port = fresh_port();
        // A dual-stack listener, and one on all IPv4 addresses, which the kernel prefers for IPv4.
        let mut dual = Actor::start("dual stack", port);
        assert_eq!(dual.hear(), "listening");
        let own = Kind::V4.bind_shared_any(port);
        own.listen(8).expect("listen");
        drop(Kind::V4.connect(port).expect("connect"));
        drop(Kind::V6.connect(port).expect("connect"));
        wait_for_states(&["LISTEN", "LISTEN", "CLOSE_WAIT", "CLOSE_WAIT", "FIN_WAIT2", "FIN_WAIT2"]);
        let found = look(netns, &["close-wait", "--older-than", "0"]);
        assert_eq!(found.len(), 2, "{found:?}");
        for record in found {
            let is_v4 = record["network"]["type"] == "ipv4";
            let wanted = if is_v4 { process::id() } else { dual.pid() };
            assert_eq!(record["creator"]["pid"], wanted, "{record}");
        }
        dual.end();
    });
}
