//! Disks that do not answer: a frozen ext4 file system keeps its writers in the system call.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    Test,
    collectors::{collect, json},
    configured::ask,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{in_lab, signal, wait_until},
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            "frozen: sinks that a reload starts on a disk that does not answer do not stop the others",
            reloaded,
        ),
        test("frozen: the end does not wait for a disk that was never opened", ended_unopened),
        test("frozen: the records of a sink that hangs in a system call are counted at the end", ended_hung),
        test("frozen: a sink to the network starts beside a predecessor that hangs", hung_predecessor),
    ]
}

/// linux/fs.h
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// A file system in a file, which can be frozen. The end of the test thaws and removes it.
struct Disk {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("directory");
        let (image, path) = (directory.path().join("image"), directory.path().join("disk"));
        File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("image");
        fs::create_dir(&path).expect("mkdir");
        let run = |command: &mut Command| {
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let is_mounted = run(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).args([&image, &path]));
        if !is_mounted {
            crate::skip("needs mkfs.ext4 and loop devices");
            return None;
        }
        Some(Self { path, _directory: directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn freeze(&self) {
        assert!(self.control(FIFREEZE), "{}", std::io::Error::last_os_error());
    }

    fn thaw(&self) {
        assert!(self.control(FITHAW), "{}", std::io::Error::last_os_error());
    }

    fn control(&self, request: libc::c_ulong) -> bool {
        let Ok(root) = File::open(&self.path) else { return false };
        // SAFETY: the request takes no pointer, and the descriptor is open.
        unsafe { libc::ioctl(root.as_raw_fd(), request as _, 0) == 0 }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.control(FITHAW);
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// The messages of a daemon on standard error.
struct Messages(tempfile::NamedTempFile);

impl Messages {
    fn new() -> Self {
        Self(tempfile::NamedTempFile::new().expect("file"))
    }

    fn text(&self) -> String {
        fs::read_to_string(self.0.path()).expect("messages")
    }

    fn wait_for(&self, words: &str) {
        wait_until(words, || self.text().contains(words));
    }

    /// The number between two texts of the last such line.
    fn number(&self, before: &str, behind: &str) -> u64 {
        let text = self.text();
        let rests = text.lines().rev().filter_map(|line| line.split_once(before));
        let mut numbers = rests.filter_map(|(_, rest)| rest.split_once(behind)?.0.parse().ok());
        numbers.next().unwrap_or_else(|| panic!("{before}...{behind}: {text}"))
    }
}

fn start(netns: u64, top: &str, sinks: &str) -> (Raw, Messages) {
    let messages = Messages::new();
    let stderr = messages.0.reopen().expect("file");
    let daemon = Raw::start_with(top, netns, sinks, |command| {
        command.stderr(stderr).stdout(Stdio::null());
    });
    daemon.wait_for("\"kind\":\"start\"");
    (daemon, messages)
}

fn reload(daemon: &Raw, sinks: &str) {
    daemon.write(sinks);
    signal(daemon.pid(), libc::SIGHUP);
}

fn file_sink(name: &str, path: &Path, more: &str) -> String {
    format!("[sinks.{name}]\ntype = \"file\"\npath = \"{}\"\n{more}\n", path.display())
}

fn records(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap_or_default().lines().filter_map(json).collect()
}

/// Makes connections, and waits until the file of the working sink has all of their records.
fn made(daemon: &Raw, count: usize) {
    let ended = || {
        let found = records(&daemon.path("out"));
        found.iter().filter(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE").count()
    };
    let before = ended();
    connections(count, fresh_port());
    wait_until("the daemon goes on", || ended() > before);
}

/// Checks that each number up to the last one belongs to a record, or is counted as lost.
fn assert_counted(found: &[Value]) {
    let seqs: BTreeSet<u64> = found.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert_eq!(seqs.len(), found.len(), "nothing twice");
    let lost: u64 = found
        .iter()
        .filter(|record| record["kind"] == "lost")
        .map(|record| record["count"].as_u64().expect("count"))
        .sum();
    let last = seqs.last().copied().unwrap_or(0);
    assert_eq!(seqs.len() as u64 + lost, last, "{lost} lost");
}

fn reloaded() {
    in_lab(|netns| {
        let metrics = fresh_port();
        let (port, lines) = collect(("127.0.0.1", 0));
        let (mut daemon, messages) = start(netns, &format!("metrics = \"127.0.0.1:{metrics}\"\n"), FILE);
        let Some(disk) = Disk::new() else { return };
        disk.freeze();
        let spool = disk.path("spool");
        let sinks = format!(
            "{FILE}{}[sinks.spooled]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{port}\"\nspool = \"{}\"\n",
            file_sink("disk", &disk.path("out"), "queue = \"64K\""),
            spool.display()
        );
        reload(&daemon, &sinks);
        // The daemon continues to trace while the sink hangs.
        made(&daemon, 1);
        messages.wait_for(&format!("sink disk: cannot open {}: the system", disk.path("out").display()));
        messages.wait_for("going on without the spool until then");
        // The load makes more records than the queue can hold.
        made(&daemon, 100);
        let number = |name: &str| -> u64 {
            let text = ask(metrics);
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("{sink=\"disk\"} "));
            line.unwrap_or_else(|| panic!("{name}: {text}")).parse().expect("a number")
        };
        wait_until("the queue is full", || number("sockstate_sink_lost_total") > 0);
        assert!(number("sockstate_sink_queued_bytes") <= 64 << 10);
        assert_eq!(number("sockstate_sink_failing"), 1);
        let got = || lines.lock().expect("lock").clone();
        let count_ended = |found: &[Value]| found.iter().filter(|record| record["to"] == "TIME_WAIT").count();
        wait_until("the collector has them without the spool", || count_ended(&got()) >= 100);
        // A sink that is still opening is not started again.
        reload(&daemon, &sinks);
        made(&daemon, 1);
        disk.thaw();
        messages.wait_for("sink disk: delivers again");
        made(&daemon, 1);
        wait_until("the spool is open", || spool.join("spooled").exists());
        assert!(daemon.end_now().success(), "{}", messages.text());
        let found = records(&disk.path("out"));
        assert_counted(&found);
        assert_eq!(found.first().map(|record| &record["kind"]), Some(&Value::from("start")));
        assert_eq!(found.last().map(|record| &record["kind"]), Some(&Value::from("stop")));
        wait_until("the collector has all", || got().last().is_some_and(|record| record["kind"] == "stop"));
        assert_counted(&got());
    });
}

fn ended_unopened() {
    in_lab(|netns| {
        let (mut daemon, messages) = start(netns, "", FILE);
        let Some(disk) = Disk::new() else { return };
        disk.freeze();
        reload(&daemon, &format!("{FILE}{}", file_sink("disk", &disk.path("out"), "")));
        messages.wait_for("sink disk: cannot open ");
        made(&daemon, 10);
        let happened = records(&daemon.path("out")).len();
        signal(daemon.pid(), libc::SIGTERM);
        messages.wait_for(" (sink)");
        let lost = messages.number("sink disk: ", " records were not delivered when it ended");
        assert_eq!(messages.number("; lost ", " (sink)"), lost);
        // The working sink had its own `start` record, and a sink that exists at the end gets a `stop` record.
        assert_eq!(lost, happened as u64 + 1, "{}", messages.text());
        assert!(!messages.text().contains("hangs in a system call"), "{}", messages.text());
        // The kernel cannot end a process while one of its threads waits for the disk.
        disk.thaw();
        assert!(daemon.end_now().success());
    });
}

fn ended_hung() {
    in_lab(|netns| {
        let Some(disk) = Disk::new() else { return };
        let sinks = format!("{FILE}{}", file_sink("disk", &disk.path("out"), ""));
        let (mut daemon, messages) = start(netns, "", &sinks);
        made(&daemon, 5);
        wait_until("both have all", || {
            records(&disk.path("out")).len() == records(&daemon.path("out")).len()
        });
        let before = records(&disk.path("out")).len() as u64;
        disk.freeze();
        made(&daemon, 20);
        signal(daemon.pid(), libc::SIGTERM);
        messages.wait_for(" (sink)");
        // The other sink has reached its end.
        let happened = records(&daemon.path("out"));
        assert_eq!(happened.last().map(|record| &record["kind"]), Some(&Value::from("stop")));
        let held = messages.number("sink disk hangs in a system call: ", " records were not delivered");
        assert_eq!(before + held, happened.len() as u64, "{}", messages.text());
        assert_eq!(messages.number("; lost ", " (sink)"), held);
        disk.thaw();
        assert!(daemon.end_now().success());
    });
}

fn hung_predecessor() {
    in_lab(|netns| {
        let Some(disk) = Disk::new() else { return };
        let dead = fresh_port();
        let sinks = |port: u16, second: &str| {
            let socket = "type = \"socket\"\nretry = \"100ms\"\nqueue = \"64K\"";
            let spool = disk.path("spool");
            format!(
                "{FILE}[sinks.out]\n{socket}\naddress = \"tcp://127.0.0.1:{port}\"\nspool = \"{}\"\n\
                 [sinks.file]\ntype = \"file\"\npath = \"DIR/{second}\"\n",
                spool.display()
            )
            .replacen(FILE, &FILE.replace("file]", "healthy]"), 1)
        };
        let (mut daemon, messages) = start(netns, "", &sinks(dead, "second"));
        messages.wait_for("sink out: ");
        disk.freeze();
        // When the queue is half full, its records move to the spool.
        made(&daemon, 60);
        let hung = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("threads");
            tasks.flatten().any(|task| {
                let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
                read("comm").trim() == "sink-out" && read("stat").contains(") D ")
            })
        };
        wait_until("the sink hangs", hung);
        let (port, lines) = collect(("127.0.0.1", 0));
        reload(&daemon, &sinks(port, "third"));
        messages.wait_for("the previous sink out waits for the system with it; going on without the spool");
        made(&daemon, 5);
        let got = || lines.lock().expect("lock").clone();
        wait_until("the collector gets what is new", || {
            got().iter().filter(|record| record["to"] == "TIME_WAIT").count() >= 5
        });
        assert!(daemon.path("third").exists());
        disk.thaw();
        // The spool belongs to only one sink at a time.
        let all = || records(&daemon.path("out")).len();
        made(&daemon, 1);
        wait_until("the spool is delivered", || {
            let found = got();
            let lost: u64 = found
                .iter()
                .filter_map(|record| record["count"].as_u64().filter(|_| record["kind"] == "lost"))
                .sum();
            let own = found.iter().filter(|record| record["kind"] == "lost").count();
            // The `start` record of the next sink is not among the records of the working sink.
            found.len() as u64 + lost >= (all() + own + 1) as u64
        });
        assert!(daemon.end_now().success());
        wait_until("the collector has all", || got().iter().any(|record| record["kind"] == "stop"));
        assert_counted(&got());
    });
}
