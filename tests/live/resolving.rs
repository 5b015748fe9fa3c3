//! Collectors that are given by name: names with several addresses, and a host that cannot start a thread to resolve
//! them.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use socket2::{Domain, Socket, Type};

use crate::{
    Test,
    collectors::json,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{in_lab, wait_until},
    observer,
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("resolving: a name whose first address does not answer", first_is_silent),
        test("resolving: no thread can be started to resolve a name", no_thread),
    ]
}

/// Starts a collector on `listener`, and returns the lines that it reads.
fn collect(listener: TcpListener) -> Arc<Mutex<Vec<String>>> {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = Arc::clone(&lines);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                into.lock().expect("lock").push(line);
            }
        }
    });
    lines
}

/// A listener at `address` that answers no SYN, because its accept queue is full.
fn silent(address: SocketAddr) -> (Socket, TcpStream) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    listener.bind(&address.into()).expect("bind");
    listener.listen(0).expect("listen");
    let first = TcpStream::connect(address).expect("the queue holds one");
    (listener, first)
}

/// Gives this thread, and the processes that it starts, another /etc/hosts.
fn own_hosts(hosts: &str) {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), hosts).expect("hosts");
    // SAFETY: takes a number; only this thread moves.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", std::io::Error::last_os_error());
    let bind = [Path::new("--bind"), file.path(), Path::new("/etc/hosts")];
    for arguments in [&[Path::new("--make-rprivate"), Path::new("/")][..], &bind] {
        assert!(Command::new("mount").args(arguments).status().expect("mount").success());
    }
}

fn first_is_silent() {
    if observer::is_in_vm() {
        return crate::skip("a static program does not read /etc/hosts as others do");
    }
    in_lab(|netns| {
        let port = fresh_port();
        // The resolver prefers the address that shares the longest prefix with the source address.
        own_hosts("127.0.0.1 collector.test\n127.0.0.2 collector.test\n");
        let _full = silent(SocketAddr::from(([127, 0, 0, 1], port)));
        let lines = collect(TcpListener::bind(("127.0.0.2", port)).expect("listen"));
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let sinks =
            format!("{FILE}[sinks.named]\ntype = \"socket\"\naddress = \"tcp://collector.test:{port}\"\n");
        let mut daemon = Raw::start(netns, &sinks, |command| {
            command.stderr(stderr);
        });
        daemon.wait_for("\"kind\":\"start\"");
        connections(1, fresh_port());
        wait_until("it is delivered", || {
            lines.lock().expect("lock").iter().any(|line| line.contains("\"to\":\"TIME_WAIT\""))
        });
        assert!(daemon.end_now().success());
        let said = fs::read_to_string(errors.path()).expect("messages");
        assert!(!said.contains("cannot connect"), "no attempt failed: {said}");
        // The daemon also traces its own connects.
        let records = fs::read_to_string(daemon.path("out")).expect("records");
        let connects: Vec<String> = records
            .lines()
            .filter_map(json)
            .filter(|record| record["to"] == "SYN_SENT" && record["remote"]["port"] == port)
            .map(|record| record["remote"]["address"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(connects.first().map(String::as_str), Some("127.0.0.1"), "{connects:?}");
        assert!(connects.iter().any(|address| address == "127.0.0.2"), "{connects:?}");
    });
}

/// A cgroup that limits the number of threads. It is removed at the end of the test.
pub(crate) struct Pids(PathBuf);

impl Pids {
    /// `None` if the controller `pids` is not available.
    pub(crate) fn new() -> Option<Self> {
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let root = roots.iter().map(Path::new).find(|root| root.join("cgroup.procs").exists())?;
        let path = root.join(format!("sockstate-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        group.0.join("pids.max").exists().then_some(group)
    }

    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("cgroup");
    }

    pub(crate) fn limit(&self, most: &str) {
        fs::write(self.0.join("pids.max"), most).expect("cgroup");
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn no_thread() {
    in_lab(|netns| {
        let Some(pids) = Pids::new() else { return crate::skip("needs the cgroup controller pids") };
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen");
        let port = listener.local_addr().expect("address").port();
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let sink = format!("[sinks.named]\ntype = \"socket\"\naddress = \"tcp://localhost:{port}\"\n");
        let mut daemon = Raw::start(netns, &format!("{FILE}{sink}retry = \"200ms\"\n"), |command| {
            command.stderr(stderr);
        });
        let (mut stream, _) = listener.accept().expect("connection");
        pids.take(daemon.pid());
        // No further thread can start while one runs.
        pids.limit("1");
        let mut before = String::new();
        stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
        // The sink closes its connection after the collector has closed it.
        stream.read_to_string(&mut before).expect("records");
        connections(1, fresh_port());
        let said = || fs::read_to_string(errors.path()).expect("messages");
        let words =
            format!("sink named: cannot connect to localhost:{port}: Resource temporarily unavailable");
        wait_until("there is no thread", || said().contains(&words));
        pids.limit("max");
        let lines = collect(listener);
        wait_until("it is delivered", || {
            lines.lock().expect("lock").iter().any(|line| line.contains("\"to\":\"TIME_WAIT\""))
        });
        assert!(daemon.end_now().success());
        let lines = lines.lock().expect("lock").clone();
        let all = before.lines().chain(lines.iter().map(String::as_str));
        let seqs: Vec<u64> = all.filter_map(|line| json(line)?["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "nothing is missing");
    });
}
