//! Sockets that outlive their process because other processes have them open, too. The ended process does not own them
//! any more.

use std::{
    os::unix::process::CommandExt,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Test,
    holders::only_socket_of,
    lab::{Tracer, can_list_holders, in_lab, wait_until},
    look_test,
    owner_truth::leave,
    roles::{Actor, copy_to, keep_or_let_go, part, say, share_listener, start_holder},
    skip,
    sockets::{Kind, fresh_port, keep_over_exec, reset_on_close},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("left open: a connection that its client's child has when the client ends", || {
            connection("connect", Parent::Ends)
        }),
        test("left open: a connection that its client's child has, and the client keeps", || {
            connection("connect", Parent::KeepsOpen)
        }),
        look_test("left open: a connection that its client's child has, and the client has closed", || {
            connection("connect", Parent::Closes)
        }),
        test("left open: a connection that its server's child has when the server ends", || {
            connection("accept", Parent::Ends)
        }),
        test("left open: a connection that its server's child has, and the server keeps", || {
            connection("accept", Parent::KeepsOpen)
        }),
        look_test("left open: a connection that its server's child has, and the server has closed", || {
            connection("accept", Parent::Closes)
        }),
        test("left open: a listener that another process gets meanwhile", listener_is_shared),
        test("left open: a listener that its own process has closed", listener_is_closed),
        look_test("left open: a listener that its own process has closed, and a leak", leaking_listener),
        test("left open: a listener that an exec closes", || at_exec(false)),
        test("left open: a listener that an exec keeps", || at_exec(true)),
    ]
}

/// What a process does after its child has inherited its connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Parent {
    Ends,
    KeepsOpen,
    Closes,
}

/// Connects or accepts ("HOW PORT PARENT") and starts a child that has the connection open. Then the process ends,
/// stays, or closes its own copy.
pub(crate) fn leave_open(value: &str) {
    let fields: Vec<&str> = value.split(' ').collect();
    let port: u16 = fields[1].parse().expect("port");
    let connection = if fields[0] == "connect" {
        Kind::V4.connect(port).expect("connect")
    } else {
        let listener = Kind::V4.listen(port);
        say("listening");
        listener.accept().expect("accept").0
    };
    start_holder(&connection);
    keep_or_let_go(connection, fields[2]);
}

/// The second `stuck` record comes after the search for the holders.
fn connection(how: &'static str, kind: Parent) {
    if !can_list_holders() {
        return skip("this kernel does not list who holds a socket");
    }
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--threshold", "ESTABLISHED=1"]);
        let port = fresh_port();
        let listener = (how == "connect").then(|| Kind::V4.listen(port));
        let mut parent = Actor::start("leave open", format!("{how} {port} {kind:?}"));
        let peer = if let Some(listener) = &listener {
            listener.accept().expect("accept").0
        } else {
            assert_eq!(parent.hear(), "listening");
            Kind::V4.connect(port).expect("connect")
        };
        let (pid, child): (u64, u64) = (parent.pid().into(), parent.hear().parse().expect("pid"));
        match kind {
            Parent::Ends => parent.wait(),
            Parent::Closes => assert_eq!(parent.hear(), "closed"),
            Parent::KeepsOpen => {}
        }
        let role = if how == "connect" { "client" } else { "server" };
        let is_stuck = |record: &Value, times: u64| {
            record["kind"] == "stuck" && record["role"] == role && record["times"] == times
        };
        let first = tracer.wait_for(|record| is_stuck(record, 1));
        let second = tracer.wait_for(|record| is_stuck(record, 2));
        let owner = |record: &Value| (record["owner"]["pid"].as_u64(), record["owner"]["source"].clone());
        if kind == Parent::KeepsOpen {
            let source = if how == "connect" { "connect" } else { "inherited" };
            assert_eq!(owner(&first), (Some(pid), source.into()), "{first}");
            assert_eq!(owner(&second), (Some(pid), source.into()), "{second}");
        } else {
            // The tracer may learn of the parent's end before it finds the connection's holder.
            let is_known = kind == Parent::Closes || !first["owner"].is_null();
            assert!(!is_known || owner(&first) == (Some(child), "scan".into()), "{first}");
            assert_eq!(owner(&second), (Some(child), "scan".into()), "{second}");
        }
        drop((peer, listener));
        parent.release();
        tracer.stop();
    });
}

/// A process serves alone; then another process gets its listener and serves, too. A connection that comes before the
/// tracer finds the second process has no owner.
fn listener_is_shared() {
    if !can_list_holders() {
        return skip("this kernel does not list who holds a socket");
    }
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let (parent, pids) = leave(port, 1);
        let opened = |tracer: &mut Tracer| {
            let client = Kind::V4.connect(port).expect("connect");
            let local = client.local_addr().expect("address").as_socket().expect("IP").port();
            let is_conn = |record: &Value| record["remote"]["port"] == local;
            let first = tracer.wait_for(|record| is_conn(record) && record["to"] == "ESTABLISHED");
            (client, local, first["owner"].clone())
        };
        wait_until("its holder is known", || opened(&mut tracer).2["pid"] == pids[0]);
        let listener = only_socket_of(pids[0] as u32);
        let other = Actor::start("server", keep_over_exec(&listener));
        drop(listener);
        let (client, local, _) = opened(&mut tracer);
        wait_until("two holders are known", || opened(&mut tracer).2.is_null());
        drop(client);
        let is_end = |record: &Value| record["remote"]["port"] == local && record["to"] == "CLOSE_WAIT";
        let end = tracer.wait_for(is_end);
        assert!(end["owner"].is_null(), "{end}");
        other.end();
        parent.release();
        tracer.stop();
    });
}

/// A launcher listens, starts a server, closes its own descriptor, and stays.
fn listener_is_closed() {
    if !can_list_holders() {
        return skip("this kernel does not list who holds a socket");
    }
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let mut launcher = Actor::start("listener that lets go", format!("{port} 1"));
        let server = launcher.hear();
        let mut owners = Vec::new();
        wait_until("the server owns what comes", || {
            let client = Kind::V4.connect(port).expect("connect");
            let local = client.local_addr().expect("address").as_socket().expect("IP").port();
            let is_conn = |record: &Value| record["remote"]["port"] == local;
            let first = tracer.wait_for(|record| is_conn(record) && record["to"] == "ESTABLISHED");
            drop(client);
            tracer.wait_for(|record| is_conn(record) && record["from"] == "LAST_ACK");
            owners.push(first["owner"]["pid"].to_string());
            owners.last() == Some(&server)
        });
        // A connection that comes during the look that finds the server has no owner.
        let others = [server, launcher.pid().to_string(), "null".to_owned()];
        assert!(owners.iter().all(|pid| others.contains(pid)), "{owners:?}");
        assert!(owners.iter().filter(|owner| *owner == "null").count() <= 1, "{owners:?}");
        launcher.release();
        tracer.stop();
    });
}

/// The launcher stays, and no connection is closed: the tracer finds their owner when one of them is stuck.
fn leaking_listener() {
    if !can_list_holders() {
        return skip("this kernel does not list who holds a socket");
    }
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--threshold", "ESTABLISHED=1"]);
        let port = fresh_port();
        let mut launcher = Actor::start("listener that lets go", format!("{port} 1"));
        let server = launcher.hear();
        assert_eq!(launcher.hear(), "closed");
        let _client = Kind::V4.connect(port).expect("connect");
        let stuck = tracer.wait_for(|record| record["kind"] == "stuck" && record["role"] == "server");
        assert_eq!(stuck["holders"][0]["pid"].to_string(), server, "{stuck}");
        assert_eq!(
            (&stuck["owner"]["pid"], &stuck["owner"]["source"]),
            (&stuck["holders"][0]["pid"], &"scan".into())
        );
        wait_until("the server owns what comes", || owner_of_next(&mut tracer, port) == server);
        launcher.release();
        tracer.stop();
    });
}

/// The owner of a connection that its client resets, so that no process closes it.
fn owner_of_next(tracer: &mut Tracer, port: u16) -> String {
    let client = Kind::V4.connect(port).expect("connect");
    let local = client.local_addr().expect("address").as_socket().expect("IP").port();
    let is_conn = |record: &Value| record["role"] == "server" && record["remote"]["port"] == local;
    let first = tracer.wait_for(|record| is_conn(record) && record["to"] == "ESTABLISHED");
    reset_on_close(&client);
    drop(client);
    tracer.wait_for(|record| is_conn(record) && record["to"] == "CLOSE");
    first["owner"]["pid"].to_string()
}

/// Listens, starts a server, and becomes another program ("PORT KEEPS PATH").
pub(crate) fn listen_and_exec(value: &str) {
    let fields: Vec<&str> = value.splitn(3, ' ').collect();
    let listener = share_listener(&format!("{} 1", fields[0]));
    listener.set_cloexec(fields[1] == "false").expect("cloexec");
    panic!("exec: {}", part(fields[2].as_ref(), "bystander", "").exec());
}

/// A process listens, starts a server that has the listener, too, and becomes another program, which may have the
/// listener.
fn at_exec(keeps: bool) {
    if !can_list_holders() {
        return skip("this kernel does not list who holds a socket");
    }
    let directory = tempfile::tempdir().expect("directory");
    let program = directory.path().join("another");
    copy_to(&program);
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let port = fresh_port();
        let mut launcher = Actor::start("listen and exec", format!("{port} {keeps} {}", program.display()));
        let (pid, server) = (launcher.pid().to_string(), launcher.hear());
        assert_eq!(launcher.hear(), "here");
        let mut owners = Vec::new();
        let begin = Instant::now();
        wait_until("the holders are known", || {
            owners.push(owner_of_next(&mut tracer, port));
            if keeps { begin.elapsed() > Duration::from_secs(1) } else { owners.last() == Some(&server) }
        });
        // A connection that comes during the look that finds the server has no owner.
        let is_possible = |owner: &String| *owner == pid || !keeps && (*owner == server || owner == "null");
        assert!(owners.iter().all(is_possible), "{owners:?}");
        assert!(owners.iter().filter(|owner| *owner == "null").count() <= 1, "{owners:?}");
        launcher.release();
        tracer.stop();
    });
}
