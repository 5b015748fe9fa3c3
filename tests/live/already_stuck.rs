//! Connections that were stuck before the trace began.

use std::process::{self, Child, Stdio};

use socket2::Socket;

use crate::{
    Test,
    lab::{Lines, Tracer, in_lab, signal, sockstate},
    observer::wait_for_states,
    roles::Actor,
    sockets::{Kind, fresh_port, keep_over_exec},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("already stuck: --pid shows those of this process only", filtered),
        test("already stuck: a table sums them up, and shows what comes later", summed_up),
    ]
}

/// More connections to `port` whose servers' ends wait in CLOSE_WAIT; `before` of them are there already.
fn close_waits(listener: &Socket, port: u16, before: usize, count: usize) -> Vec<Socket> {
    let servers = (0..count)
        .map(|_| {
            drop(Kind::V4.connect(port).expect("connect"));
            listener.accept().expect("accept").0
        })
        .collect();
    let all = before + count;
    wait_for_states(&[&["LISTEN"][..], &vec!["CLOSE_WAIT"; all], &vec!["FIN_WAIT2"; all]].concat());
    servers
}

fn filtered() {
    in_lab(|netns| {
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut servers = close_waits(&listener, port, 0, 4);
        // One of them belongs to another process alone.
        let other = servers.pop().expect("a socket");
        let other_port = other.peer_addr().expect("peer").as_socket().expect("IP").port();
        let mut holder = Actor::start("holder", keep_over_exec(&other));
        assert_eq!(holder.hear(), "here");
        drop(other);

        let rule = ["--threshold", "CLOSE_WAIT=0"];
        let stuck_of = |tracer: &Tracer| -> Vec<u64> {
            let stuck = tracer.seen().iter().filter(|record| record["kind"] == "stuck");
            let close_wait = stuck.filter(|record| record["state"] == "CLOSE_WAIT" && record["times"] == 1);
            close_wait.map(|record| record["remote"]["port"].as_u64().expect("port")).collect()
        };
        let mut all = Tracer::start(netns, &rule);
        let (own_pid, other_pid) = (process::id().to_string(), holder.pid().to_string());
        let mut own = Tracer::start(netns, &[&rule[..], &["--pid", &own_pid]].concat());
        let mut others = Tracer::start(netns, &[&rule[..], &["--pid", &other_pid]].concat());
        for (tracer, count) in [(&mut all, 4), (&mut own, 3), (&mut others, 1)] {
            while stuck_of(tracer).len() < count {
                tracer.wait_for(|record| record["kind"] == "stuck");
            }
        }
        // Each has reported, once more, what it wants: then nothing else was in the look before.
        for tracer in [&mut own, &mut others] {
            tracer.wait_for(|record| record["kind"] == "stuck" && record["times"] == 2);
        }
        let is_others = |port: &u64| *port == u64::from(other_port);
        assert_eq!(stuck_of(&all).len(), 4);
        assert!(stuck_of(&own).len() == 3 && !stuck_of(&own).iter().any(is_others), "{:?}", stuck_of(&own));
        assert!(stuck_of(&others).iter().all(is_others), "{:?}", stuck_of(&others));
        for tracer in [all, own, others] {
            tracer.stop();
        }
        holder.end();
    });
}

/// A trace as a table.
struct Shown {
    child: Child,
    lines: Lines,
}

impl Shown {
    fn start(netns: u64) -> Self {
        let mut command = sockstate();
        command.args(["trace", "--alongside", "--format", "table", "--threshold", "CLOSE_WAIT=0"]);
        command.args(["--netns", &netns.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().expect("sockstate");
        let lines = Lines::of(child.stdout.take().expect("stdout"));
        Self { child, lines }
    }

    fn end(mut self) -> String {
        signal(self.child.id(), libc::SIGINT);
        assert!(self.child.wait().expect("wait").success());
        self.lines.rest()
    }
}

fn summed_up() {
    in_lab(|netns| {
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut servers = close_waits(&listener, port, 0, 5);
        let mut few = Shown::start(netns);
        for _ in 0..5 {
            few.lines.wait_for("STUCK for ");
        }
        assert!(!few.end().contains("before the trace began"));

        servers.extend(close_waits(&listener, port, 5, 3));
        let mut many = Shown::start(netns);
        let line = many.lines.wait_for("STUCK");
        let sum =
            "STUCK before the trace began: 8 connections (8 in CLOSE_WAIT); `sockstate stuck` lists them";
        assert!(line.contains(sum), "{line}");
        // What becomes stuck now has a line of its own.
        servers.extend(close_waits(&listener, port, 8, 1));
        let line = many.lines.wait_for("STUCK");
        assert!(line.contains("CLOSE_WAIT  STUCK for "), "{line}");
        drop(servers);
        many.lines.wait_for("no longer stuck");
        many.end();
    });
}
