//! An upgrade under traffic: a daemon of another version continues the work of the one before it. The test program knows how many
//! transitions there were; each must be in the stream once, whenever a daemon is killed.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Test,
    lab::{in_lab, sockstate, wait_until},
    load::{Load, Mode},
    observer,
    restart::{DaemonFiles, check_identities, check_numbers, end, kill, lost, state_files},
    schema, skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("upgrade: to other programs under load: each transition once, nothing lost", each_once),
        test("upgrade: connections and mini-sockets continue, each in the order of its states", in_order),
        test("upgrade: killed at each step, the next start finishes it", killed_at_each_step),
        test("upgrade: what the new version cannot read is counted", unreadable),
    ]
}

#[cfg(target_arch = "x86_64")]
static OBJECT: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/sockstate-x86_64.bpf.o"));
#[cfg(target_arch = "aarch64")]
static OBJECT: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/sockstate-aarch64.bpf.o"));

/// The binary under test, and a copy that has other kernel programs.
struct Versions {
    other: PathBuf,
    _directory: TempDir,
}

impl Versions {
    fn make() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let other = directory.path().join("sockstate");
        let mut binary = fs::read(sockstate().get_program()).expect("the binary under test");
        let at = binary.windows(OBJECT.len()).position(|bytes| bytes == OBJECT).expect("the programs");
        // A padding byte of the ELF header: the object has another sum.
        binary[at + 9] ^= 0xff;
        fs::write(&other, binary).expect("copy");
        fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).expect("mode");
        Self { other, _directory: directory }
    }

    /// Version 0 is the binary under test.
    fn command(&self, version: usize) -> Command {
        if version.is_multiple_of(2) { sockstate() } else { Command::new(&self.other) }
    }
}

/// A running daemon. A test that fails kills it.
struct Daemon(Option<Child>);

impl Daemon {
    fn spawn(files: &DaemonFiles, command: Command) -> Self {
        Self(Some(files.spawn(command)))
    }

    /// Starts a daemon, and waits until it traces.
    fn start(files: &DaemonFiles, command: Command) -> Self {
        let before = files.starts();
        let daemon = Self::spawn(files, command);
        wait_until("it traces", || files.starts() > before);
        daemon
    }

    fn pid(&self) -> u32 {
        self.0.as_ref().map(Child::id).expect("it runs")
    }

    fn end(mut self) {
        self.0.take().into_iter().for_each(end);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(kill);
    }
}

/// Ends a load, also when the test fails.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes connections while `during` runs. Returns the number of transitions, and what `during` returns.
fn under_load<T>(port: u16, during: impl FnOnce() -> T) -> (u64, T) {
    let load = Load { mode: Mode::Fin, threads: 1, count: 100, acceptors: false, gap_us: 3000, port };
    let flag = AtomicBool::new(false);
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut made = 0;
            while !flag.load(Ordering::Relaxed) {
                made += load.run().expect("load").transitions;
            }
            made
        });
        let enough = Enough(&flag);
        let result = during();
        drop(enough);
        (worker.join().expect("load"), result)
    })
}

fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

/// Transitions that a connection makes twice in a row, which no connection does.
fn doubles(records: &[Value]) -> Vec<(&Value, &Value)> {
    let mut last: HashMap<&str, &Value> = HashMap::new();
    let is_same =
        |before: &Value, record: &Value| before["from"] == record["from"] && before["to"] == record["to"];
    let transitions = of_kind(records, "transition").into_iter();
    transitions
        .filter_map(|record| Some((last.insert(record["conn"].as_str().expect("conn"), record)?, record)))
        .filter(|(before, record)| is_same(before, record))
        .collect()
}

/// Each connection goes from state to state, without a gap.
fn check_chains(records: &[Value]) {
    let mut states: HashMap<&str, &Value> = HashMap::new();
    for record in of_kind(records, "transition") {
        let conn = record["conn"].as_str().expect("conn");
        let before = states.insert(conn, record);
        if let Some(before) = before {
            assert_eq!(before["to"], record["from"], "{before}\n{record}");
            assert!(before["time"].as_str() <= record["time"].as_str(), "{before}\n{record}");
        }
    }
}

/// All records, checked for what holds in every case.
fn checked(files: &DaemonFiles) -> Vec<Value> {
    let records = files.records();
    records.iter().for_each(schema::check);
    check_numbers(&records);
    check_identities(&records);
    records
}

/// No transition is in the stream twice.
fn check_unique(records: &[Value]) {
    let doubles = doubles(records);
    assert!(doubles.is_empty(), "{doubles:#?}");
}

/// As [`check_unique`], where daemons were killed: the records that a killed daemon had read are lost, and its table is older
/// than the stream. If a listener's end was delivered and the beginning of the next listener was lost, and the kernel gave
/// both the same address, the next daemon cannot tell the second listener from the first.
fn check_unique_after_kills(records: &[Value]) {
    let time = |record: &Value| -> jiff::Timestamp {
        record["time"].as_str().expect("time").parse().expect("a time")
    };
    let losses = of_kind(records, "lost");
    for (before, record) in doubles(records) {
        let between = before["seq"].as_u64()..record["seq"].as_u64();
        let is_crash = |lost: &&Value| lost["place"] == "crash" && between.contains(&lost["seq"].as_u64());
        assert!(record["role"] == "listener" && losses.iter().any(is_crash), "{before}\n{record}");
        // Two records of one event are some microseconds apart at most.
        assert!(time(record).duration_since(time(before)).as_millis() > 0, "{before}\n{record}");
    }
}

/// One set of pins is left.
fn check_pins(files: &DaemonFiles) {
    let names = || -> Vec<String> {
        let entries = fs::read_dir(&files.pin).expect("pins");
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
    };
    wait_until("the upgrade is finished", || !names().iter().any(|name| name.starts_with("next-")));
    let names = names();
    for name in ["ring", "counters", "processes", "program", "link-0"] {
        assert!(names.iter().any(|pin| pin == name), "{name} is missing: {names:?}");
    }
}

fn each_once() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        // What full sockets do can be counted exactly.
        files.configure(netns, port, "tier = \"none\"");
        let versions = Versions::make();
        let mut daemon = Daemon::start(&files, versions.command(0));
        let (made, last) = under_load(port, || {
            for version in 1..=4 {
                daemon.end();
                daemon = Daemon::start(&files, versions.command(version));
                check_pins(&files);
            }
            daemon
        });
        let made = made + files.catch_up(port);
        last.end();
        let records = checked(&files);
        check_unique(&records);
        check_chains(&records);
        assert!(of_kind(&records, "lost").is_empty(), "{:#?}", of_kind(&records, "lost"));
        // Without a tier, a comparison with the kernel's tables finds the mini-sockets.
        let resyncs = of_kind(&records, "resync").into_iter().filter(|record| record["mini"] != true);
        assert_eq!(resyncs.collect::<Vec<_>>(), [&Value::Null; 0]);
        let delivered = of_kind(&records, "transition").len() as u64;
        assert_eq!(delivered, made, "{delivered} of {made} transitions");
        let starts = of_kind(&records, "start");
        assert_eq!(starts.len(), 5);
        for start in &starts[1..] {
            assert_eq!(start["adopted"]["instance"], starts[0]["instance"]);
            assert!(!start["degraded"].to_string().contains("replaced"), "{start}");
        }
    });
}

fn in_order() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        let versions = Versions::make();
        let first = Daemon::start(&files, versions.command(0));
        let (listener, client, server) = Kind::V4.pair(port);
        let enough = AtomicBool::new(false);
        let second = thread::scope(|scope| {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let client = Kind::V4.connect(port).expect("connect");
                    drop((client, listener.accept().expect("accept")));
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let _enough = Enough(&enough);
            first.end();
            // Nobody reads now.
            thread::sleep(Duration::from_millis(200));
            let second = Daemon::start(&files, versions.command(1));
            check_pins(&files);
            second
        });
        let started = second.pid();
        drop((client, server, listener));
        let is_end = |record: &Value| record["from"] == "LISTEN" && record["to"] == "CLOSE";
        wait_until("the end is reported", || files.records().iter().any(is_end));
        second.end();
        let records = checked(&files);
        check_unique(&records);
        check_chains(&records);
        for kind in ["lost", "resync"] {
            assert!(of_kind(&records, kind).is_empty(), "{:#?}", of_kind(&records, kind));
        }
        let transitions = of_kind(&records, "transition");
        assert!(transitions.iter().all(|record| record["illegal"].is_null()));
        // Each connection has both ends from their beginning, with the owner.
        let begun = |role: &str| {
            let of = transitions.iter().filter(|record| record["role"] == role && record["from"] != "LISTEN");
            of.map(|record| record["conn"].as_str().expect("conn")).collect::<HashSet<_>>()
        };
        let (clients, servers) = (begun("client"), begun("server"));
        assert!(clients.len() > 20 && clients.len() == servers.len(), "{} {}", clients.len(), servers.len());
        // Between fork and exec, the second daemon holds copies of the test's sockets, and may be the process that closes
        // one last.
        let is_known = |owner: &Value| {
            owner["pid"] == std::process::id() || (owner["pid"] == started && owner["source"] == "close")
        };
        let foreign: Vec<_> = transitions.iter().filter(|record| !is_known(&record["owner"])).collect();
        assert!(foreign.is_empty(), "{foreign:#?}");
        // The connection that was open during the upgrade continues.
        let open =
            transitions.iter().find(|record| record["to"] == "ESTABLISHED").expect("the first connection");
        let states: Vec<&str> = transitions
            .iter()
            .filter(|record| record["conn"] == open["conn"])
            .map(|record| record["to"].as_str().expect("a state"))
            .collect();
        assert_eq!(states.last(), Some(&"TIME_WAIT"), "{states:?}");
    });
}

/// When a daemon is killed.
enum Moment {
    /// As soon as the first pin of the new programs is there.
    Pinning,
    /// As soon as the saved state names the new programs.
    Saved,
    /// As soon as the earlier programs are detached.
    Detached,
    /// As soon as the new pins have their last names.
    Renamed,
    /// After this number of milliseconds.
    After(u64),
}

impl Moment {
    fn has_come(&self, files: &DaemonFiles) -> bool {
        match self {
            Self::Pinning => files.pin.join("next-ring").exists(),
            Self::Saved => state_files(&files.pin, ".state").iter().any(|path| {
                let text = fs::read_to_string(path).unwrap_or_default();
                text.contains("\"boundary\"")
            }),
            Self::Detached => !files.pin.join("link-0").exists(),
            // The earlier programs have no pin of the program any more.
            Self::Renamed => files.pin.join("program").exists() && !files.pin.join("next-ring").exists(),
            Self::After(_) => false,
        }
    }
}

fn kill_at(files: &DaemonFiles, daemon: Daemon, moment: &Moment) {
    if let Moment::After(ms) = moment {
        thread::sleep(Duration::from_millis(*ms));
    } else {
        if matches!(moment, Moment::Renamed) {
            wait_for(|| files.pin.join("next-ring").exists());
        }
        wait_for(|| moment.has_come(files));
    }
    drop(daemon);
}

/// Polls without a pause, because the moment is short.
fn wait_for(done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + observer::patience();
    while !done() {
        assert!(std::time::Instant::now() < deadline, "the upgrade does not get there");
        thread::yield_now();
    }
}

fn killed_at_each_step() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "tier = \"none\"");
        let versions = Versions::make();
        // When the upgrade is killed, and whether the old version is started then.
        let moments = [
            (Moment::Pinning, false),
            (Moment::Pinning, true),
            (Moment::Saved, false),
            (Moment::Saved, true),
            (Moment::Detached, false),
            (Moment::Detached, true),
            (Moment::Renamed, false),
            (Moment::After(200), false),
        ];
        let mut daemon = Daemon::start(&files, versions.command(0));
        wait_until("the state is saved", || pinned(&files).is_some());
        let first = pinned(&files);
        let (made, last) = under_load(port, || {
            for (moment, is_taken_back) in moments {
                daemon.end();
                // An interrupted upgrade leaves the programs of either version.
                let new = usize::from(pinned(&files) == first);
                kill_at(&files, Daemon::spawn(&files, versions.command(new)), &moment);
                let next = if is_taken_back { 1 - new } else { new };
                daemon = Daemon::start(&files, versions.command(next));
                check_pins(&files);
            }
            daemon
        });
        let made = made + files.catch_up(port);
        last.end();
        let records = checked(&files);
        check_unique_after_kills(&records);
        let delivered = of_kind(&records, "transition").len() as u64;
        let counted: u64 =
            ["crash", "ring", "recursion", "decode"].map(|place| lost(&records, place)).iter().sum();
        assert!(delivered <= made, "{delivered} of {made}");
        let missing = made - delivered;
        assert!(counted >= missing, "{missing} are missing, {counted} counted");
        assert!(delivered * 10 > made * 9, "{delivered} of {made}");
    });
}

/// Which programs are pinned, by the saved state.
fn pinned(files: &DaemonFiles) -> Option<Value> {
    let text = fs::read_to_string(state_files(&files.pin, ".state").first()?).ok()?;
    let state: Value = serde_json::from_str(&text).ok()?;
    Some(state["pinned"]["asked"].clone())
}

fn unreadable() {
    if observer::is_in_vm() {
        return skip("has nothing to do with the kernel");
    }
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "tier = \"none\"");
        let versions = Versions::make();
        let first = Daemon::start(&files, versions.command(0));
        let (listener, client, server) = Kind::V4.pair(port);
        wait_until("the connection is reported", || {
            of_kind(&files.records(), "transition")
                .iter()
                .filter(|record| record["to"] == "ESTABLISHED")
                .count()
                == 2
        });
        first.end();
        set_layout(&files.pin, 999);
        // Nobody reads now: FIN_WAIT1, CLOSE_WAIT, FIN_WAIT2.
        drop(client);
        observer::wait_for_states(&["LISTEN", "CLOSE_WAIT", "FIN_WAIT2"]);
        let second = Daemon::start(&files, versions.command(1));
        check_pins(&files);
        wait_until("the loss is reported", || lost(&files.records(), "decode") > 0);
        let is_corrected = |record: &Value| record["kind"] == "resync" && record["state"] == "CLOSE_WAIT";
        wait_until("the table is corrected", || files.records().iter().any(is_corrected));
        drop((server, listener));
        let is_end = |record: &Value| record["from"] == "LISTEN" && record["to"] == "CLOSE";
        wait_until("the end is reported", || files.records().iter().any(is_end));
        second.end();
        let records = files.records();
        records.iter().for_each(schema::check);
        assert_eq!(lost(&records, "decode"), 4, "{records:#?}");
        let starts = of_kind(&records, "start");
        assert_eq!(starts[1]["adopted"]["instance"], starts[0]["instance"]);
        let degraded = starts[1]["degraded"].to_string();
        assert!(degraded.contains("place decode") && degraded.contains("is not known"), "{degraded}");
        // Another start of the same version adopts the programs.
        Daemon::start(&files, versions.command(1)).end();
        assert!(!of_kind(&files.records(), "start")[2]["degraded"].to_string().contains("replaced"));
    });
}

/// Makes the saved state one of programs with another layout.
fn set_layout(pin: &Path, layout: u32) {
    let files = state_files(pin, ".state");
    let text = fs::read_to_string(&files[0]).expect("state");
    let mut state: Value = serde_json::from_str(&text).expect("JSON");
    assert!(state["pinned"]["layout"].as_u64().is_some_and(|now| now != u64::from(layout)), "{state}");
    state["pinned"]["layout"] = layout.into();
    fs::write(&files[0], state.to_string()).expect("state");
}
