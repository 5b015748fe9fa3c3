//! Every source of an owner, compared with what the processes know of themselves.

use std::{
    collections::BTreeMap,
    io::Read,
    os::{fd::AsFd, unix::net::UnixStream},
    process,
};

use serde_json::{Value, json};

use crate::{
    Test,
    lab::{Story, Tracer, in_lab, own_netns, path, sockstate, wait_until},
    look_test,
    observer::wait_for_states,
    roles::{Actor, inheritable, send_fd},
    sockets::{Kind, fresh_port, keep_over_exec},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("owners: a client and a listener, each its own process", client_and_listener),
        test("owners: a forked worker that accepts and closes", forked_worker),
        test("owners: a connection inherited over fork and exec", inherited_connection),
        test("owners: a connection passed over a unix socket", passed_connection),
        test("owners: a thread with another name", named_thread),
        test("owners: a connection that is never accepted", never_accepted),
        test("owners: two listeners on one port", two_listeners),
        test("owners: a killed process keeps its name", killed),
        look_test("owners: the cgroup of the socket, and the container that it belongs to", cgroup),
        test("owners: the command line only when asked for", command_line),
    ]
}

/// The owner, as (pid, source), of each transition.
fn owners(connection: &[&Value]) -> Vec<(u64, String)> {
    connection
        .iter()
        .map(|record| {
            let owner = &record["owner"];
            (owner["pid"].as_u64().unwrap_or(0), owner["source"].as_str().unwrap_or("null").to_owned())
        })
        .collect()
}

/// The same owner `count` times.
fn times(count: usize, pid: u32, source: &str) -> Vec<(u64, String)> {
    vec![(pid.into(), source.to_owned()); count]
}

fn check_identity(story: &Story, netns: u64) {
    let exe = std::env::current_exe().expect("exe");
    for record in story.transitions() {
        let owner = &record["owner"];
        assert_eq!(
            owner["comm"].as_str(),
            exe.file_name().map(|name| &name.to_str().expect("name")[..15.min(name.len())]),
            "{record}"
        );
        assert_eq!(owner["exe"].as_str(), exe.to_str(), "{record}");
        assert_eq!(owner["uid"], 0, "{record}");
        assert_eq!(record["netns"], netns, "{record}");
        assert!(owner.get("cmdline").is_none(), "{record}");
    }
}

fn client_and_listener() {
    let port = fresh_port();
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let listener = Kind::V4.listen(port);
        let mut client = Actor::start("client", port);
        let pid = client.pid();
        client.hear();
        let server = listener.accept().expect("accept").0;
        // The name of a process can be read as long as the process exists.
        tracer.wait_for(|record| record["role"] == "client" && record["to"] == "ESTABLISHED");
        // The client exits with its connection open: the kernel closes the connection in the ending process.
        client.end();
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop(server);
        let story = tracer.stop();
        assert_eq!(owners(&story.only("client")), times(5, pid, "connect"));
        assert_eq!(owners(&story.only("server")), times(5, process::id(), "inherited"));
        assert_eq!(owners(&story.only("listener")), times(1, process::id(), "listen"));
        check_identity(&story, netns);
    });
}

fn forked_worker() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let listener = Kind::V4.listen(port);
        let mut worker = Actor::start("accepter", keep_over_exec(&listener));
        let client = Kind::V4.connect(port).expect("connect");
        assert_eq!(worker.hear(), "accepted");
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        worker.go_on();
        assert_eq!(worker.hear(), "closed");
        let story = tracer.stop();
        let server = owners(&story.only("server"));
        assert_eq!(server[..3], times(3, process::id(), "inherited"), "until somebody is seen to act");
        assert_eq!(server[3..], times(2, worker.pid(), "close"), "the worker called close");
        check_identity(&story, netns);
        worker.end();
    });
}

fn inherited_connection() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let (_listener, client, _server) = Kind::V4.pair(port);
        let mut holder = Actor::start("holder", keep_over_exec(&client));
        holder.hear();
        // The parent's close is not the last one: no transition.
        drop(client);
        holder.go_on();
        assert_eq!(holder.hear(), "closed");
        let story = tracer.stop();
        let client = owners(&story.only("client"));
        assert_eq!(client[..2], times(2, process::id(), "connect"));
        assert_eq!(client[2..], times(3, holder.pid(), "close")[..client.len() - 2]);
        holder.end();
    });
}

fn passed_connection() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let (_listener, client, server) = Kind::V4.pair(port);
        let (here, there) = UnixStream::pair().expect("pair");
        let mut receiver = Actor::start("receiver", inheritable(&there));
        drop(there);
        send_fd(&here, server.as_fd());
        drop(server);
        assert_eq!(receiver.hear(), "received");
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        receiver.go_on();
        assert_eq!(receiver.hear(), "closed");
        let story = tracer.stop();
        let server = owners(&story.only("server"));
        assert_eq!(server[..3], times(3, process::id(), "inherited"));
        assert_eq!(server[3..], times(2, receiver.pid(), "close"));
        receiver.end();
    });
}

fn named_thread() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let mut server = Actor::start("thread listener", port);
        assert_eq!(server.hear(), "listening");
        let client = Kind::V4.connect(port).expect("connect");
        assert_eq!(server.hear(), "closed");
        drop(client);
        let story = tracer.stop();
        // The thread listens, accepts and closes; the owner is its process, by the process's name.
        assert!(
            owners(&story.only("server"))
                .iter()
                .all(|owner| *owner == (server.pid().into(), "inherited".into()))
        );
        assert!(
            owners(&story.only("listener"))
                .iter()
                .all(|owner| *owner == (server.pid().into(), "listen".into()))
        );
        check_identity(&story, netns);
        server.end();
    });
}

fn never_accepted() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let listener = Kind::V6.listen(port);
        let connection = Kind::V6.connect(port).expect("connect");
        drop(connection);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop(listener);
        let story = tracer.stop();
        let server = story.only("server");
        assert_eq!(path(&server), ["LISTEN", "SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "CLOSE"]);
        assert_eq!(owners(&server), times(4, process::id(), "inherited"));
    });
}

fn two_listeners() {
    const CLIENTS: usize = 24;
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        let mut listeners = [Actor::start("reuseport", port), Actor::start("reuseport", port)];
        for listener in &mut listeners {
            assert_eq!(listener.hear(), "listening");
        }
        for _ in 0..CLIENTS {
            // The server closes each connection as soon as it has accepted it.
            let mut client: std::net::TcpStream = Kind::V4.connect(port).expect("connect").into();
            assert_eq!(client.read(&mut [0]).expect("read"), 0);
        }
        let pids = listeners.each_ref().map(Actor::pid);
        let story = tracer.stop();
        // Which process accepted which client, as the processes printed it.
        let mut accepted: BTreeMap<u64, u32> = BTreeMap::new();
        let servers: Vec<_> =
            story.connections().into_iter().filter(|connection| connection[0]["role"] == "server").collect();
        assert_eq!(servers.len(), CLIENTS);
        let share =
            |pid: u32| servers.iter().filter(|connection| connection[0]["owner"]["pid"] == pid).count();
        for (listener, pid) in listeners.iter_mut().zip(pids) {
            for _ in 0..share(pid) {
                accepted.insert(listener.hear().parse().expect("port"), pid);
            }
        }
        for server in &servers {
            let peer = server[1]["remote"]["port"].as_u64().expect("port");
            assert_eq!(
                server[0]["owner"]["pid"].as_u64(),
                accepted.get(&peer).map(|&pid| pid.into()),
                "{peer}"
            );
            assert_eq!(server[0]["owner"]["source"], "inherited");
        }
        assert!(pids.iter().all(|&pid| share(pid) > 0), "both had some");
    });
}

fn killed() {
    let port = fresh_port();
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        let listener = Kind::V4.listen(port);
        let mut client = Actor::start("client", port);
        let pid = client.pid();
        client.hear();
        let server = listener.accept().expect("accept").0;
        tracer.wait_for(|record| record["role"] == "client" && record["to"] == "ESTABLISHED");
        client.kill();
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop(server);
        let story = tracer.stop();
        assert_eq!(owners(&story.only("client")), times(5, pid, "connect"));
        check_identity(&story, netns);
    });
}

fn cgroup() {
    let Some(mount) = cgroup2_mount() else {
        panic!("this machine has no cgroup v2 to test with");
    };
    let group = mount.join(format!("sockstate-test-{}.service", process::id()));
    // The name of a container's cgroup, as docker chooses it with systemd.
    let id = "0123456789abcdef".repeat(4);
    let inner = group.join(format!("docker-{id}.scope"));
    std::fs::create_dir_all(&inner).expect("make cgroups");
    let port = fresh_port();
    let result = std::panic::catch_unwind(|| {
        in_lab(|_| {
            let name = format!("/{}", group.file_name().expect("name").to_str().expect("text"));
            let tracer = Tracer::start(own_netns(), &["--cgroup", &name]);
            let _outside = Kind::V4.listen(port);
            // It waits until it is in the cgroup before it makes its socket.
            let mut inside = Actor::start("late listener", port + 20_000);
            std::fs::write(inner.join("cgroup.procs"), inside.pid().to_string())
                .expect("move into the cgroup");
            inside.go_on();
            assert_eq!(inside.hear(), "listening");
            let mut look = sockstate();
            look.args(["sockets", "--format", "json", "--cgroup", &name]);
            let output = look.output().expect("sockstate");
            let found: Value = serde_json::from_slice(&output.stdout).expect("one socket");
            assert_eq!(found["holders"][0]["pid"], inside.pid());
            assert_eq!(found["container"]["id"], json!(id), "{found}");
            // Nobody accepts the connection: its cgroup shows whose it is.
            drop(Kind::V4.connect(port + 20_000).expect("connect"));
            let mut groups = Vec::new();
            wait_until("the container's socket is stuck", || {
                let mut stuck = sockstate();
                stuck.args(["close-wait", "--older-than", "0", "--format", "json", "--cgroup", &name]);
                groups = stuck.args(["--group-by", "container"]).output().expect("sockstate").stdout;
                !groups.is_empty()
            });
            let group: Value = serde_json::from_slice(&groups).expect("one group");
            assert_eq!((&group["key"], &group["count"]), (&json!(id), &json!(1)), "{group}");
            assert_eq!(group["reasons"], json!({"never_accepted": 1}));
            inside.kill();
            let story = tracer.stop();
            (story, name)
        })
    });
    // Processes leave a cgroup when they are waited for.
    std::fs::remove_dir(&inner).expect("remove the cgroup");
    std::fs::remove_dir(&group).expect("remove the cgroup");
    let (story, name) = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for record in story.transitions() {
        assert_eq!(record["cgroup"]["path"], json!(format!("{name}/docker-{id}.scope")), "{record}");
        assert_eq!(record["container"], json!({"id": id, "runtime": "docker"}), "{record}");
        assert_eq!(record["unit"], json!(name.trim_start_matches('/')), "{record}");
    }
    let listeners = story.transitions().filter(|record| record["role"] == "listener");
    assert_eq!(listeners.count(), 2, "the listener outside is not among them");
}

pub(crate) fn cgroup2_mount() -> Option<std::path::PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    line.split(' ').nth(1).map(Into::into)
}

fn command_line() {
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &["--cmdline"]);
        drop(Kind::V4.listen(port));
        let story = tracer.stop();
        let own: Vec<String> = std::env::args().collect();
        for record in story.transitions() {
            assert_eq!(record["owner"]["cmdline"], json!(own.join(" ")), "{record}");
        }
        assert_eq!(story.transitions().count(), 2);
    });
}
