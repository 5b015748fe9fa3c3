//! The daemon under hostile local users and in a poor environment: it continues, or it ends with a message, and never
//! panics.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Test,
    collectors::json,
    daemon::connections,
    lab::{in_lab, signal, sockstate, wait_until},
    look_test,
    roles::{Actor, copy_to},
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            "hostile: a standard error that nobody reads, or that is full, does not stop the daemon",
            deaf_stderr,
        ),
        test("hostile: signals during the start reload the daemon, or end it in order", early_signals),
        test("hostile: signals before its configuration is read are kept", first_signals),
        test("hostile: no other user can hold the lock", lock_of_others),
        test("hostile: without descriptors, threads or room for output it ends with a message", exhausted),
        test("hostile: silent clients do not block requests for health", silent_clients),
        look_test("hostile: a process's name commands no terminal and no monitoring", hostile_names),
    ]
}

/// A daemon with a configuration in a directory, as a process of its own.
pub(crate) struct Raw {
    child: Child,
    directory: tempfile::TempDir,
    head: String,
}

impl Raw {
    pub(crate) fn start(netns: u64, sinks: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_with("", netns, sinks, prepare)
    }

    /// As `start`, with keys before the first table of the configuration.
    pub(crate) fn start_with(top: &str, netns: u64, sinks: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_in(top, &format!("netns = {netns}"), sinks, prepare)
    }

    /// As `start`, with another filter.
    pub(crate) fn start_in(top: &str, filter: &str, sinks: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let head = format!("{top}[filter]\n{filter}\n[kernel]\nalongside = true\n");
        let mut command = sockstate();
        command.args(["run", "--config"]).arg(directory.path().join("config.toml"));
        prepare(&mut command);
        write_config(&directory, &head, sinks);
        Self { child: command.spawn().expect("sockstate"), directory, head }
    }

    /// Writes other sinks into the configuration.
    pub(crate) fn write(&self, sinks: &str) {
        write_config(&self.directory, &self.head, sinks);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn wait_for(&self, words: &str) {
        let text = || fs::read_to_string(self.path("out")).unwrap_or_default();
        wait_until(words, || text().contains(words));
    }

    /// Ends the daemon with SIGTERM, within the time limit of sinks.
    pub(crate) fn end_now(&mut self) -> ExitStatus {
        signal(self.child.id(), libc::SIGTERM);
        wait_for(&mut self.child)
    }

    /// Ends the daemon and removes its directory.
    fn end(mut self) -> ExitStatus {
        self.end_now()
    }
}

fn write_config(directory: &tempfile::TempDir, head: &str, sinks: &str) {
    let sinks = sinks.replace("DIR", &directory.path().display().to_string());
    fs::write(directory.path().join("config.toml"), format!("{head}{sinks}")).expect("config");
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait_for(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return status;
        }
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) const FILE: &str = "[sinks.file]\ntype = \"file\"\npath = \"DIR/out\"\n";

fn deaf_stderr() {
    in_lab(|netns| {
        let dead = fresh_port();
        let sinks = format!(
            "{FILE}[sinks.dead]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{dead}\"\nretry = \"100ms\"\n"
        );
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let daemon = Raw::start(netns, &sinks, |command| {
            command.stderr(writer);
        });
        daemon.wait_for("\"kind\":\"start\"");
        fs::write(daemon.path("config.toml"), "[sinks.broken]\ntype = \"nothing\"\n").expect("config");
        // Signals that come close together count as one. 2500 signals make more messages than the pipe can hold, and
        // on a fast machine more than the queue of messages.
        for _ in 0..2500 {
            signal(daemon.child.id(), libc::SIGHUP);
            std::thread::sleep(Duration::from_millis(1));
        }
        connections(1, fresh_port());
        daemon.wait_for("\"to\":\"TIME_WAIT\"");
        let begin = Instant::now();
        let text = std::thread::spawn(move || {
            // The test reads standard error only at the end.
            std::thread::sleep(Duration::from_millis(100));
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("text");
            text
        });
        assert!(daemon.end().success());
        assert!(begin.elapsed() < Duration::from_secs(30));
        let text = text.join().expect("text");
        assert!(text.contains("nothing"), "{text}");
        for full in ["/dev/full", "/dev/null"] {
            let stderr = fs::OpenOptions::new().write(true).open(full).expect("device");
            let daemon = Raw::start(netns, &sinks, |command| {
                command.stderr(stderr);
            });
            daemon.wait_for("\"kind\":\"start\"");
            connections(1, fresh_port());
            daemon.wait_for("\"to\":\"TIME_WAIT\"");
            assert!(daemon.end().success());
        }
    });
}

/// Whether the process has handlers for these signals, by /proc/PID/status.
fn catches(pid: u32, signals: &[libc::c_int]) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signals.iter().all(|signal| caught & (1 << (signal - 1)) != 0)
}

fn first_signals() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let out = directory.path().join("out");
        let sink = FILE.replace("DIR/out", &out.display().to_string());
        for number in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            let mut command = sockstate();
            command.args(["run", "--config", "/proc/self/fd/0"]).stdin(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().expect("sockstate");
            let pid = child.id();
            // The daemon waits for its configuration.
            wait_until("it has handlers", || {
                catches(pid, &[libc::SIGHUP, libc::SIGTERM, libc::SIGINT])
                    || child.try_wait().is_ok_and(|ended| ended.is_some())
            });
            signal(pid, number);
            let config = format!("[filter]\nnetns = {netns}\n[kernel]\nalongside = true\n{sink}");
            let written = child.stdin.take().map(|mut stdin| stdin.write_all(config.as_bytes()));
            written.expect("standard input").expect("write");
            let text = || fs::read_to_string(&out).unwrap_or_default();
            wait_until("it traces", || text().contains("\"kind\":\"start\""));
            if number == libc::SIGHUP {
                signal(pid, libc::SIGTERM);
            }
            assert!(wait_for(&mut child).success(), "signal {number}");
            assert!(text().contains("\"kind\":\"stop\""), "signal {number}");
            fs::remove_file(&out).expect("remove");
        }
    });
}

fn early_signals() {
    in_lab(|netns| {
        for number in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            for delay_ms in [30, 100, 300] {
                let mut daemon = Raw::start(netns, FILE, |command| {
                    command.stderr(Stdio::null());
                });
                // The daemon installs its handlers before it starts threads, so the first thread shows that they are
                // installed.
                let comm = PathBuf::from(format!("/proc/{}/task", daemon.child.id()));
                let is_up = || fs::read_dir(&comm).is_ok_and(|tasks| tasks.count() > 1);
                wait_until("it runs", is_up);
                std::thread::sleep(Duration::from_millis(delay_ms));
                signal(daemon.child.id(), number);
                if number == libc::SIGHUP {
                    daemon.wait_for("\"kind\":\"start\"");
                    connections(1, fresh_port());
                    daemon.wait_for("\"to\":\"TIME_WAIT\"");
                    assert!(daemon.end().success());
                } else {
                    let status = wait_for(&mut daemon.child);
                    assert!(status.success(), "signal {number} after {delay_ms} ms: {status}");
                    let text = fs::read_to_string(daemon.path("out")).expect("records");
                    let kinds: Vec<String> =
                        text.lines().filter_map(json).map(|record| record["kind"].to_string()).collect();
                    assert_eq!(kinds.first().map(String::as_str), Some("\"start\""));
                    assert_eq!(kinds.last().map(String::as_str), Some("\"stop\""));
                }
            }
        }
    });
}

fn lock_of_others() {
    in_lab(|netns| {
        let lock = Path::new("/run/sockstate.lock");
        let directory = tempfile::tempdir().expect("directory");
        let config = directory.path().join("c.toml");
        let text =
            format!("duration = \"100ms\"\n[filter]\nnetns = {netns}\n[sinks.out]\ntype = \"stdout\"\n");
        fs::write(&config, text).expect("config");
        let mut daemon = sockstate();
        daemon.arg("run").arg("--config").arg(&config).stdout(Stdio::null());
        let status = daemon.status().expect("sockstate");
        // Another daemon may trace on this machine.
        assert!(status.success() || status.code() == Some(5), "{status}");
        let mode = fs::metadata(lock).expect("lock").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = Command::new("flock")
            .args(["--nonblock", "/run/sockstate.lock", "true"])
            .uid(65534)
            .stderr(Stdio::null())
            .status();
        assert!(!other.is_ok_and(|status| status.success()), "another user has the lock");
    });
}

fn exhausted() {
    in_lab(|netns| {
        let _pair = Kind::V4.pair(fresh_port());
        for limit in [6, 8, 12, 16] {
            let command = format!(
                "ulimit -n {limit}; exec \"$0\" trace --alongside --netns {netns} --duration 200ms --format json >/dev/null"
            );
            let mut shell = Command::new("sh");
            let binary = sockstate().get_program().to_owned();
            let output = shell.args(["-c", &command]).arg(binary).output().expect("sh");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code().is_some_and(|code| code < 6), "{limit}: {}: {error}", output.status);
            assert!(!error.contains("panicked"), "{limit}: {error}");
        }
        for command in ["stuck", "sockets", "explain", "doctor", "run --example", "close-wait --all"] {
            let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("device");
            let mut run = sockstate();
            let run = run.args(command.split(' ')).stdout(full()).stderr(full());
            let status = run.status().expect("sockstate");
            assert!(status.code().is_some_and(|code| code < 6), "{command}: {status}");
        }
    });
}

fn silent_clients() {
    in_lab(|netns| {
        let port = fresh_port();
        let address = format!("127.0.0.1:{port}");
        let mut trace = sockstate();
        trace.args(["trace", "--alongside", "--netns", &netns.to_string(), "--metrics", &address]);
        let tracer = crate::lab::Tracer::spawn(&mut trace);
        assert_eq!(tracer.first()["kind"], "start");
        let connect = || TcpStream::connect(&address).expect("connect");
        let mut silent: Vec<TcpStream> = (0..400).map(|_| connect()).collect();
        for client in silent.iter_mut().step_by(2) {
            // Each connection sends one byte of a request.
            let _ = client.write_all(b"G");
        }
        let ask = |path: &str| {
            let mut client = connect();
            client.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("request");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("answer");
            answer
        };
        for _ in 0..3 {
            assert!(ask("/healthz").contains("ok"));
            assert!(ask("/metrics").contains("sockstate_"));
        }
        drop(silent);
        tracer.stop();
    });
}

fn hostile_names() {
    in_lab(|netns| {
        let port = fresh_port();
        let directory = tempfile::tempdir().expect("directory");
        // The kernel shows 15 bytes of the name.
        let program = directory.path().join("e\u{1b}[2J|\u{202e}b\u{7}\n");
        copy_to(&program);
        let mut actor = Actor::start_as(&program, "leaker", port);
        assert_eq!(actor.hear(), "listening");
        let client = Kind::V4.connect(port).expect("connect");
        actor.go_on();
        assert_eq!(actor.hear(), "accepted");
        drop(client);
        let netns = netns.to_string();
        let run = |arguments: &[&str]| {
            let mut look = sockstate();
            let output = look.args(arguments).args(["--netns", &netns]).output().expect("sockstate");
            let said =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
            assert!(!said.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{arguments:?}: {said:?}");
            said
        };
        wait_until("it is stuck", || {
            run(&["close-wait", "--older-than", "0s", "--format", "table"]).contains("CLOSE_WAIT")
        });
        let table = run(&["close-wait", "--older-than", "0s", "--format", "table"]);
        assert!(table.contains(&actor.pid().to_string()), "{table}");
        run(&["sockets", "--format", "table"]);
        run(&[
            "stuck",
            "--state",
            "CLOSE_WAIT",
            "--older-than",
            "0s",
            "--group-by",
            "process",
            "--format",
            "table",
        ]);
        let check = run(&["close-wait", "--older-than", "0s", "--check", "--warn", "1", "--crit", "1"]);
        assert!(check.starts_with("SOCKSTATE CRITICAL"), "{check}");
        assert_eq!((check.lines().count(), check.matches('|').count()), (1, 1), "{check:?}");
        actor.end();
    });
}
