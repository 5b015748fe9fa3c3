//! `sockstate run` when something is wrong with a collector, or when its configuration changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    path::Path,
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Test,
    collectors::{assert_same, json, transitions},
    daemon::{Daemon, connections},
    lab::{in_lab, sockstate, wait_until},
    load::{Load, Mode},
    schema,
    sockets::fresh_port,
    test,
    tools::Running,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("collectors: a stopped, a paused and a dead collector do not delay others", faults),
        test("collectors: a full disk loses exactly what is counted", full_disk),
        test("collectors: SIGHUP reads the configuration again, without a gap", reload),
        test("collectors: windows and samples add up", windows),
        test("collectors: impossible sinks are errors", errors),
    ]
}

/// A TCP collector in a process of its own, which can be stopped: a line of Python that does what socat does.
fn netcat(port: u16, into: &Path) -> Running {
    let script = "import socket,sys\nl=socket.create_server(('127.0.0.1',int(sys.argv[1])))\nf=open(sys.argv[2],'ab',0)\n\
                  while True:\n c,_=l.accept()\n rest=b''\n while True:\n  d=c.recv(65536)\n  if not d: break\n  d=rest+d\n  at=d.rfind(b'\\n')+1\n  f.write(d[:at]); rest=d[at:]\n";
    let mut python = Command::new("python3");
    let running = Running::start(python.args(["-c", script, &port.to_string()]).arg(into));
    wait_until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    running
}

fn faults() {
    if Command::new("python3").arg("--version").output().is_err() {
        return crate::skip("needs python3");
    }
    in_lab(|netns| {
        let [paused, stopped, dead, port] = [fresh_port(), fresh_port(), fresh_port(), fresh_port()];
        let directory = tempfile::tempdir().expect("directory");
        let file = |name: &str| directory.path().join(name);
        let first = netcat(paused, &file("paused"));
        let second = netcat(stopped, &file("stopped"));
        // The queue has room for everything. A smaller queue may overflow if the thread of the sink does not get the
        // CPU.
        let sink = |name: &str, port: u16| {
            format!(
                "[sinks.{name}]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{port}\"\nspool = \"DIR/spool\"\nqueue = \"16M\"\nretry = \"200ms\"\n"
            )
        };
        let sinks = [sink("paused", paused), sink("stopped", stopped), sink("dead", dead)].concat();
        let mut daemon = Daemon::start(netns, port, &sinks);
        first.signal(libc::SIGSTOP);
        connections(1000, port);
        // The reader of this sink ends, and comes back later. The third reader never comes.
        drop(second);
        connections(1000, port);
        daemon.tracer.wait_for(|record| {
            record["from"] == "LISTEN" && record["to"] == "CLOSE" && record["seq"].as_u64() > Some(20_000)
        });
        let _second = netcat(stopped, &file("stopped"));
        first.signal(libc::SIGCONT);
        connections(10, port);
        let last = daemon.tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        let received = |name: &str| -> Vec<u64> {
            let text = fs::read_to_string(file(name)).unwrap_or_default();
            text.lines().filter_map(json).filter_map(|record| record["seq"].as_u64()).collect()
        };
        // At the end, a spool has half a second to deliver its records. Both sinks have caught up before.
        let last = last["seq"].as_u64().expect("seq");
        for name in ["paused", "stopped"] {
            wait_until(name, || received(name).contains(&last));
        }
        let spools = ["paused", "stopped", "dead"].map(|name| daemon.path(&format!("spool/{name}")));
        let (story, _directory) = daemon.stop();
        let reported: Vec<u64> = story.records.iter().filter_map(|record| record["seq"].as_u64()).collect();
        assert!(story.of("lost").next().is_none(), "{:?}", story.of("lost").collect::<Vec<_>>());
        // Records that were not delivered are on disk for the next run.
        let [paused_rest, stopped_rest, dead] = spools.map(|path| spooled(&path));
        assert_same(&dead, &reported, "spool");
        for (name, rest) in [("paused", paused_rest), ("stopped", stopped_rest)] {
            let all = || {
                let mut seqs = [received(name), rest.clone()].concat();
                seqs.sort_unstable();
                seqs.dedup();
                seqs
            };
            wait_until(name, || all().last() == reported.last());
            assert_same(&all(), &reported, name);
        }
        // Records that a reset left in doubt come twice. The connection of the paused collector was never reset.
        assert!(received("paused").is_sorted_by(|a, b| a < b), "nothing twice");
    });
}

/// The numbers of the records in a spool.
fn spooled(path: &Path) -> Vec<u64> {
    let mut spool = sockstate::sinks::Spool::open(path, 1 << 30, false).expect("spool");
    let mut seqs = Vec::new();
    while !spool.is_empty() {
        seqs.extend(spool.read(1 << 20).expect("read").batch.frames.iter().map(|frame| frame.seq));
        spool.delivered();
    }
    seqs
}

/// A small file system, which is unmounted at the end of the test.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs"])
            .arg(directory.path())
            .status()
            .expect("mount");
        assert!(mounted.success());
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn full_disk() {
    in_lab(|netns| {
        let disk = SmallDisk::new("1m");
        let [dead, port] = [fresh_port(), fresh_port()];
        let ballast = disk.0.path().join("ballast");
        fs::write(&ballast, vec![0; 700 << 10]).expect("ballast");
        let path = disk.0.path().display();
        let mut daemon = Daemon::start(
            netns,
            port,
            &format!(
                "[sinks.file]\ntype = \"file\"\npath = \"{path}/records\"\nqueue = \"128K\"\nretry = \"50ms\"\n\
                 [sinks.dead]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{dead}\"\nqueue = \"128K\"\nspool = \"{path}/spool\"\n"
            ),
        );
        connections(500, port);
        daemon.tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        fs::remove_file(&ballast).expect("remove");
        let records = || fs::read_to_string(disk.0.path().join("records")).unwrap_or_default();
        wait_until("a lost record is written", || {
            records().lines().filter_map(json).any(|record| record["kind"] == "lost")
        });
        connections(5, port);
        let (story, _directory) = daemon.stop();
        assert!(story.of("lost").next().is_none());
        let found: Vec<Value> = records().lines().map(|line| json(line).expect("whole lines only")).collect();
        let lost = |record: &&Value| record["kind"] == "lost";
        let counted: u64 =
            found.iter().filter(lost).map(|record| record["count"].as_u64().expect("count")).sum();
        assert!(found.iter().filter(lost).all(|record| record["place"] == "sink"));
        let kept = found.iter().filter(|record| !lost(record)).count() as u64;
        assert!(counted > 0);
        assert_eq!(kept + counted, story.records.len() as u64);
        // The number of the last record includes the `lost` records.
        let last = found.last().and_then(|record| record["seq"].as_u64()).expect("seq");
        assert_eq!(last, story.records.len() as u64 + found.iter().filter(lost).count() as u64);
    });
}

fn reload() {
    in_lab(|netns| {
        let port = fresh_port();
        let file = |name: &str, more: &str| {
            format!("[sinks.{name}]\ntype = \"file\"\npath = \"DIR/{name}\"\n{more}")
        };
        let mut daemon = Daemon::start(
            netns,
            port,
            &[file("same", ""), file("changed", ""), file("gone", ""), file("rotated", "")].concat(),
        );
        let load = Load { mode: Mode::Fin, threads: 1, count: 3000, acceptors: false, gap_us: 0, port };
        let pid = daemon.tracer.pid();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| load.run().expect("load"));
            daemon.tracer.wait_for(|record| record["seq"].as_u64() > Some(3000));
            fs::rename(daemon.path("rotated"), daemon.path("rotated.1")).expect("rename");
            daemon.configure("[sinks.broken]\ntype = \"nothing\"\n");
            crate::lab::signal(pid, libc::SIGHUP);
            wait_until("a broken one changes nothing", || daemon.path("rotated").exists());
            let filter = "[sinks.changed.filter]\nto = [\"CLOSE_WAIT\"]\n";
            daemon.configure(
                &[file("same", ""), file("changed", filter), file("rotated", ""), file("new", "")].concat(),
            );
            crate::lab::signal(pid, libc::SIGHUP);
            wait_until("the new sink begins", || daemon.path("new").exists());
            worker.join().expect("load");
        });
        let (story, directory) = daemon.stop();
        let said: Vec<Value> = story.records;
        let read = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(directory.path().join(name)).expect(name);
            text.lines().map(|line| json(line).expect("JSON")).collect()
        };
        assert_same(&read("same"), &said, "same");
        let both: Vec<Value> = read("rotated.1").into_iter().chain(read("rotated")).collect();
        assert_same(&both, &said, "both files");
        let gone = read("gone");
        assert!(gone.len() > 1000 && said.starts_with(&gone), "up to a point it has everything");
        let changed = read("changed");
        let starts: Vec<usize> = changed
            .iter()
            .enumerate()
            .filter(|(_, record)| record["kind"] == "start")
            .map(|(at, _)| at)
            .collect();
        let [0, second] = starts[..] else { panic!("{starts:?}") };
        assert_same(&changed[..second], &said[..second], "everything before");
        let later: Vec<(&Value, &Value)> = said[second..]
            .iter()
            .filter(|record| record["to"] == "CLOSE_WAIT")
            .map(|record| (&record["conn"], &record["time"]))
            .collect();
        let filtered: Vec<(&Value, &Value)> = changed[second + 1..]
            .iter()
            .filter(|record| record["kind"] == "transition")
            .map(|record| (&record["conn"], &record["time"]))
            .collect();
        assert_same(&filtered, &later, "and then what it asks for");
        let seqs: Vec<u64> = changed.iter().filter_map(|record| record["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        let new = read("new");
        assert_eq!(new[0]["kind"], "start");
        assert!(said.len() - new.len() < said.len() && new.len() > 1);
    });
}

fn windows() {
    in_lab(|netns| {
        let port = fresh_port();
        let file = |name: &str, more: &str| {
            format!("[sinks.{name}]\ntype = \"file\"\npath = \"DIR/{name}\"\n{more}\n")
        };
        let mut daemon = Daemon::start(
            netns,
            port,
            &[
                file("counted", "aggregate = \"200ms\""),
                file("few", "aggregate = \"1h\"\naggregate-keys = 1"),
                file("sampled", "sample = 4\nrecords = [\"transitions\", \"connections\"]"),
            ]
            .concat(),
        );
        connections(100, port);
        daemon.tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        let text = |name: &str| fs::read_to_string(daemon.path(name)).unwrap_or_default();
        wait_until("the window ends although nothing happens", || {
            text("counted").contains("\"from\":\"LISTEN\",\"to\":\"CLOSE\"")
        });
        let (story, directory) = daemon.stop();
        let read = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(directory.path().join(name)).expect(name);
            let records: Vec<Value> = text.lines().map(|line| json(line).expect("JSON")).collect();
            records.iter().for_each(schema::check);
            records
        };
        let pair = |record: &Value| {
            (record["role"].to_string(), record["from"].to_string(), record["to"].to_string())
        };
        let mut said: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for record in story.transitions() {
            let (count, sum_ns) = said.entry(pair(record)).or_default();
            *count += 1;
            *sum_ns +=
                record["in_state_ns"].as_u64().filter(|_| record["in_state_at_least"].is_null()).unwrap_or(0);
        }
        for name in ["counted", "few"] {
            let mut counted: BTreeMap<_, (u64, u64)> = BTreeMap::new();
            for record in read(name).iter().filter(|record| record["kind"] == "aggregate") {
                let (count, sum_ns) = counted.entry(pair(record)).or_default();
                *count += record["count"].as_u64().expect("count");
                *sum_ns += record["in_state"]["sum_ns"].as_u64().expect("sum");
                let is_one = record["peer"]["address"] == "127.0.0.1" && record["port"] == port;
                let is_rest = record["peer"].is_null() && record["port"].is_null();
                assert!(is_one || record["role"] == "listener" || (name == "few" && is_rest), "{record}");
            }
            assert_eq!(counted, said, "{name}");
        }
        let records = read("sampled");
        let sampled = transitions(records.clone());
        let conns: BTreeSet<String> = sampled.iter().map(|record| record["conn"].to_string()).collect();
        assert!((20..=90).contains(&conns.len()), "a quarter of 201, more or less: {}", conns.len());
        let without_seq = |record: &Value| {
            let mut record = record.clone();
            record["seq"] = Value::Null;
            if let Some(keys) = record.as_object_mut() {
                keys.remove("sample");
                // A record that has waited for its port has it.
                if keys["from"] == "CLOSE" {
                    keys.retain(|key, _| key != "local" && key != "network");
                }
            }
            record
        };
        check_sides(&records, &sampled, &conns);
        let of_sampled = story.transitions().filter(|record| conns.contains(&record["conn"].to_string()));
        // The first transition of a connect waits for its port, so others may come before it.
        let by_conn = |record: &Value| record["conn"].to_string();
        let mut expected: Vec<Value> = of_sampled.map(without_seq).collect();
        let mut found: Vec<Value> = sampled.iter().map(without_seq).collect();
        expected.sort_by_key(by_conn);
        found.sort_by_key(by_conn);
        assert_same(&found, &expected, "sampled");
    });
}

/// Both ends of a connection are in the sample, each with its transitions and its record.
fn check_sides(records: &[Value], sampled: &[Value], conns: &BTreeSet<String>) {
    let mut sides: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in records.iter().filter(|record| record["kind"] == "connection") {
        assert!(conns.contains(&record["conn"].to_string()), "{record}");
        let id = record["network"]["community_id"].to_string();
        sides.entry(id).or_default().insert(record["role"].to_string());
    }
    assert!(sides.len() >= 10 && sides.values().all(|roles| roles.len() == 2), "{sides:?}");
    let listeners = sampled.iter().filter(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
    assert_eq!(conns.len(), 2 * sides.len() + listeners.count(), "each has its record");
    let of_connections = |record: &&Value| record["kind"] == "connection" || record["kind"] == "transition";
    assert!(records.iter().filter(of_connections).all(|record| record["sample"] == 4));
}

fn errors() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let config = directory.path().join("config.toml");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("file");
        for (sink, words) in [
            ("type = \"file\"\npath = \"/no/such/directory/file\"", "cannot open /no/such/directory/file"),
            ("type = \"stdout\"\nspool = \"FILE/spool\"", "cannot use the spool"),
            ("type = \"socket\"\naddress = \"tls://localhost:1\"\ntls-ca = \"/no/ca\"", "/no/ca"),
            ("type = \"http\"\nurl = \"ftp://localhost\"", "is no URL"),
            (
                "type = \"http\"\nurl = \"http://localhost\"\nauthorization-file = \"/no/secret\"",
                "/no/secret",
            ),
        ] {
            let sink = sink.replace("FILE", &file.display().to_string());
            let text =
                format!("[filter]\nnetns = {netns}\n[kernel]\nalongside = true\n[sinks.bad]\n{sink}\n");
            fs::write(&config, text).expect("config");
            let output = sockstate().args(["run", "--config"]).arg(&config).output().expect("sockstate");
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{sink}: {error}");
            assert!(error.contains("sink bad") && error.contains(words), "{sink}: {error}");
        }
    });
}
