//! Stuck sockets that the tests make: who holds them, why they are stuck, what the printed commands do.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    },
    process::{self, Command},
};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{in_lab, sockstate, wait_until},
    look_test,
    netns::sysctl,
    observer::{proc_net_tcp, wait_for_states},
    roles::{Actor, Sleeper, send_fd},
    schema,
    sockets::{Kind, fresh_port, keep_over_exec, make_deaf},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        look_test("stuck: a peer that does not answer, and one that does not close", peers),
        look_test("stuck: orphans, closed windows, and handshakes that do not end", others),
        look_test("stuck: what an epoll waits for", watched),
        look_test("stuck: thresholds, groups and the plugin's answer", thresholds),
        look_test("stuck: in a namespace of another process, by commands that go there", foreign),
        look_test("stuck: held in another pid namespace", other_pids),
        test("stuck: what ss -tanpei shows, line by line", against_ss),
        look_test("stuck: without root it says what it cannot see", unprivileged),
        look_test("sockets: what /proc/net/tcp shows, and who holds each", sockets),
        look_test("sockets: filters and order", filters),
    ];
    for kind in Kind::ALL {
        tests.push(look_test(format!("stuck: every reason of a CLOSE_WAIT, {kind:?}"), move || {
            close_wait(kind)
        }));
    }
    tests
}

/// The records of a look at a namespace, checked against the schema.
pub(crate) fn look(netns: u64, args: &[&str]) -> Vec<Value> {
    let netns = netns.to_string();
    let args = [args, &["--format", "json", "--netns", &netns]].concat();
    let output = sockstate().args(args).output().expect("sockstate");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", output.status);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    records.iter().for_each(schema::check);
    records
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().expect("address").as_socket().expect("IP").port()
}

/// The descriptors of each process in a record.
pub(crate) fn holders(record: &Value) -> Vec<(u64, u64)> {
    let list = record["holders"].as_array().expect("holders");
    list.iter()
        .map(|holder| (holder["pid"].as_u64().expect("pid"), holder["fd"].as_u64().expect("fd")))
        .collect()
}

/// The reason, the unread bytes, and the holders in a record.
type Wanted = (&'static str, u64, Vec<(u64, u64)>);

fn close_wait(kind: Kind) {
    let own = u64::from(process::id());
    in_lab(|netns| {
        let port = fresh_port();
        let listener = kind.listen(port);
        let fd = |socket: &Socket| (own, socket.as_raw_fd() as u64);
        let mut wanted: BTreeMap<u16, Wanted> = BTreeMap::new();
        let open = || {
            let client = kind.connect(port).expect("connect");
            (port_of(&client), client, listener.accept().expect("accept").0)
        };
        // The port of the client identifies its server.
        let (id, client, eof) = open();
        drop(client);
        wanted.insert(id, ("eof_unread", 0, vec![fd(&eof)]));

        let (id, mut client, unread) = open();
        client.write_all(&[7; 100]).expect("write");
        drop(client);
        wanted.insert(id, ("unread_data", 100, vec![fd(&unread)]));

        let (id, client, mut leaked) = open();
        drop(client);
        assert_eq!(leaked.read(&mut [0]).expect("read"), 0);
        wanted.insert(id, ("not_closed", 0, vec![fd(&leaked)]));

        let (id, client, given) = open();
        drop(client);
        let number = keep_over_exec(&given);
        let stranger = Sleeper::start();
        drop(given);
        wanted.insert(id, ("held_by_child", 0, vec![(u64::from(stranger.pid()), number as u64)]));

        let (id, client, given) = open();
        drop(client);
        let number = keep_over_exec(&given);
        let mut worker = Actor::start("holder", number);
        worker.hear();
        drop(given);
        wanted.insert(id, ("eof_unread", 0, vec![(u64::from(worker.pid()), number as u64)]));
        let worker_port = id;

        let (id, client, sent) = open();
        drop(client);
        let (near, far) = UnixStream::pair().expect("pair");
        send_fd(&near, sent.as_fd());
        drop(sent);
        wanted.insert(id, ("in_flight", 0, Vec::new()));

        let client = kind.connect(port).expect("connect");
        let id = port_of(&client);
        drop(client);
        wanted.insert(id, ("never_accepted", 0, Vec::new()));

        wait_for_states(&[&["LISTEN"][..], &["CLOSE_WAIT"; 7], &["FIN_WAIT2"; 7]].concat());
        let found = look(netns, &["close-wait", "--older-than", "0"]);
        for record in &found {
            let id = record["remote"]["port"].as_u64().expect("port") as u16;
            let (reason, unread, held_by) = wanted.remove(&id).expect("one of ours, once");
            assert_eq!(record["reason"], reason, "{record}");
            assert_eq!(record["unread_bytes"], unread, "{record}");
            assert_eq!(holders(record), held_by, "{record}");
            assert_eq!(record["state"], "CLOSE_WAIT");
            assert_eq!(record["network"]["type"], kind.network_type());
            assert_eq!(
                (&record["local"]["port"], record["age_at_least"].as_bool()),
                (&port.into(), Some(true))
            );
            let made_by_us =
                ["held_by_child", "in_flight", "never_accepted"].contains(&reason) || id == worker_port;
            assert_eq!(record["creator"]["pid"].as_u64(), made_by_us.then_some(own), "{record}");
            check_commands(record, &held_by);
        }
        assert!(wanted.is_empty(), "not found: {wanted:?}");
        drop((eof, unread, leaked, near, far, stranger));
        worker.end();
    });
}

/// Checks that the printed commands match this socket and no other.
fn check_commands(record: &Value, held_by: &[(u64, u64)]) {
    let commands: Vec<&str> =
        record["commands"].as_array().expect("commands").iter().filter_map(Value::as_str).collect();
    let (kill, list) = commands.split_last().expect("a command");
    for (command, (pid, fd)) in list.iter().zip(held_by) {
        assert_eq!(*command, format!("ls -l /proc/{pid}/fd/{fd}"));
    }
    assert_eq!(list.len(), held_by.len());
    // `ss` with the same filter, without -K.
    assert!(kill.contains("ss -K "), "{kill}");
    let Ok(output) = Command::new("sh").args(["-c", &kill.replacen("-K", "-n -H", 1)]).output() else {
        return;
    };
    if output.status.code() == Some(127) {
        // The virtual machines have no `ss`.
        return;
    }
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{kill}: {output:?}");
    assert_eq!(shown.lines().count(), 1, "{kill}: {shown}");
    assert!(shown.starts_with("CLOSE-WAIT"), "{kill}: {shown}");
    assert!(shown.trim().ends_with(&format!(":{}", record["remote"]["port"])), "{kill}: {shown}");
}

fn peers() {
    in_lab(|netns| {
        sysctl("ipv4/tcp_retries2", "15").expect("sysctl");
        let port = fresh_port();
        // The FIN is not acknowledged, so the state stays FIN_WAIT1.
        let (listener, client, server) = Kind::V4.pair(port);
        make_deaf(&server);
        drop(client);
        // The client shuts down, and the peer does not close.
        let (half, stays) = {
            let half = Kind::V4.connect(port).expect("connect");
            (half, listener.accept().expect("accept").0)
        };
        half.shutdown(Shutdown::Write).expect("shutdown");
        wait_for_states(&["LISTEN", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT"]);
        let fin_wait1 = wait_for_one(netns, "FIN_WAIT1", "200ms");
        assert_eq!(
            (&fin_wait1["reason"], &fin_wait1["age_ns"]),
            (&"peer_not_answering".into(), &Value::Null)
        );
        assert!(fin_wait1["unanswered_ns"].as_u64() >= Some(200_000_000), "{fin_wait1}");
        assert_eq!((&fin_wait1["unsent_bytes"], &fin_wait1["timer"]["name"]), (&0.into(), &"on".into()));
        let fin_wait2 = look(netns, &["stuck", "--state", "fin-wait-2", "--older-than", "0"]);
        assert_eq!(fin_wait2.len(), 1, "{fin_wait2:?}");
        assert_eq!(fin_wait2[0]["reason"], "peer_keeps_open");
        assert_eq!(holders(&fin_wait2[0]), [(process::id().into(), half.as_raw_fd() as u64)]);
        drop((server, stays));
    });
}

/// Waits until the only socket in `state` has been in it for long enough, and has this reason.
fn wait_for_one(netns: u64, state: &str, older_than: &str) -> Value {
    let mut found = Vec::new();
    wait_until(state, || {
        found = look(netns, &["stuck", "--state", state, "--older-than", older_than]);
        matches!(&found[..], [one] if one["reason"] != "unknown")
    });
    found.remove(0)
}

fn others() {
    in_lab(|netns| {
        let port = fresh_port();
        let (listener, client, stays) = Kind::V4.pair(port);
        // No process holds the socket, and the peer sends no FIN.
        drop(client);
        let orphan = wait_for_one(netns, "FIN_WAIT2", "0");
        assert_eq!(orphan["reason"], "orphan_waits_for_fin", "{orphan}");
        assert_eq!((holders(&orphan).len(), &orphan["timer"]["name"]), (0, &"timewait".into()), "{orphan}");
        // The peer's window is closed, and the FIN waits behind data that does not fit into it.
        let mut full = Kind::V4.connect(port).expect("connect");
        let reads_nothing = listener.accept().expect("accept").0;
        full.set_nonblocking(true).expect("nonblocking");
        let mut written = 0;
        while let Ok(count) = full.write(&[7; 1 << 16]) {
            written += count as u64;
        }
        drop(full);
        // On a slow machine, the last segment may still wait for its acknowledgment before that.
        wait_until("the peer's window is closed", || {
            wait_for_one(netns, "FIN_WAIT1", "0")["reason"] == "peer_takes_nothing"
        });
        let closed_window = wait_for_one(netns, "FIN_WAIT1", "0");
        assert_eq!(closed_window["reason"], "peer_takes_nothing", "{closed_window}");
        // Data that came while the peer had no room is sent again. All other data waits for the answer to a probe.
        let timer = closed_window["timer"]["name"].as_str();
        assert!(matches!(timer, Some("persist" | "on")), "{closed_window}");
        // When no acknowledgment is on its way, each byte is in the queue of one side.
        wait_until("all bytes are somewhere", || {
            let found = look(netns, &["sockets", "--port", &port.to_string()]);
            let bytes = |record: &Value| record["unread_bytes"].as_u64().max(record["unsent_bytes"].as_u64());
            found.iter().filter_map(bytes).sum::<u64>() == written
        });
        // From now on the peer does not answer.
        make_deaf(&reads_nothing);
        wait_until("no answer", || wait_for_one(netns, "FIN_WAIT1", "0")["reason"] == "peer_not_answering");
        // The last ACK of the handshake does not come.
        let half_open = Kind::V4.start_deaf_connect(port);
        let request = wait_for_one(netns, "SYN_RECV", "1100ms");
        assert_eq!((&request["reason"], &request["mini"]), (&"handshake_unfinished".into(), &true.into()));
        drop((stays, reads_nothing, half_open));
    });
}

fn watched() {
    use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create};
    in_lab(|netns| {
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let epoll = create(CreateFlags::CLOEXEC).expect("epoll");
        let mut kept = Vec::new();
        for events in [None, Some(EventFlags::IN), Some(EventFlags::OUT)] {
            drop(Kind::V4.connect(port).expect("connect"));
            let server = listener.accept().expect("accept").0;
            if let Some(events) = events {
                add(&epoll, &server, EventData::new_u64(0), events).expect("add");
            }
            kept.push(server);
        }
        wait_for_states(&[&["LISTEN"][..], &["CLOSE_WAIT"; 3], &["FIN_WAIT2"; 3]].concat());
        kept[2].set_keepalive(true).expect("keepalive");
        let number = netns.to_string();
        let table = ["close-wait", "--older-than", "0", "--format", "table", "--netns", &number];
        let output = sockstate().args(table).output().expect("sockstate");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let timers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  timer ")).collect();
        assert_eq!(timers.len(), 2, "one with keepalive, and two without together: {text}");
        assert!(timers.iter().any(|timer| timer.starts_with("keepalive in ")), "{text}");
        assert!(timers.iter().any(|timer| timer.starts_with("none")), "{text}");
        let found = look(netns, &["close-wait", "--older-than", "0"]);
        let said = |socket: &Socket| {
            let fd = socket.as_raw_fd() as u64;
            let record = found.iter().find(|record| holders(record)[0].1 == fd).expect("each is found");
            let advice = record["advice"].as_str().expect("advice").to_owned();
            (record["holders"][0]["epoll"].clone(), advice)
        };
        for (socket, events, advice) in [
            (&kept[0], &[][..], "which none of its epoll instances watches"),
            (&kept[1], &["EPOLLIN", "EPOLLERR", "EPOLLHUP"], "although its epoll waits for EPOLLIN"),
            (&kept[2], &["EPOLLOUT", "EPOLLERR", "EPOLLHUP"], "only, not for EPOLLIN"),
        ] {
            let (epoll, text) = said(socket);
            assert_eq!(epoll, Value::from(events), "{text}");
            assert!(text.contains(advice), "{text}");
        }
    });
}

fn thresholds() {
    in_lab(|netns| {
        let port = fresh_port();
        let (_listener, client, server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let rule = format!("CLOSE_WAIT:{port}=0");
        let comm = std::fs::read_to_string("/proc/self/comm").expect("comm");
        let never = format!("@{}=never", comm.trim());
        let count = |args: &[&str]| look(netns, args).len();
        assert_eq!(count(&["stuck"]), 0, "younger than the default");
        assert_eq!(count(&["stuck", "--threshold", &rule]), 1);
        assert_eq!(count(&["stuck", "--threshold", &rule, "--threshold", &never]), 0, "the last counts");
        assert_eq!(count(&["stuck", "--threshold", "CLOSE_WAIT:1=0"]), 0, "another port");
        assert_eq!(count(&["stuck", "--older-than", "0", "--state", "LAST_ACK"]), 0);
        assert_eq!(count(&["stuck", "--older-than", "0", "--pid", "1"]), 0);

        let groups = look(netns, &["close-wait", "--older-than", "0", "--group-by", "process"]);
        assert_eq!((groups.len(), &groups[0]["count"]), (1, &1.into()), "{groups:?}");
        let key = groups[0]["key"].as_str().expect("key");
        assert!(key.ends_with(&format!("({})", process::id())), "{key}");
        assert_eq!(groups[0]["states"]["CLOSE_WAIT"], 1);

        for (args, code, word) in [
            (&["--check"][..], 0, "OK - 0 "),
            (&["--check", "--older-than", "0"], 1, "WARNING - 1 "),
            (&["--check", "--older-than", "0", "--crit", "1"], 2, "CRITICAL - 1 "),
            (&["--check", "--older-than", "0", "--warn", "2"], 0, "OK - 1 "),
        ] {
            let netns = netns.to_string();
            let output =
                sockstate().args(["close-wait", "--netns", &netns]).args(args).output().expect("sockstate");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
            assert!(text.starts_with(&format!("SOCKSTATE {word}")) && text.contains("| stuck="), "{text}");
            assert_eq!(text.lines().count(), 1);
        }
        drop(server);
    });
}

/// The process of the look is not in the namespace.
fn foreign() {
    let port = fresh_port();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(move |scope| {
        // The sender is dropped also when a check fails, so that the other thread ends.
        let done = done;
        scope.spawn(move || {
            in_lab(move |netns| {
                let (_listener, client, server) = Kind::V4.pair(port);
                drop(client);
                wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
                sender.send(netns).expect("send");
                let _ = wait.recv();
                drop(server);
            });
        });
        let netns = receiver.recv().expect("namespace");
        let found = look(netns, &["close-wait", "--older-than", "0", "--local-port", &port.to_string()]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["netns"], netns);
        let kill = found[0]["commands"][1].as_str().expect("command");
        assert!(kill.starts_with("nsenter --net=/proc/"), "{kill}");
        if !crate::observer::is_in_vm() {
            check_commands(&found[0], &holders(&found[0]));
        }
        done.send(()).expect("send");
    });
}

/// The holder has pid 1 in its own pid namespace. Records have its pid in the namespace of the test.
fn other_pids() {
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        let number = keep_over_exec(&server);
        let start = || {
            // SAFETY: takes a number; concerns the children of this thread only.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
            Actor::start("holder", number)
        };
        let mut child = std::thread::scope(|scope| scope.spawn(start).join()).expect("actor");
        child.hear();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid())).expect("status");
        let numbers = status.lines().find(|line| line.starts_with("NSpid:")).expect("NSpid");
        assert_eq!(numbers, format!("NSpid:\t{}\t1", child.pid()));
        drop((client, server));
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let found = look(netns, &["close-wait", "--older-than", "0"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(holders(&found[0]), [(u64::from(child.pid()), number as u64)]);
        // The holder runs the same program as the process that listens.
        assert_eq!(found[0]["reason"], "eof_unread");
        child.end();
    });
}

/// Unread bytes, age in ms, and the descriptors of each process, by the port of the peer.
type Shown = BTreeMap<u64, (u64, i64, Vec<(u64, u64)>)>;

fn shown_by_ss() -> Shown {
    let output = Command::new("ss").args(["-HOtanpei", "state", "close-wait"]).output().expect("ss");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().expect("a number")
    };
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = fields[3].rsplit(':').next().map(number).expect("port");
        let mut held: Vec<(u64, u64)> = line
            .split("pid=")
            .skip(1)
            .map(|rest| (number(rest), rest.split_once("fd=").map(|(_, fd)| number(fd)).expect("fd")))
            .collect();
        held.sort_unstable();
        let age = line.split_once("lastack:").map_or(0, |(_, ms)| number(ms));
        // In CLOSE_WAIT the FIN counts as a byte until it is read.
        (port, (number(fields[0]).saturating_sub(1), age as i64, held))
    };
    text.lines().map(line).collect()
}

fn against_ss() {
    if !Command::new("ss").arg("-V").output().is_ok_and(|output| output.status.success()) {
        return crate::skip("needs ss");
    }
    in_lab(|netns| {
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut kept = Vec::new();
        for bytes in [0, 1, 77, 5000] {
            let mut client = Kind::V4.connect(port).expect("connect");
            kept.push(listener.accept().expect("accept").0);
            client.write_all(&vec![7; bytes]).expect("write");
            if bytes == 77 {
                // A second process holds the socket, and this process has a second descriptor of it.
                kept.push(kept[kept.len() - 1].try_clone().expect("dup"));
            }
        }
        // No process accepts this connection.
        drop(Kind::V4.connect(port).expect("connect"));
        let inherited = kept[0].try_clone().expect("dup");
        let mut child = Actor::start("holder", keep_over_exec(&inherited));
        child.hear();
        // Otherwise every command that the test starts would inherit the socket.
        drop(inherited);
        // The sockets are so old that a missing age would be noticed.
        while look(netns, &["close-wait", "--older-than", "0.4"]).len() < 5 {}
        let begin = std::time::Instant::now();
        let ours = look(netns, &["close-wait", "--older-than", "0"]);
        let theirs = shown_by_ss();
        let between = begin.elapsed().as_millis() as i64;
        assert_eq!((ours.len(), theirs.len()), (5, 5));
        for record in &ours {
            let (unread, age, held) = &theirs[&record["remote"]["port"].as_u64().expect("port")];
            assert_eq!(record["unread_bytes"], *unread, "{record}");
            assert_eq!(holders(record), *held, "{record}");
            let off = age - (record["age_ns"].as_u64().expect("age") / 1_000_000) as i64;
            assert!((-100..=100 + between).contains(&off), "off by {off} ms, {between} ms later: {record}");
        }
        assert_eq!(theirs.values().filter(|(_, _, held)| held.is_empty()).count(), 1);
        assert!(theirs.values().any(|(_, _, held)| held.len() == 2));
        child.end();
    });
}

fn unprivileged() {
    let directory = tempfile::tempdir().expect("directory");
    let binary = directory.path().join("sockstate");
    std::fs::copy(env!("CARGO_BIN_EXE_sockstate"), &binary).expect("copy");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody).expect("permissions");
    in_lab(|_| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let run = |args: &[&str]| {
            let mut command = Command::new(&binary);
            command.args(args).current_dir("/").uid(65534).gid(65534).output().expect("sockstate")
        };
        let output = run(&["close-wait", "--older-than", "0", "--format", "json"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        assert!(error.contains("descriptors") && error.contains("namespaces"), "{error}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let records: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        records.iter().for_each(schema::check);
        let [socket, look] = &records[..] else { panic!("the socket, and that it is not all: {text}") };
        assert_eq!((&look["kind"], &look["complete"]), (&"look".into(), &false.into()));
        assert_eq!((&socket["reason"], holders(socket).len()), (&"holder_hidden".into(), 0), "{socket}");
        let check = run(&["close-wait", "--check"]);
        assert_eq!(check.status.code(), Some(3), "{check:?}");
        drop(server);
    });
}

fn sockets() {
    for kind in Kind::ALL {
        in_lab(|netns| {
            let (listener, client, server) = kind.pair(fresh_port());
            let (other, gone, left) = kind.pair(fresh_port());
            drop(gone);
            let shown = wait_for_states(&[
                "LISTEN",
                "LISTEN",
                "ESTABLISHED",
                "ESTABLISHED",
                "FIN_WAIT2",
                "CLOSE_WAIT",
            ]);
            let found = look(netns, &["sockets"]);
            let mut said: Vec<_> = found
                .iter()
                .map(|record| {
                    let port = |end: &str| record[end]["port"].as_u64().unwrap_or(0) as u16;
                    (port("local"), port("remote"), record["state"].as_str().expect("state").to_owned())
                })
                .collect();
            said.sort();
            assert_eq!(said, shown);
            assert_eq!(proc_net_tcp(), shown);
            for record in &found {
                let known = [&listener, &client, &server, &other, &left];
                let ours = known.iter().find(|socket| {
                    let end = |record: &Value| record["port"].as_u64().unwrap_or(0) as u16;
                    let peer = socket
                        .peer_addr()
                        .ok()
                        .and_then(|address| address.as_socket())
                        .map_or(0, |record| record.port());
                    (port_of(socket), peer) == (end(&record["local"]), end(&record["remote"]))
                });
                let wanted: Vec<_> = ours
                    .map(|socket| (u64::from(process::id()), socket.as_raw_fd() as u64))
                    .into_iter()
                    .collect();
                assert_eq!(holders(record), wanted, "{record}");
            }
        });
    }
}

fn filters() {
    in_lab(|netns| {
        let (port, other) = (fresh_port(), fresh_port());
        let (_a, _b, _c) = Kind::V4.pair(port);
        let (_d, _e, _f) = Kind::V6.pair(other);
        let port = port.to_string();
        let count = |args: &[&str]| look(netns, &[&["sockets"], args].concat()).len();
        assert_eq!(count(&[]), 6);
        assert_eq!(count(&["-4"]), 3);
        assert_eq!(count(&["-6"]), 3);
        assert_eq!(count(&["--port", &port]), 3);
        assert_eq!(count(&["--remote-port", &port]), 1);
        assert_eq!(count(&["--state", "listening"]), 2);
        assert_eq!(count(&["--remote", "::1", "--state", "ESTABLISHED"]), 2);
        assert_eq!(count(&["--pid", &process::id().to_string()]), 6);
        assert_eq!(count(&["--comm", "nobody"]), 0);
        let states: Vec<Value> = look(netns, &["sockets", "--sort", "state"])
            .iter()
            .map(|record| record["state"].clone())
            .collect();
        assert_eq!(states, ["ESTABLISHED", "ESTABLISHED", "ESTABLISHED", "ESTABLISHED", "LISTEN", "LISTEN"]);
    });
}
