//! Reasons and holders by evidence: each test makes the evidence, and something that nearly is the evidence.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::fd::OwnedFd,
    process::{self, Command, Stdio},
};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{Tracer, in_lab, wait_until},
    look_test,
    observer::wait_for_states,
    queues::states_of,
    roles::{Actor, Sleeper},
    sockets::{Kind, drop_resets, forget, fresh_port, keep_over_exec, make_deaf, make_hear},
    stuck::{holders, look},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("reasons: a half-closed download is in use, and a leak is not", half_closed),
        look_test("reasons: half-closed, and the peer takes nothing", takes_nothing),
        look_test("reasons: a proxy that passes an end of file on is not accused", proxy),
        look_test("reasons: data before the FIN does not count as use of the connection", sent_before),
        look_test("reasons: inherited by a grandchild, given on purpose, or forked for it", inherited),
        look_test("reasons: a SYN is answered by challenge ACKs", challenge_acks),
        look_test("reasons: a trace names the child that holds its parent's connection", clients_child),
    ]
}

pub(crate) fn port_of(socket: &Socket) -> u64 {
    socket.local_addr().expect("address").as_socket().expect("IP").port().into()
}

/// The only socket in CLOSE_WAIT of a namespace.
pub(crate) fn only(netns: u64) -> Value {
    let mut found = look(netns, &["close-wait", "--older-than", "0"]);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

pub(crate) fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().expect("a text")
}

fn half_closed() {
    in_lab(|netns| {
        let (_listener, mut client, mut server) = Kind::V4.pair(fresh_port());
        client.shutdown(Shutdown::Write).expect("shutdown");
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        assert_eq!(only(netns)["reason"], "eof_unread", "nothing was sent");
        assert_eq!(server.read(&mut [0]).expect("read"), 0);
        let idle = only(netns);
        assert_eq!(idle["reason"], "not_closed", "nothing was sent: {idle}");
        let mut used = Value::Null;
        // A look may take longer than a second on a busy machine.
        wait_until("a look at once", || {
            server.write_all(b"answer").expect("write");
            client.read_exact(&mut [0; 6]).expect("read");
            used = only(netns);
            used["reason"] == "half_closed_sending"
        });
        assert!(text(&used, "why").contains("data was sent"), "{used}");
    });
}

fn takes_nothing() {
    in_lab(|netns| {
        let (_listener, client, mut server) = Kind::V4.pair(fresh_port());
        client.shutdown(Shutdown::Write).expect("shutdown");
        server.set_nonblocking(true).expect("nonblocking");
        while server.write(&[7; 1 << 16]).is_ok() {}
        // The connection is in use at first. Then a second passes without data.
        let mut last = Value::Null;
        wait_until("a closed window", || {
            last = only(netns);
            assert!(["half_closed_sending", "peer_takes_nothing"].contains(&text(&last, "reason")), "{last}");
            last["reason"] == "peer_takes_nothing"
        });
        assert_eq!(last["timer"]["name"], "persist", "{last}");
    });
}

fn proxy() {
    in_lab(|netns| {
        let front = fresh_port();
        let (_front, client, inside) = Kind::V4.pair(front);
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!((&inside).read(&mut [0]).expect("read"), 0);
        let port = front.to_string();
        let seen = || {
            let found = look(netns, &["close-wait", "--older-than", "0", "--local-port", &port]);
            (found[0]["reason"] == "not_closed").then(|| found[0].clone()).expect("the one inside")
        };
        // The other side is also shut down, but it belongs to the same connection.
        let alone = seen();
        assert!(!text(&alone, "why").contains("proxy"), "{alone}");
        assert!(text(&alone, "advice").contains("may leak"), "{alone}");
        let (_back, outside, _server) = Kind::V4.pair(fresh_port());
        outside.shutdown(Shutdown::Write).expect("shutdown");
        wait_for_states(&["LISTEN", "LISTEN", "FIN_WAIT2", "FIN_WAIT2", "CLOSE_WAIT", "CLOSE_WAIT"]);
        let tunnel = seen();
        assert!(text(&tunnel, "why").contains("proxy"), "{tunnel}");
        assert!(text(&tunnel, "advice").contains("tunnel"), "{tunnel}");
    });
}

/// The trace saw the arrival of the FIN.
fn sent_before() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--threshold", "CLOSE_WAIT=1"]);
        let (_listener, mut client, mut server) = Kind::V4.pair(fresh_port());
        server.write_all(b"answer").expect("write");
        client.read_exact(&mut [0; 6]).expect("read");
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("read"), 0);
        let first = tracer.wait_for(|record| record["kind"] == "stuck");
        assert_eq!(first["reason"], "not_closed", "{first}");
        tracer.stop();
    });
}

fn inherited() {
    in_lab(|netns| {
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let open = || {
            let client = Kind::V4.connect(port).expect("connect");
            (port_of(&client), listener.accept().expect("accept").0)
        };
        // A shell that starts a program and ends: init adopts it.
        let (orphaned, connection) = open();
        let fd = keep_over_exec(&connection);
        let shell = Command::new("sh")
            .args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"])
            .stdin(Stdio::null())
            .output()
            .expect("sh");
        let orphan: u32 = String::from_utf8_lossy(&shell.stdout).trim().parse().expect("pid");
        let orphan_guard = KillOnDrop(orphan);
        drop(connection);
        // The program gets the connection as inetd passes it.
        let (given, connection) = open();
        let input = Stdio::from(OwnedFd::from(connection));
        let server = Sleeper::spawn(Command::new("sleep").arg("600").stdin(input));
        // A server that forks for each connection: the holder runs the same program.
        let (forked, connection) = open();
        let mut worker = Actor::start("holder", keep_over_exec(&connection));
        worker.hear();
        drop(connection);
        wait_for_states(&[&["LISTEN"][..], &["CLOSE_WAIT"; 3], &["FIN_WAIT2"; 3]].concat());
        let found = look(netns, &["close-wait", "--older-than", "0"]);
        let of =
            |port: u64| found.iter().find(|record| record["remote"]["port"] == port).expect("one of them");
        let by_orphan = of(orphaned);
        assert_eq!(holders(by_orphan), [(u64::from(orphan), fd as u64)]);
        assert_eq!(by_orphan["reason"], "held_by_child", "{by_orphan}");
        assert!(text(by_orphan, "why").contains("may have inherited"), "{by_orphan}");
        assert_eq!(by_orphan["creator"]["pid"], process::id());
        assert_eq!(holders(of(given)), [(u64::from(server.pid()), 0)]);
        assert_eq!(of(given)["reason"], "eof_unread", "{}", of(given));
        assert_eq!(holders(of(forked))[0].0, u64::from(worker.pid()));
        assert_eq!(of(forked)["reason"], "eof_unread", "{}", of(forked));
        worker.end();
        drop((server, orphan_guard));
    });
}

/// A process that is not a child of the test. It is killed when the test ends, also if the test fails.
struct KillOnDrop(u32);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        crate::lab::signal(self.0, libc::SIGKILL);
    }
}

fn clients_child() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--threshold", "CLOSE_WAIT=1"]);
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        drop(listener);
        keep_over_exec(&client);
        let child = Sleeper::start();
        drop((client, server));
        let record = tracer.wait_for(|record| record["kind"] == "stuck");
        assert_eq!(holders(&record)[0].0, u64::from(child.pid()));
        assert_eq!(
            (&record["role"], &record["reason"]),
            (&"client".into(), &"held_by_child".into()),
            "{record}"
        );
        tracer.stop();
        drop(child);
    });
}

/// The peer still has the connection that this host has forgotten, and never gets the reset that would end it.
fn challenge_acks() {
    for kind in Kind::ALL {
        in_lab(|netns| {
            let port = fresh_port();
            let (_listener, client, server) = kind.pair(port);
            let local = port_of(&client) as u16;
            drop_resets(&server);
            forget(client);
            let again = kind.start_connect_from(local, port);
            let silent = fresh_port();
            let deaf = kind.listen(silent);
            make_deaf(&deaf);
            let _unanswered = kind.start_connect(silent);
            let mut found = Vec::new();
            wait_until("both SYNs are sent again", || {
                found = look(netns, &["stuck", "--state", "SYN_SENT", "--older-than", "0"]);
                found.len() == 2 && found.iter().all(|record| record["retransmits"].as_u64() > Some(0))
            });
            for record in &found {
                let is_answered = record["remote"]["port"] == port;
                let wanted = if is_answered { "answered_without_syn_ack" } else { "peer_not_answering" };
                assert_eq!(record["reason"], wanted, "{record}");
                assert_eq!(text(record, "why").contains("challenge ACKs"), is_answered, "{record}");
            }
            // The next reset ends the old connection, and the SYN after it is accepted.
            make_hear(&server);
            wait_until("the connection", || states_of(port_of(&again)) == ["ESTABLISHED"]);
        });
    }
}
