//! Owners that are difficult to find: kernel threads, ended processes, replaced programs.

use std::{
    collections::BTreeSet,
    fs,
    os::{fd::AsFd, unix::net::UnixDatagram},
    process,
};

use serde_json::Value;
use socket2::{SockFilter, Socket};

use crate::{
    Test,
    lab::{Story, Tracer, can_list_holders, in_lab, path, wait_until},
    netns::sysctl,
    observer::wait_for_states,
    roles::{Actor, copy_to, send_fds},
    skip,
    sockets::{Kind, fresh_port, make_hear, option},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("owner truth: what the kernel's garbage collector closes is not a kernel thread's", collected),
        test("owner truth: what the kernel's garbage collector closes is not a bystander's", bystander),
        test(
            "owner truth: a FIN that a softirq sends does not belong to the interrupted process",
            fin_by_softirq,
        ),
        test("owner truth: a listener whose process has ended, held by one other", one_holder),
        test("owner truth: a listener whose process has ended, held by two others", two_holders),
        test("owner truth: a listener whose process lives, held by another too", living_listener),
        test("owner truth: a filter by process shows the whole connections of a worker", followed_worker),
        test("owner truth: another program since exec", executed),
        test("owner truth: another name", renamed),
    ]
}

/// The owners, as (pid, source), of all incoming connections.
fn server_owners(story: &Story) -> BTreeSet<(u64, String)> {
    let servers = story.transitions().filter(|record| record["role"] == "server");
    servers.map(owner).collect()
}

fn owner(record: &Value) -> (u64, String) {
    let owner = &record["owner"];
    (owner["pid"].as_u64().unwrap_or(0), owner["source"].as_str().unwrap_or("null").to_owned())
}

/// Puts a connection into the queues of two unix sockets. Each of the sockets is in the queue of the other, so no
/// process can receive from them.
fn discard(server: &Socket) {
    let (one, other) = UnixDatagram::pair().expect("pair");
    for socket in [&one, &other] {
        send_fds(socket.as_fd(), &[server.as_fd(), one.as_fd(), other.as_fd()]);
    }
}

fn collected() {
    let port = fresh_port();
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let (_listener, _client, server) = Kind::V4.pair(port);
        discard(&server);
        drop(server);
        // Sending over other unix sockets wakes the kernel's garbage collector.
        wait_until("the collector closes it", || {
            let (here, there) = UnixDatagram::pair().expect("pair");
            send_fds(here.as_fd(), &[there.as_fd()]);
            drop((here, there));
            tracer.poll(|record| record["role"] == "server" && record["to"] == "FIN_WAIT1")
        });
        let story = tracer.stop();
        assert_eq!(server_owners(&story), [(process::id().into(), "inherited".into())].into());
    });
}

/// Up to about Linux 6.8 the collector runs in the process that closes a unix socket, whichever that is.
fn bystander() {
    // Kernels without this function (before 6.9) run the collector in the process that closes a unix socket.
    let symbols = fs::read_to_string("/proc/kallsyms").expect("symbols");
    if !symbols.lines().any(|line| line.ends_with(" __unix_gc")) {
        return skip("this kernel's collector of unix sockets closes in the name of a bystander");
    }
    let port = fresh_port();
    in_lab(|netns| {
        let mut closer = Actor::start("unix closer", "");
        let mut tracer = Tracer::start(netns, &[]);
        let (_listener, _client, server) = Kind::V4.pair(port);
        discard(&server);
        drop(server);
        wait_until("the collector closes it", || {
            closer.go_on();
            assert_eq!(closer.hear(), "closed");
            tracer.poll(|record| record["role"] == "server" && record["to"] == "FIN_WAIT1")
        });
        let story = tracer.stop();
        assert_eq!(server_owners(&story), [(process::id().into(), "inherited".into())].into());
        closer.end();
    });
}

/// The listener and its children receive only SYNs.
fn hear_only_syns(listener: &Socket) {
    // ldb [13]; jset #SYN, 0, 1; ret #-1; ret #0: the filter sees the packet from its TCP header on.
    let program = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x45, 0, 1, 2),
        SockFilter::new(6, 0, 0, u32::MAX),
        SockFilter::new(6, 0, 0, 0),
    ];
    listener.attach_filter(&program).expect("filter");
}

fn fin_by_softirq() {
    let port = fresh_port();
    in_lab(|netns| {
        if sysctl("ipv4/tcp_fastopen", "1539").is_err() {
            return skip("no TCP fast open");
        }
        let tracer = Tracer::start(netns, &[]);
        let listener = Kind::V4.listen(port);
        option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 8);
        hear_only_syns(&listener);
        let client = Kind::V4.fast_connect(port, b"hello");
        // The connection is accepted before the client's ACK has come. The socket drops this ACK.
        let server = listener.accept().expect("accept").0;
        server.shutdown(std::net::Shutdown::Write).expect("shutdown");
        make_hear(&server);
        // The SYN-ACK is sent again by a timer, the client acknowledges it, and a softirq sends the FIN.
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop((client, server));
        let story = tracer.stop();
        let server = story.only("server");
        assert!(server.iter().any(|record| record["to"] == "FIN_WAIT1"), "{server:?}");
        assert_eq!(server_owners(&story), [(process::id().into(), "inherited".into())].into());
    });
}

/// Connects until a connection has an owner from its beginning, at most `most` times. The process that has accepted a
/// connection closes it.
fn connect_to(port: u16, tracer: &mut Tracer, most: usize) {
    for _ in 0..most {
        let client = Kind::V4.connect(port).expect("connect");
        let local = client.local_addr().expect("address").as_socket().expect("socket").port();
        let is_conn = |record: &Value| record["role"] == "server" && record["remote"]["port"] == local;
        let first = tracer.wait_for(|record| is_conn(record) && record["to"] == "ESTABLISHED");
        drop(client);
        tracer.wait_for(|record| is_conn(record) && record["from"] == "LAST_ACK");
        if !first["owner"].is_null() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// A process that listens, starts `holders` others that accept, and ends.
pub(crate) fn leave(port: u16, holders: usize) -> (Actor, Vec<u64>) {
    let mut parent = Actor::start("listener that leaves", format!("{port} {holders}"));
    let pids = (0..holders).map(|_| parent.hear().parse().expect("pid")).collect();
    parent.wait();
    (parent, pids)
}

fn one_holder() {
    if !can_list_holders() {
        return skip("this kernel does not list who holds a socket");
    }
    let port = fresh_port();
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let (parent, pids) = leave(port, 1);
        let dead: u64 = parent.pid().into();
        connect_to(port, &mut tracer, 50);
        parent.release();
        let story = tracer.stop();
        let owners = server_owners(&story);
        assert!(!owners.iter().any(|(pid, _)| *pid == dead), "{dead} has ended: {owners:?}");
        assert!(owners.contains(&(pids[0], "inherited".into())), "{owners:?}");
        // While the process lived, it owned the connection.
        let listener = story.transitions().find(|record| record["role"] == "listener").expect("listener");
        assert_eq!(owner(listener), (dead, "listen".into()));
    });
}

fn two_holders() {
    let port = fresh_port();
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let (parent, pids) = leave(port, 2);
        connect_to(port, &mut tracer, 5);
        parent.release();
        let story = tracer.stop();
        let owners = server_owners(&story);
        for (pid, source) in &owners {
            let is_closer = pids.contains(pid) && source == "close";
            assert!(*pid == 0 || is_closer, "who of {pids:?} accepts is not known before: {owners:?}");
        }
        assert!(owners.iter().any(|(pid, _)| *pid != 0), "{owners:?}");
    });
}

fn living_listener() {
    let port = fresh_port();
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let mut parent = Actor::start("listener that stays", format!("{port} 1"));
        let child: u64 = parent.hear().parse().expect("pid");
        connect_to(port, &mut tracer, 1);
        let pid = parent.pid();
        parent.release();
        let story = tracer.stop();
        let expected = [(pid.into(), "inherited".into()), (child, "close".into())];
        assert_eq!(server_owners(&story), expected.into());
    });
}

fn followed_worker() {
    let port = fresh_port();
    in_lab(|netns| {
        let mut all = Tracer::start(netns, &[]);
        let mut parent = Actor::start("listener that stays", format!("{port} 1"));
        let worker = parent.hear();
        let of_worker = Tracer::start(netns, &["--pid", &worker]);
        let of_parent = Tracer::start(netns, &["--pid", &parent.pid().to_string()]);
        let of_neither = Tracer::start(netns, &["--pid", "1"]);
        let last_acks =
            Tracer::start(netns, &["--pid", &worker, "--to", "LAST_ACK", "--local-port", &port.to_string()]);
        for _ in 0..3 {
            connect_to(port, &mut all, 1);
        }
        let [of_worker, of_parent, of_neither, last_acks] =
            [of_worker, of_parent, of_neither, last_acks].map(Tracer::stop);
        parent.release();
        let paths = |story: &Story| -> Vec<Vec<String>> {
            let connections = story.connections();
            let servers = connections.iter().filter(|connection| connection[0]["role"] == "server");
            servers.map(|connection| path(connection)).collect()
        };
        let story = all.stop();
        let whole = paths(&story);
        assert_eq!(whole.len(), 3);
        assert_eq!(
            paths(&of_worker),
            whole,
            "from the first transition, though the listener is the parent's"
        );
        // The process that called listen() before the trace began is known if the kernel lists the holders of sockets.
        let of_listener = if can_list_holders() { whole } else { Vec::new() };
        assert_eq!(paths(&of_parent), of_listener, "they came out of its listener");
        assert!(
            of_worker.transitions().all(|record| record["role"] == "server"),
            "the client's ends are not the worker's"
        );
        assert_eq!(of_neither.transitions().count(), 0);
        let last: Vec<_> = last_acks.transitions().map(|record| record["to"].clone()).collect();
        assert_eq!(last, ["LAST_ACK"; 3]);
    });
}

/// The names of the owners of incoming connections.
fn comms(story: &Story) -> BTreeSet<String> {
    let servers = story.transitions().filter(|record| record["role"] == "server");
    servers.map(|record| record["owner"]["comm"].as_str().unwrap_or("null").to_owned()).collect()
}

fn executed() {
    let port = fresh_port();
    let directory = tempfile::tempdir().expect("directory");
    let program = directory.path().join("realsvc");
    copy_to(&program);
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--cmdline"]);
        let mut service = Actor::start("launcher", format!("{port} {}", program.display()));
        assert_eq!(service.hear(), "here");
        connect_to(port, &mut tracer, 1);
        let pid = service.pid();
        service.release();
        let story = tracer.stop();
        assert_eq!(server_owners(&story), [(pid.into(), "inherited".into())].into());
        assert_eq!(comms(&story), ["realsvc".to_owned()].into());
        for record in story.transitions().filter(|record| record["role"] == "server") {
            assert_eq!(record["owner"]["exe"].as_str(), program.to_str(), "{record}");
            assert_eq!(record["owner"]["cmdline"], "realsvc", "{record}");
        }
        let listener = story.transitions().find(|record| record["role"] == "listener").expect("listener");
        assert_ne!(listener["owner"]["comm"], "realsvc", "it was the launcher that listened");
    });
}

fn renamed() {
    let port = fresh_port();
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let mut service = Actor::start("renamer", port.to_string());
        assert_eq!(service.hear(), "here");
        connect_to(port, &mut tracer, 1);
        service.release();
        let story = tracer.stop();
        assert_eq!(comms(&story), ["new name".to_owned()].into());
    });
}
