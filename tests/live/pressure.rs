//! Connections that the kernel ends because there are too many orphans, or too little memory. Both limits are of the
//! whole machine, so these tests run in virtual machines only.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
};

use socket2::Socket;

use crate::{
    Test,
    lab::{Tracer, in_lab},
    observer::{is_in_vm, wait_for_states},
    skip,
    sockets::{Kind, fresh_port},
    test,
    unusual_ends::{assert_end, assert_why, end_of, sees_resets},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("pressure: too many orphans at close()", || ends("tcp_max_orphans", NO_ORPHANS, When::Before)),
        test("pressure: too many orphans at the timer", || ends("tcp_max_orphans", NO_ORPHANS, When::After)),
        test("pressure: too little memory at close()", || ends("tcp_mem", "1 1 1", When::Before)),
        test("pressure: too little memory at the timer", || ends("tcp_mem", "1 1 1", When::After)),
    ]
}

/// The limit is below 0, because Linux 5.10 does not count the first few orphans.
const NO_ORPHANS: &str = "-1";

/// Whether the limit is lowered before or after the socket is closed.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Before,
    After,
}

/// A sysctl of the first network namespace, opened there; its value is restored.
struct Limit {
    file: File,
    value: String,
}

impl Limit {
    fn open(name: &str) -> Self {
        let path = format!("/proc/sys/net/ipv4/{name}");
        let value = fs::read_to_string(&path).expect("sysctl");
        Self { file: OpenOptions::new().write(true).open(path).expect("sysctl"), value }
    }

    fn set(&self, value: &str) {
        self.file.write_all_at(value.as_bytes(), 0).expect("sysctl");
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.set(&self.value);
    }
}

/// How many connections of this namespace ended by either limit, as the kernel counts them.
fn aborted_on_memory() -> u64 {
    let counters = fs::read_to_string("/proc/thread-self/net/netstat").expect("netstat");
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let counter = names.zip(values).find(|(name, _)| *name == "TCPAbortOnMemory");
    counter.expect("counter").1.parse().expect("number")
}

/// A connection whose peer accepts no more data, so that the FIN waits behind data.
fn pair_with_full_window(port: u16) -> (Socket, Socket, Socket) {
    let (listener, mut client, server) = Kind::V4.pair(port);
    client.set_nonblocking(true).expect("nonblocking");
    while client.write(&[0; 1 << 16]).is_ok() {}
    (listener, client, server)
}

fn ends(name: &'static str, value: &'static str, when: When) {
    if !is_in_vm() {
        return skip("net.ipv4.tcp_max_orphans and tcp_mem are of the whole machine");
    }
    let limit = Limit::open(name);
    in_lab(move |netns| {
        let mut tracer = Tracer::start(netns, &[]);
        // With the default limits, the connection is an orphan and does not end.
        let (_first_listener, first, _first_server) = pair_with_full_window(fresh_port());
        drop(first);
        wait_for_states(&["LISTEN", "ESTABLISHED", "FIN_WAIT1"]);
        assert_eq!(aborted_on_memory(), 0);

        let port = fresh_port();
        let (_listener, client, _server) = pair_with_full_window(port);
        if when == When::Before {
            limit.set(value);
        }
        drop(client);
        if when == When::After {
            limit.set(value);
        }
        let end = end_of(&mut tracer, "client", port);
        drop(limit);
        if sees_resets(&tracer) {
            assert_end(&end, "FIN_WAIT1", Some("reset_sent"), None);
            assert_why(&end, "TCP_ABORT_ON_MEMORY", "memory");
        } else {
            assert_end(&end, "FIN_WAIT1", None, None);
        }
        assert!(aborted_on_memory() > 0);
        tracer.stop();
    });
}
