//! A daemon that pins its programs. Everything that happens while no daemon runs, or while one is killed, is delivered
//! or counted as lost.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use socket2::Socket;
use tempfile::TempDir;

use crate::{
    Test,
    lab::{in_lab, signal, sockstate, wait_until},
    load::{Load, Mode},
    observer, schema,
    sinks_service::{SinksProcess, SinksService},
    skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("restart: connections, owners, times and numbers continue", goes_on),
        test("restart: killed under load, again and again: delivered + lost == happened", killed),
        test("restart: the next daemon reports what a sink had lost at the end", unsaid),
        test("restart: what a window had counted when it was killed is counted as lost", killed_window),
        test("restart: the kernel's tables correct what the saved state lacks", corrected),
        test("restart: another filter replaces what was kept, and says so", replaced),
        test("restart: detach removes the programs", detached),
        test("restart: what an earlier version had not settled is counted as lost", earlier_version),
    ]
}

/// How often the daemon is killed.
const KILLS: usize = 5;
/// How many records a kill can hit that are written and not counted.
const MOST_TWICE: u64 = 400;
/// The same where the sinks have a process of their own: a batch of a megabyte, of records with at least 400 bytes.
const MOST_TWICE_APART: u64 = (1 << 20) / 400;

/// A daemon's directory in the BPF file system, its configuration, and its output.
pub(crate) struct DaemonFiles {
    pub(crate) pin: PathBuf,
    directory: TempDir,
    /// What the sinks have a process of their own by.
    pub(crate) sinks: Option<SinksProcess>,
    /// The kinds of records in the file, if not all that are usual.
    pub(crate) kinds: Option<&'static str>,
}

impl DaemonFiles {
    /// Skips the test if there is no BPF file system.
    pub(crate) fn new(port: u16) -> Option<Self> {
        let file_system = PathBuf::from("/sys/fs/bpf");
        let is_one = || Command::new("stat").args(["-f", "-c", "%t", "/sys/fs/bpf"]).output();
        let is_one = || is_one().is_ok_and(|output| output.stdout.starts_with(b"cafe4a11"));
        if !is_one() {
            let _ = Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status();
        }
        if !is_one() {
            skip("needs a BPF file system");
            return None;
        }
        let pin = file_system.join(format!("sockstate-test-{}-{port}", std::process::id()));
        let directory = tempfile::tempdir().expect("directory");
        Some(Self { pin, directory, sinks: None, kinds: None })
    }

    /// The same for a daemon whose sinks have a process and a directory of their own. Skips the test if there is no user for
    /// them.
    pub(crate) fn split(port: u16) -> Option<Self> {
        if nobody().is_none() {
            skip("needs the user nobody");
            return None;
        }
        let mut files = Self::new(port)?;
        files.sinks = Some(SinksProcess::User);
        fs::set_permissions(files.directory.path(), fs::Permissions::from_mode(0o711)).expect("mode");
        let output = files.output();
        let own = output.parent().expect("directory");
        fs::create_dir(own).expect("directory");
        chown_to_nobody(own);
        Some(files)
    }

    /// The same with the process behind a named socket.
    pub(crate) fn with_service(port: u16) -> Option<Self> {
        let mut files = Self::split(port)?;
        let service = SinksService::start(&files.directory.path().join("sinks.socket"));
        files.sinks = Some(SinksProcess::Service(service));
        Some(files)
    }

    pub(crate) fn configure(&self, netns: u64, port: u16, kernel: &str) {
        self.write(&format!(
            "[filter]\nport = {port}\nnetns = {netns}\n[kernel]\nalongside = true\n{kernel}"
        ));
    }

    /// Writes a configuration with these sections and the sink for the file.
    pub(crate) fn write(&self, sections: &str) {
        let process = self.sinks.as_ref().map(SinksProcess::key).unwrap_or_default();
        let text = format!(
            "{process}pin = \"{}\"\n{sections}\n[sinks.file]\ntype = \"file\"\npath = \"{}\"\n{}",
            self.pin.display(),
            self.output().display(),
            self.kinds.map(|kinds| format!("records = {kinds}\n")).unwrap_or_default()
        );
        fs::write(self.directory.path().join("config.toml"), text).expect("config");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    pub(crate) fn output(&self) -> PathBuf {
        match self.sinks {
            Some(_) => self.directory.path().join("nobody/records.json"),
            None => self.directory.path().join("records.json"),
        }
    }

    /// The complete lines so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        read(&self.output())
    }

    /// Opens and closes a listener and a connection, and waits for their records.
    pub(crate) fn connection(&self, port: u16) {
        drop(Kind::V4.pair(port));
        let is_end = |record: &Value| record["from"] == "LISTEN" && record["to"] == "CLOSE";
        wait_until("the end is recorded", || self.records().iter().any(is_end));
    }

    /// Waits until the daemon has read all that happened so far: at its end it reads for a moment only, and leaves the rest
    /// in the ring for the next one. Returns how many transitions that made.
    pub(crate) fn catch_up(&self, port: u16) -> u64 {
        Kind::V4.connect(port).expect_err("nobody listens any more");
        let is_refused = |record: &Value| {
            record["from"] == "SYN_SENT" && record["to"] == "CLOSE" && record["remote"]["port"] == port
        };
        wait_until("the last connect is in the stream", || self.records().iter().any(is_refused));
        2
    }

    /// Starts a daemon, and waits until it traces; it is the `nth`.
    pub(crate) fn start(&self, nth: usize) -> Child {
        let child = self.spawn(sockstate());
        wait_until("it traces", || self.starts() >= nth);
        child
    }

    /// Runs the binary of `command` as a daemon, and does not wait.
    pub(crate) fn spawn(&self, mut command: Command) -> Child {
        let config = self.config();
        command.args(["run", "--config"]).arg(config).stderr(Stdio::piped()).spawn().expect("sockstate")
    }

    /// How many daemons have begun to trace.
    pub(crate) fn starts(&self) -> usize {
        fs::read_to_string(self.output()).unwrap_or_default().matches("\"kind\":\"start\"").count()
    }
}

/// The files that the next sockstate continues from, for programs that are pinned in `pin`.
pub(crate) fn state_files(pin: &Path, extension: &str) -> Vec<PathBuf> {
    state_files_in(Path::new("/run/sockstate"), pin, extension)
}

/// The same with another runtime directory.
pub(crate) fn state_files_in(runtime: &Path, pin: &Path, extension: &str) -> Vec<PathBuf> {
    let name = format!("{}-", pin.file_name().expect("a name").to_string_lossy());
    let is_of_pin = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&name) && file.ends_with(extension)
    };
    let entries = fs::read_dir(runtime).expect("directory");
    entries.map(|entry| entry.expect("entry").path()).filter(is_of_pin).collect()
}

impl Drop for DaemonFiles {
    fn drop(&mut self) {
        let _ = sockstate().args(["detach", "--pin"]).arg(&self.pin).stdout(Stdio::null()).status();
    }
}

/// The complete lines of a file so far.
fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// How many records were lost at a place, by the `lost` records.
pub(crate) fn lost(records: &[Value], place: &str) -> u64 {
    let of = records.iter().filter(|record| record["kind"] == "lost" && record["place"] == place);
    of.map(|record| record["count"].as_u64().expect("count")).sum()
}

pub(crate) fn end(mut child: Child) {
    signal(child.id(), libc::SIGTERM);
    let status = child.wait().expect("wait");
    assert!(status.success(), "{status}");
}

pub(crate) fn kill(mut child: Child) {
    signal(child.id(), libc::SIGKILL);
    child.wait().expect("wait");
}

/// A listener and both ends of a connection, after both ends are reported as established.
pub(crate) fn reported_pair(files: &DaemonFiles, port: u16) -> (Socket, Socket, Socket) {
    let pair = Kind::V4.pair(port);
    wait_until("the connection is reported", || {
        files.records().iter().filter(|record| record["to"] == "ESTABLISHED").count() == 2
    });
    pair
}

fn goes_on() {
    observer::watch();
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        let first = files.start(1);
        let (listener, client, server) = reported_pair(&files, port);
        end(first);
        // No process reads the ring now.
        drop(client);
        observer::wait_for_states(&["LISTEN", "CLOSE_WAIT", "FIN_WAIT2"]);
        let third = Kind::V4.connect(port).expect("connect");
        let (fourth, _) = listener.accept().expect("accept");
        let second = files.start(2);
        drop((third, fourth));
        drop((server, listener));
        let is_end = |record: &Value| record["from"] == "LISTEN" && record["to"] == "CLOSE";
        wait_until("the end is recorded", || files.records().iter().any(is_end));
        end(second);
        let records = files.records();
        records.iter().for_each(schema::check);
        let seqs: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=records.len() as u64).collect::<Vec<_>>(), "numbered without a gap");
        let instances: BTreeSet<String> =
            records.iter().map(|record| record["instance"].to_string()).collect();
        assert_eq!(instances.len(), 1);
        let starts: Vec<&Value> = records.iter().filter(|record| record["kind"] == "start").collect();
        assert_eq!(starts[1]["adopted"]["instance"], starts[0]["instance"]);
        assert!(starts[0]["adopted"].is_null());
        assert!(
            !records
                .iter()
                .any(|record| ["lost", "resync"].contains(&record["kind"].as_str().expect("kind"))),
            "{records:#?}"
        );
        // The first daemon knew the server of the old connection. Its peer has closed the connection since.
        let find = |from: &str, to: &str| -> Vec<&Value> {
            records
                .iter()
                .filter(|record| record["from"] == from && record["to"] == to && record["role"] == "server")
                .collect()
        };
        let (opened, closed) = (find("SYN_RECV", "ESTABLISHED")[0], find("ESTABLISHED", "CLOSE_WAIT")[0]);
        for key in ["conn", "role", "owner", "local", "remote"] {
            assert_eq!(closed[key], opened[key], "{key}");
        }
        assert_eq!(closed["owner"]["pid"], std::process::id());
        assert!(
            closed["in_state_ns"].as_u64().is_some() && closed["in_state_at_least"].is_null(),
            "{closed}"
        );
        // The stream has all transitions that bpftrace saw.
        if observer::is_there() {
            let seen: usize = observer::paths(port, 20).iter().map(|path| path.len() - 1).sum();
            assert!(seen >= 20, "bpftrace saw {seen}");
            let full = |record: &&Value| record["kind"] == "transition" && record["mini"].is_null();
            assert!(records.iter().filter(full).count() >= seen - 6, "{seen}");
        }
        let conns: BTreeSet<String> = records
            .iter()
            .filter(|record| record["kind"] == "transition")
            .map(|record| record["conn"].to_string())
            .collect();
        assert_eq!(conns.len(), 5, "a listener, two clients, two servers");
    });
}

/// The numbers of the user `nobody` and of its group.
pub(crate) fn nobody() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find_map(|line| line.strip_prefix("nobody:"))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Makes `path` the directory of the user `nobody`.
pub(crate) fn chown_to_nobody(path: &Path) {
    let (uid, gid) = nobody().expect("a user");
    chown(path, Some(uid), Some(gid)).expect("chown");
}

fn killed() {
    killed_again_and_again(DaemonFiles::new, |_, daemon| kill(daemon));
}

/// Kills a daemon again and again with `kill`.
pub(crate) fn killed_again_and_again(files: fn(u16) -> Option<DaemonFiles>, kill: fn(&DaemonFiles, Child)) {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = files(port) else { return };
        // Without mini-sockets, the number of transitions is known exactly.
        files.configure(netns, port, "tier = \"none\"");
        let mut child = Some(files.start(1));
        let load = Load { mode: Mode::Fin, threads: 1, count: 200, acceptors: false, gap_us: 2000, port };
        let enough = AtomicBool::new(false);
        let made = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut made = 0;
                while !enough.load(Ordering::Relaxed) {
                    made += load.run().expect("load").transitions;
                }
                made
            });
            for nth in 2..=1 + KILLS {
                thread::sleep(Duration::from_millis(400));
                // This has the same effect as a crash, or as the kernel's OOM killer.
                kill(&files, child.take().expect("it runs"));
                child = Some(files.start(nth));
            }
            enough.store(true, Ordering::Relaxed);
            worker.join().expect("load")
        });
        let made = made + files.catch_up(port);
        end(child.expect("the last one"));
        let records = files.records();
        records.iter().for_each(schema::check);
        check_numbers(&records);
        check_identities(&records);
        let transitions: Vec<String> = records
            .iter()
            .filter(|record| record["kind"] == "transition")
            .map(|record| {
                format!(
                    "{} {} {} {} {}",
                    record["time"], record["local"], record["remote"], record["from"], record["to"]
                )
            })
            .collect();
        let unique: BTreeSet<&String> = transitions.iter().collect();
        assert_eq!(unique.len(), transitions.len(), "nothing twice");
        let (delivered, crashed) = (transitions.len() as u64, lost(&records, "crash"));
        let others = lost(&records, "ring") + lost(&records, "recursion");
        assert!(delivered <= made);
        let missing = made - delivered;
        // If the daemon is killed after it has written a record and before it has counted it, the record is delivered
        // and counted as lost. Corrections are records, too.
        let said = || records.iter().filter(|record| record["kind"] != "transition").collect::<Vec<_>>();
        let counted = crashed + others;
        assert!(counted >= missing, "{missing} are missing, {crashed} and {others} counted: {:#?}", said());
        let most = if files.sinks.is_some() { MOST_TWICE_APART } else { MOST_TWICE };
        assert!(crashed <= missing + most * KILLS as u64, "{missing} are missing, {crashed} counted");
        assert!(delivered * 10 > made * 9, "{delivered} of {made}");
    });
}

/// Checks one stream: the `lost` record after a gap in the numbers counts at least as many records as the gap has.
pub(crate) fn check_numbers(records: &[Value]) {
    let instances: BTreeSet<&str> = records.iter().filter_map(|record| record["instance"].as_str()).collect();
    assert_eq!(instances.len(), 1, "{instances:?}");
    let mut gap = 0;
    for pair in records.windows(2) {
        let [before, after] = [&pair[0], &pair[1]].map(|record| record["seq"].as_u64().expect("seq"));
        assert!(after > before, "{after} comes behind {before}");
        gap += after - before - 1;
        if pair[1]["place"] == "crash" {
            assert!(
                pair[1]["count"].as_u64().expect("count") >= gap,
                "{gap} numbers are missing: {}",
                pair[1]
            );
            gap = 0;
        }
    }
    assert_eq!(gap, 0, "numbers are missing");
}

/// Checks that no two connections have the same id.
pub(crate) fn check_identities(records: &[Value]) {
    let mut ends: HashMap<&str, [&Value; 2]> = HashMap::new();
    for record in
        records.iter().filter(|record| record["kind"] == "transition" && !record["local"]["port"].is_null())
    {
        let new = [&record["local"], &record["remote"]];
        let known = ends.entry(record["conn"].as_str().expect("conn")).or_insert(new);
        assert_eq!(*known, new, "{record}");
    }
    assert!(ends.len() > 100);
}

fn unsaid() {
    if observer::is_in_vm() {
        return skip("takes seconds there, and has nothing to do with the kernel");
    }
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        let path = files.directory.path().join("collector");
        let sink = format!("[sinks.away]\ntype = \"socket\"\naddress = \"unix:{}\"", path.display());
        files.configure(netns, port, &sink);
        let first = files.start(1);
        files.connection(port);
        end(first);
        let written = files.records().len();
        let collector = UnixListener::bind(&path).expect("collector");
        let second = files.start(2);
        let (stream, _) = collector.accept().expect("accept");
        let lines = BufReader::new(stream).lines().take(2);
        let records: Vec<Value> =
            lines.map(|line| serde_json::from_str(&line.expect("line")).expect("JSON")).collect();
        let [start, lost] = [&records[0], &records[1]];
        assert_eq!((&start["kind"], start["seq"].as_u64()), (&"start".into(), Some(written as u64 + 1)));
        assert_eq!((&lost["kind"], &lost["place"]), (&"lost".into(), &"sink".into()));
        assert_eq!(lost["count"], written);
        end(second);
    });
}

/// Commit 2ca3231 used only the last component of the pin directory for the names of its files.
fn earlier_version() {
    if observer::is_in_vm() {
        return skip("has nothing to do with the kernel");
    }
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/2ca3231"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create("/run/sockstate").expect("directory");
        let name = files.pin.file_name().expect("a name");
        let earlier =
            ["ledger", "state"].map(|kind| Path::new("/run/sockstate").join(name).with_extension(kind));
        fs::copy(fixtures.join("ledger"), &earlier[0]).expect("ledger");
        fs::copy(fixtures.join("state.json"), &earlier[1]).expect("state");
        let path = files.directory.path().join("away");
        let sink = format!("[sinks.away]\ntype = \"file\"\npath = \"{}\"", path.display());
        files.configure(netns, port, &sink);
        let daemon = files.start(1);
        wait_until("the loss is reported", || read(&path).len() >= 2);
        end(daemon);
        let away = read(&path);
        assert_eq!((&away[0]["kind"], away[0]["seq"].as_u64()), (&"start".into(), Some(1)));
        assert_eq!((lost(&away, "crash"), away[1]["seq"].as_u64()), (135, Some(2)), "{away:?}");
        assert_eq!(lost(&files.records(), "crash"), 0, "that sink had settled all of its records");
        assert!(earlier.iter().all(|file| !file.exists()), "the files have today's names");
    });
}

fn killed_window() {
    if observer::is_in_vm() {
        return skip("takes seconds there, and has nothing to do with the kernel");
    }
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        let path = files.directory.path().join("counts");
        let sink =
            format!("[sinks.counts]\ntype = \"file\"\naggregate = \"1h\"\npath = \"{}\"", path.display());
        files.configure(netns, port, &sink);
        let first = files.start(1);
        files.connection(port);
        kill(first);
        let counted = files.records().iter().filter(|record| record["kind"] == "transition").count();
        end(files.start(2));
        // What had not reached the file either, and so was not counted above, is a loss of both sinks.
        let of_both = lost(&files.records(), "crash");
        assert_eq!(lost(&read(&path), "crash"), counted as u64 + of_both);
    });
}

fn corrected() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        let first = files.start(1);
        let (listener, client, server) = reported_pair(&files, port);
        end(first);
        let path = &state_files(&files.pin, ".state")[0];
        let mut state: Value = serde_json::from_slice(&fs::read(path).expect("state")).expect("JSON");
        assert_eq!(state["table"]["conns"].as_array().map(Vec::len), Some(3), "{state}");
        state["table"]["conns"] = Value::Array(Vec::new());
        fs::write(path, state.to_string()).expect("state");
        let second = files.start(2);
        let found = || -> Vec<Value> {
            let records = files.records().into_iter();
            records.filter(|record| record["kind"] == "resync" && record["was"].is_null()).collect()
        };
        wait_until("the sockets are found", || found().len() >= 3);
        end(second);
        let states: BTreeSet<String> = found().iter().map(|record| record["state"].to_string()).collect();
        assert_eq!(states, ["\"ESTABLISHED\"", "\"LISTEN\""].map(String::from).into());
        drop((client, server, listener));
    });
}

fn replaced() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        end(files.start(1));
        files.configure(netns, port, "ring-size = \"1M\"");
        end(files.start(2));
        let records = files.records();
        let starts: Vec<&Value> = records.iter().filter(|record| record["kind"] == "start").collect();
        assert!(starts[1]["adopted"].is_null());
        let said = starts[1]["degraded"].to_string();
        assert!(
            said.contains("they were replaced") && said.contains(&files.pin.display().to_string()),
            "{said}"
        );
    });
}

fn detached() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        kill(files.start(1));
        let detach = || {
            let output = sockstate().args(["detach", "--pin"]).arg(&files.pin).output().expect("sockstate");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(files.pin.join("ring").exists());
        let programs = || {
            let output = Command::new("bpftool").args(["link", "show"]).output();
            output.map_or(0, |output| {
                String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("prog")).count()
            })
        };
        let before = programs();
        let said = detach();
        assert!(said.contains("the kernel programs end"), "{said}");
        assert!(!files.pin.exists());
        if before > 0 {
            wait_until("its links are gone", || programs() < before);
        }
        let said = detach();
        assert!(said.contains("no kernel programs are pinned there"), "{said}");
    });
}
