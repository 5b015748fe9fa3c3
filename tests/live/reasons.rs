//! Reasons and holders by evidence: each made to come true, and to come nearly true.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::mpsc::channel,
    thread,
};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{Tracer, in_lab, sockstate, wait_until},
    netns::sysctl,
    observer::{proc_net_tcp, wait_for_states},
    roles::{Actor, Sleeper},
    sockets::{Kind, fresh_port, keep_over_exec, make_deaf, make_hear, option},
    stuck::{holders, look},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("reasons: a half-closed download is in use, and a leak is not", half_closed),
        test("reasons: half-closed, and the peer takes nothing", takes_nothing),
        test("reasons: a proxy that passes an end of file on is not accused", proxy),
        test("reasons: data before the FIN is no use of the connection", sent_before),
        test("reasons: inherited by a grandchild, given on purpose, or forked for it", inherited),
        test("reasons: a client's connection in its child, as a trace knows", clients_child),
        test("reasons: a full accept queue drops SYNs", full_queue_drops_syns),
        test("reasons: a full accept queue drops the last ACK", full_queue_drops_acks),
        test("reasons: the kernel waits for data, or the last ACK is lost", deferred),
        test("reasons: socket activation, whose unit", activation),
        test("listeners: the one whose queue it is, or all that it may be", reuseport),
        test("listeners: of two families on one port", families),
        test("holders: a registered file of io_uring", registered),
        test("holders: a mapping", mapped),
        test("holders: a thread's own table, and a leader that has ended", threads),
        test("holders: nobody, but a message that holds another socket", unrelated),
    ]
}

fn port_of(socket: &Socket) -> u64 {
    socket.local_addr().expect("address").as_socket().expect("IP").port().into()
}

/// The one CLOSE_WAIT of a namespace.
fn only(netns: u64) -> Value {
    let mut found = look(netns, &["close-wait", "--older-than", "0"]);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
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
        // In use at first; then nothing was sent for a second.
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
        // The other end is shut down too, but is no other connection.
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

/// What a trace knows of the FIN's time.
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
        let end = End(orphan);
        drop(connection);
        // As inetd gives it.
        let (given, connection) = open();
        let input = Stdio::from(OwnedFd::from(connection));
        let server = Sleeper::spawn(Command::new("sleep").arg("600").stdin(input));
        // The session of a server that forks: the same program.
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
        drop((server, end));
    });
}

/// A process that is no child of ours, ended with the test.
struct End(u32);

impl Drop for End {
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

/// States of the sockets with this local port.
fn states_of(port: u64) -> Vec<String> {
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
        // One whose SYN is lost otherwise.
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
        // It hears the next SYN-ACK, and answers.
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
        // The other handshake's last ACK is lost.
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
            assert_eq!(traced["owner"]["pid"], process::id(), "{traced}");
            tracer.stop();
            // Two that accept nothing: a look cannot tell.
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
        for record in look(netns, &["close-wait", "--older-than", "0"]) {
            let is_v4 = record["network"]["type"] == "ipv4";
            let wanted = if is_v4 { process::id() } else { dual.pid() };
            assert_eq!(record["creator"]["pid"], wanted, "{record}");
        }
        dual.end();
    });
}

/// A ring with this file registered; its descriptor.
fn ring_with(fd: i32) -> std::io::Result<OwnedFd> {
    const IORING_REGISTER_FILES: u32 = 2;
    // `struct io_uring_params`.
    let mut parameters = [0_u32; 30];
    // SAFETY: the kernel writes the parameters, which are as long as it expects.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    if ring < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just opened, and owned by nobody else.
    let ring = unsafe { OwnedFd::from_raw_fd(ring as i32) };
    let number = ring.as_raw_fd();
    // SAFETY: the array has one descriptor.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, number, IORING_REGISTER_FILES, &raw const fd, 1)
    };
    if done == 0 { Ok(ring) } else { Err(std::io::Error::last_os_error()) }
}

fn registered() {
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        let ring = match ring_with(server.as_raw_fd()) {
            Ok(ring) => ring,
            Err(error) => return crate::skip(&format!("io_uring does not work here: {error}")),
        };
        drop((client, server));
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.as_raw_fd())).expect("fdinfo");
        let record = only(netns);
        if info.contains("socket:[") {
            let holder = &record["holders"][0];
            assert_eq!(
                (&holder["pid"], &holder["via"]),
                (&process::id().into(), &"io_uring".into()),
                "{record}"
            );
            assert_eq!(
                (&holder["ring_fd"], &holder["fd"]),
                (&ring.as_raw_fd().into(), &Value::Null),
                "{record}"
            );
            assert_eq!(record["reason"], "eof_unread");
            let groups = look(netns, &["close-wait", "--older-than", "0", "--group-by", "process"]);
            assert!(text(&groups[0], "key").ends_with(&format!("({})", process::id())), "{groups:?}");
        } else {
            // Before Linux 6.13 nothing tells which socket it is.
            assert_eq!(record["reason"], "unknown", "{record}");
            assert!(text(&record, "why").contains(&format!("({})", process::id())), "{record}");
        }
    });
}

fn mapped() {
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        // SAFETY: a new mapping of an open descriptor; nobody reads it.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, server.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return crate::skip(&format!("a socket cannot be mapped: {}", std::io::Error::last_os_error()));
        }
        drop((client, server));
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let record = only(netns);
        // SAFETY: mapped above, and used by nobody.
        unsafe { libc::munmap(address, 4096) };
        let holder = &record["holders"][0];
        assert_eq!((&holder["pid"], &holder["via"]), (&process::id().into(), &"mapping".into()), "{record}");
        assert_eq!(record["reason"], "eof_unread", "{record}");
    });
}

fn threads() {
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        let fd = server.as_raw_fd() as u64;
        let (ready, is_ready) = channel();
        let (end, is_over) = channel::<()>();
        thread::scope(|scope| {
            let end = end;
            scope.spawn(move || {
                // SAFETY: takes a number; gives this thread a copy of the descriptor table.
                assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
                // SAFETY: takes nothing, cannot fail.
                ready.send(unsafe { libc::gettid() }).expect("send");
                let _ = is_over.recv();
                // SAFETY: this thread's own copy, which nobody else uses.
                unsafe { libc::close(fd as i32) };
            });
            let tid = is_ready.recv().expect("a thread");
            drop((client, server));
            // The thread has copies of all, so the client is closed by nobody.
            let found = look(netns, &["sockets", "--state", "ESTABLISHED"]);
            assert_eq!(found.len(), 2, "{found:?}");
            for record in &found {
                let holder = &record["holders"][0];
                assert_eq!(
                    (&holder["pid"], &holder["tid"]),
                    (&process::id().into(), &tid.into()),
                    "{record}"
                );
            }
            drop(end);
        });
        // A process whose leader has ended: its descriptors are those of its threads.
        let (_other, client, server) = Kind::V4.pair(fresh_port());
        let number = keep_over_exec(&server);
        let mut actor = Actor::start("headless holder", number);
        actor.hear();
        drop((client, server));
        let mut found = Vec::new();
        wait_until("its leader ends", || {
            found = look(netns, &["close-wait", "--older-than", "0"]);
            let status = fs::read_to_string(format!("/proc/{}/status", actor.pid())).expect("status");
            status.contains("State:\tZ") && found.len() == 1
        });
        assert_eq!(holders(&found[0]), [(actor.pid().into(), number as u64)], "{found:?}");
        assert_eq!(found[0]["reason"], "eof_unread", "{found:?}");
    });
}

/// Cgroups of a test, removed with it.
struct Units(Vec<PathBuf>);

impl Units {
    /// Below the mounted hierarchy, if there is one that can be written to.
    fn make(names: &[&str]) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mount =
            mounts.lines().map(fields).find(|fields| fields.get(2).is_some_and(|kind| kind == "cgroup2"))?;
        let mut made = Self(Vec::new());
        for name in names {
            let path = Path::new(&mount[1]).join(format!("{}-{name}", process::id()));
            fs::create_dir(&path).ok()?;
            made.0.push(path);
        }
        Some(made)
    }

    fn enter(&self, at: usize, pid: u32) {
        fs::write(self.0[at].join("cgroup.procs"), pid.to_string()).expect("cgroup.procs");
    }

    fn name(&self, at: usize) -> &str {
        self.0[at].file_name().and_then(|name| name.to_str()).expect("UTF-8")
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        // A process that has ended leaves a moment later.
        wait_until("empty cgroups", || {
            self.0.iter().all(|path| !path.exists() || fs::remove_dir(path).is_ok())
        });
    }
}

/// The only socket of a process, as a service manager hands it over.
fn only_socket_of(pid: u32) -> Socket {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").flatten();
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let fd = fds.filter(is_socket).find_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // SAFETY: takes numbers; the process is our child.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the same.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, fd.expect("a socket"), 0) };
    assert!(process >= 0 && copy >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were just opened, and are owned by nobody else.
    unsafe {
        drop(OwnedFd::from_raw_fd(process as i32));
        Socket::from_raw_fd(copy as i32)
    }
}

fn activation() {
    let Some(units) = Units::make(&["activator.service", "web.service"]) else {
        return crate::skip("needs a cgroup v2 hierarchy that can be written to");
    };
    in_lab(|netns| {
        let port = fresh_port();
        let mut activator = Actor::start("late listener", port);
        units.enter(0, activator.pid());
        activator.go_on();
        assert_eq!(activator.hear(), "listening");
        drop(Kind::V4.connect(port).expect("connect"));
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let waiting = only(netns);
        // Nobody holds it: where the socket was made.
        assert_eq!((&waiting["unit"], waiting.get("made_in")), (&units.name(0).into(), None), "{waiting}");
        assert_eq!(waiting["creator"]["pid"], activator.pid());
        let listener = only_socket_of(activator.pid());
        let mut web = Actor::start("accepter", keep_over_exec(&listener));
        drop(listener);
        units.enter(1, web.pid());
        assert_eq!(web.hear(), "accepted");
        let held = only(netns);
        assert_eq!(holders(&held)[0].0, u64::from(web.pid()), "{held}");
        assert_eq!(
            (&held["unit"], &held["holders"][0]["unit"]),
            (&units.name(1).into(), &units.name(1).into())
        );
        assert_eq!(held["made_in"]["unit"], units.name(0), "{held}");
        let groups = look(netns, &["close-wait", "--older-than", "0", "--group-by", "container"]);
        assert_eq!((&groups[0]["key"], groups.len()), (&units.name(1).into(), 1), "{groups:?}");
        for (path, count) in [(&units.0[0], 1), (&units.0[1], 1), (&units.0[1].join("below"), 0)] {
            if count == 0 {
                fs::create_dir(path).expect("a cgroup");
            }
            let path = path.to_str().expect("UTF-8");
            let found = look(netns, &["close-wait", "--older-than", "0", "--cgroup", path]);
            assert_eq!(found.len(), count, "{path}: {found:?}");
        }
        fs::remove_dir(units.0[1].join("below")).expect("empty");
        web.end();
        activator.end();
    });
}

/// A message is on its way, but it has nothing to do with a connection whose holder is known.
fn unrelated() {
    use std::os::{fd::AsFd, unix::net::UnixStream};
    in_lab(|netns| {
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        let (near, far) = UnixStream::pair().expect("pair");
        crate::roles::send_fd(&near, listener.as_fd());
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let held = only(netns);
        assert_eq!((&held["reason"], held.get("in_flight_in")), (&"eof_unread".into(), None), "{held}");
        crate::roles::send_fd(&near, server.as_fd());
        drop(server);
        let sent = only(netns);
        assert_eq!(sent["reason"], "in_flight", "{sent}");
        let places = sent["in_flight_in"].as_array().expect("a list");
        let is_ours = |place: &&Value| place["fd"] == far.as_raw_fd() && place["pid"] == process::id();
        assert_eq!(places.iter().find(is_ours).expect("our queue")["descriptors"], 2, "{sent}");
    });
}
