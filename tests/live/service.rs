//! What the daemon reports to the service manager. A socket of the test takes the part of systemd.

use std::{fs, os::unix::net::UnixDatagram, path::PathBuf, process::Stdio, ptr::null_mut, time::Duration};

use crate::{
    Test,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{in_lab, signal, wait_until},
    observer::patience,
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("service: the start, reloads and the end are reported in order", in_order),
        test("service: the watchdog notices a main loop that stands still", standing_still),
        test("service: a service manager that reads nothing does not stop the daemon", deaf_manager),
    ]
}

/// The service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("socket");
        Self { socket, path, _directory: directory }
    }

    /// A daemon that this service manager watches.
    fn start(&self, netns: u64, watchdog: Option<Duration>) -> Raw {
        Raw::start(netns, FILE, |command| {
            command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_PID").stderr(Stdio::null());
            match watchdog {
                Some(limit) => command.env("WATCHDOG_USEC", limit.as_micros().to_string()),
                None => command.env_remove("WATCHDOG_USEC"),
            };
        })
    }

    /// The next message; `None` if none comes within the time limit.
    fn within(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).expect("time limit");
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).expect("UTF-8"))
    }

    /// The next message that is more than a status.
    fn next(&self) -> String {
        loop {
            let message = self.within(patience()).expect("a message");
            if !message.starts_with("STATUS=") {
                return message;
            }
        }
    }

    fn drain(&self) {
        while self.within(Duration::from_millis(1)).is_some() {}
    }
}

fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

/// The value of a variable in a message.
fn value<'a>(message: &'a str, name: &str) -> &'a str {
    let mut pairs = message.lines().filter_map(|line| line.split_once('='));
    pairs.find(|(key, _)| *key == name).unwrap_or_else(|| panic!("no {name} in {message}")).1
}

fn in_order() {
    in_lab(|netns| {
        let port = fresh_port();
        let manager = Manager::new();
        let mut daemon = manager.start(netns, None);
        let ready = manager.next();
        assert_eq!(value(&ready, "READY"), "1");
        let status = value(&ready, "STATUS");
        assert!(
            status.starts_with("tracing with ") && status.contains("0 transitions; nothing lost"),
            "{status}"
        );
        assert!(daemon.path("out").exists(), "the sink is open");
        // What happens from now on is traced.
        connections(1, port);
        daemon.wait_for("\"to\":\"TIME_WAIT\"");
        for sinks in [FILE.to_owned(), format!("{FILE}[sinks.b]\ntype = \"tape\"\n")] {
            daemon.write(&sinks);
            let before = monotonic_micros();
            signal(daemon.pid(), libc::SIGHUP);
            let reloading = manager.next();
            assert_eq!(value(&reloading, "RELOADING"), "1");
            let at: i64 = value(&reloading, "MONOTONIC_USEC").parse().expect("a number");
            assert!((before..=monotonic_micros()).contains(&at), "{at}");
            let ready = manager.next();
            assert_eq!(value(&ready, "READY"), "1");
            assert!(!value(&ready, "STATUS").contains(" 0 transitions"), "{ready}");
        }
        signal(daemon.pid(), libc::SIGTERM);
        assert_eq!(value(&manager.next(), "STOPPING"), "1");
        assert!(daemon.end_now().success());
        assert_eq!(manager.within(Duration::from_millis(1)), None, "the end is the last message");
    });
}

/// The states of the threads by /proc: the main thread's, and the others'.
fn thread_states(pid: u32) -> (char, Vec<char>) {
    let state = |id: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    let main = pid.to_string();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let ids = tasks.map(|task| task.expect("thread").file_name().to_string_lossy().into_owned());
    (state(&main).expect("state"), ids.filter(|id| *id != main).filter_map(|id| state(&id)).collect())
}

/// A debugger stops the main thread, and no other: a message from another thread would show that.
fn standing_still() {
    in_lab(|netns| {
        let manager = Manager::new();
        let limit = Duration::from_millis(200);
        let mut daemon = manager.start(netns, Some(limit));
        assert_eq!(value(&manager.next(), "READY"), "1");
        for _ in 0..3 {
            assert_eq!(manager.next(), "WATCHDOG=1\n");
        }
        let pid = daemon.pid() as libc::pid_t;
        let trace = |request| {
            // SAFETY: these requests take no pointers, and the process is a child of this test.
            let result =
                unsafe { libc::ptrace(request, pid, null_mut::<libc::c_void>(), null_mut::<libc::c_void>()) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        };
        trace(libc::PTRACE_SEIZE);
        trace(libc::PTRACE_INTERRUPT);
        wait_until("the main thread stands still", || thread_states(daemon.pid()).0 == 't');
        let (_, others) = thread_states(daemon.pid());
        assert!(!others.is_empty() && !others.contains(&'t'), "the other threads go on: {others:?}");
        manager.drain();
        assert_eq!(manager.within(10 * limit), None, "nobody says that the loop goes on");
        // SAFETY: takes numbers and no pointer to write to.
        assert_eq!(unsafe { libc::waitpid(pid, null_mut(), libc::__WALL) }, pid);
        trace(libc::PTRACE_DETACH);
        assert_eq!(manager.next(), "WATCHDOG=1\n");
        assert!(daemon.end_now().success());
    });
}

fn deaf_manager() {
    in_lab(|netns| {
        let port = fresh_port();
        let manager = Manager::new();
        // The queue of the socket is full after some milliseconds.
        let mut daemon = manager.start(netns, Some(Duration::from_millis(2)));
        daemon.wait_for("\"kind\":\"start\"");
        connections(1, port);
        daemon.wait_for("\"to\":\"TIME_WAIT\"");
        signal(daemon.pid(), libc::SIGHUP);
        connections(1, port);
        wait_until("the records go on", || {
            let records = fs::read_to_string(daemon.path("out")).expect("records");
            records.matches("\"to\":\"TIME_WAIT\"").count() == 2
        });
        assert_eq!(value(&manager.next(), "READY"), "1");
        // Once it reads again, it gets the newest state.
        while !manager.next().contains("READY=1\n") {}
        assert!(daemon.end_now().success());
    });
}
