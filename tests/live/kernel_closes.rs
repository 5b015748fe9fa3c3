//! Sockets that the kernel itself closes or ends: no kernel thread owns them, and the cause is the kernel's own reason.

use std::{
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd},
        unix::net::UnixStream,
    },
    process,
};

use serde_json::Value;

use crate::{
    Test,
    holders::ring_with,
    lab::{Story, Tracer, in_lab, own_netns, path, wait_until},
    observer::{proc_net_tcp, wait_for_states},
    roles::{Actor, inheritable, next_step, say, send_fd},
    skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("ends: an io_uring's registered file when its process exits", ring_at_exit),
        test("ends: an io_uring's registered file when its process is killed", ring_at_kill),
        test("ends: a registered file that another process holds", ring_and_holder),
        test("ends: a network namespace that ends", namespace_ends),
        test("ends: a network namespace that a passed socket keeps", namespace_is_kept),
    ]
}

/// Connects, registers the connection with an io_uring, closes the descriptor, and ends when the test lets it go on.
pub(crate) fn ring_client(port: u16) {
    let socket = Kind::V4.connect(port).expect("connect");
    let ring = ring_with(socket.as_raw_fd());
    drop(socket);
    match &ring {
        Ok(_) => say("registered"),
        Err(error) => say(error),
    }
    while next_step() {}
    // The process ends with the io_uring open, and the kernel releases it.
    process::exit(0);
}

/// A process that holds a connection only by its io_uring.
fn start_ring_client(port: u16) -> Option<Actor> {
    let mut actor = Actor::start("ring client", port);
    let answer = actor.hear();
    if answer != "registered" {
        skip(&format!("io_uring does not work here: {answer}"));
        return None;
    }
    Some(actor)
}

fn owners<'a>(story: &'a Story, role: &'a str) -> Vec<(&'a Value, &'a Value)> {
    let of_role = story.transitions().filter(move |record| record["role"] == role);
    of_role.map(|record| (&record["owner"]["pid"], &record["owner"]["source"])).collect()
}

/// The transition of the client's side when its process ends.
fn ring_is_taken_down(end: fn(Actor)) {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let Some(actor) = start_ring_client(port) else { return };
        let pid = actor.pid();
        let server = listener.accept().expect("accept").0;
        let states = || proc_net_tcp().into_iter().map(|line| line.2).collect::<Vec<_>>();
        assert_eq!(states().iter().filter(|state| *state == "ESTABLISHED").count(), 2, "no FIN at close()");
        end(actor);
        tracer.wait_for(|record| record["role"] == "client" && record["to"] == "FIN_WAIT1");
        drop((server, listener));
        let story = tracer.stop();
        for (owner, source) in owners(&story, "client") {
            assert_eq!((owner, source), (&pid.into(), &"connect".into()), "{:#?}", story.records);
        }
    });
}

fn ring_at_exit() {
    ring_is_taken_down(Actor::end);
}

fn ring_at_kill() {
    ring_is_taken_down(Actor::kill);
}

/// Nearly the same: another process also has the connection open, and closes it.
fn ring_and_holder() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let client = Kind::V4.connect(port).expect("connect");
        let _server = listener.accept().expect("accept").0;
        let ring = match ring_with(client.as_raw_fd()) {
            Ok(ring) => ring,
            Err(error) => return skip(&format!("io_uring does not work here: {error}")),
        };
        let (near, far) = UnixStream::pair().expect("pair");
        let mut holder = Actor::start("receiver", inheritable(&far));
        send_fd(&near, client.as_fd());
        assert_eq!(holder.hear(), "received");
        drop((client, ring));
        holder.go_on();
        assert_eq!(holder.hear(), "closed");
        let fin = tracer.wait_for(|record| record["role"] == "client" && record["to"] == "FIN_WAIT1");
        // The kernel releases the io_uring asynchronously, perhaps after the holder has closed the connection.
        let by_holder = (&holder.pid().into(), &"close".into());
        let by_ring = (&process::id().into(), &"connect".into());
        let owner = (&fin["owner"]["pid"], &fin["owner"]["source"]);
        assert!(owner == by_holder || owner == by_ring, "{fin}");
        tracer.stop();
    });
}

/// Makes, in a network namespace of its own, a connection in TIME_WAIT, an orphan in FIN_WAIT2, and a pair in
/// ESTABLISHED. If the role gets a descriptor, it sends one side of the pair over it.
pub(crate) fn leave_namespace(value: &str) {
    let (port, descriptor) = value.split_once(' ').expect("port and descriptor");
    let port: u16 = port.parse().expect("port");
    let left = crate::netns::in_new_netns(|| {
        say(own_netns());
        next_step();
        let listener = Kind::V4.listen(port);
        let open = || {
            let client = Kind::V4.connect(port).expect("connect");
            (client, listener.accept().expect("accept").0)
        };
        let (client, mut server) = open();
        drop(client);
        assert_eq!(server.read(&mut [0]).expect("read"), 0);
        drop(server);
        let pair = open();
        if let Ok(fd) = descriptor.parse::<i32>() {
            // SAFETY: inherited for us, and nobody else in this process uses it.
            let stream = unsafe { UnixStream::from_raw_fd(fd) };
            send_fd(&stream, pair.1.as_fd());
        }
        wait_for_states(&["LISTEN", "TIME_WAIT", "ESTABLISHED", "ESTABLISHED"]);
        say(pair.0.local_addr().expect("address").as_socket().expect("IP").port());
        while next_step() {}
        process::exit(0);
    });
    left.expect("a network namespace");
}

/// Starts a process with its own namespace and a tracer of this namespace. Returns both, and the port of the client in
/// ESTABLISHED.
fn start_leaver(descriptor: &str) -> (Actor, Tracer, u64) {
    let mut actor = Actor::start("namespace leaver", format!("{} {descriptor}", fresh_port()));
    let netns: u64 = actor.hear().parse().expect("inode");
    let tracer = Tracer::start(netns, &[]);
    actor.go_on();
    let client = actor.hear().parse().expect("port");
    (actor, tracer, client)
}

fn sees_minis(tracer: &Tracer) -> bool {
    !["none", "estimate"].contains(&tracer.first()["tier"].as_str().expect("tier"))
}

/// The last process of a namespace ends: the process closes its connections, and the kernel ends those in TIME_WAIT.
fn namespace_ends() {
    let (actor, mut tracer, _) = start_leaver("none");
    if !sees_minis(&tracer) {
        return skip("mini-sockets are not seen here");
    }
    let pid = u64::from(actor.pid());
    actor.kill();
    let count_ended = |tracer: &Tracer| {
        let is_end = |record: &&Value| record["from"] == "TIME_WAIT" && record["to"] == "CLOSE";
        tracer.seen().iter().filter(is_end).count()
    };
    wait_until("both TIME_WAITs end with the namespace", || {
        tracer.poll(|_| false);
        count_ended(&tracer) == 2
    });
    let story = tracer.stop();
    for record in story.transitions() {
        assert_eq!(record["owner"]["pid"], pid, "nobody else ever had it: {record}");
        assert_ne!(record["cause"], "killed", "{record}");
        if record["from"] == "TIME_WAIT" {
            assert_eq!(record["cause"], "netns_gone", "{record}");
        }
    }
    let full = story.connections();
    assert!(full.iter().all(|of_one| path(of_one).last().is_some_and(|last| last == "CLOSE")), "{full:#?}");
}

/// Nearly the same: the process has ended, but a socket that was passed to another process keeps the namespace.
fn namespace_is_kept() {
    let (near, far) = UnixStream::pair().expect("pair");
    let (actor, mut tracer, client) = start_leaver(&inheritable(&far).to_string());
    if !sees_minis(&tracer) {
        return skip("mini-sockets are not seen here");
    }
    let dead = u64::from(actor.pid());
    actor.kill();
    // Another process, which is not in the namespace, receives the socket.
    let mut holder = Actor::start("receiver", inheritable(&near));
    assert_eq!(holder.hear(), "received");
    drop((near, far));
    tracer.wait_for(|record| record["remote"]["port"] == client && record["to"] == "CLOSE_WAIT");
    assert!(
        !tracer.seen().iter().any(|record| record["cause"] == "netns_gone"),
        "the namespace lives: {:#?}",
        tracer.seen()
    );
    holder.go_on();
    assert_eq!(holder.hear(), "closed");
    let last = tracer.wait_for(|record| record["remote"]["port"] == client && record["to"] == "LAST_ACK");
    assert_eq!(
        (&last["owner"]["pid"], &last["owner"]["source"]),
        (&holder.pid().into(), &"close".into()),
        "{last}"
    );
    wait_until("the namespace ends", || tracer.poll(|record| record["cause"] == "netns_gone"));
    let holder = u64::from(holder.pid());
    let story = tracer.stop();
    for record in story.transitions() {
        let owner = record["owner"]["pid"].as_u64().expect("known");
        assert!([dead, holder].contains(&owner), "{record}");
    }
}
