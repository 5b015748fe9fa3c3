//! `sockstate run` into the collectors that people have: each gets, record by record, what another sink of the same daemon got.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Test,
    daemon::{Daemon, connections},
    lab::{in_lab, sockstate, wait_until},
    load::{Load, Mode},
    schema,
    sockets::fresh_port,
    test,
    tools::{self, Running},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("collectors: rsyslog over TCP, UDP and unix", rsyslog),
        test("collectors: syslog-ng over TCP, NDJSON and syslog", syslog_ng),
        test("collectors: the journal", journal),
        test("collectors: ClickHouse over HTTP", clickhouse),
        test("collectors: a stopped, a paused and a dead one delay nobody", faults),
        test("collectors: a full disk costs what is counted", full_disk),
        test("collectors: SIGHUP reads the configuration again, without a gap", reload),
        test("collectors: windows and samples add up", windows),
        test("collectors: sinks that cannot be are errors", errors),
    ]
}

/// Waits until the file holds a record of the listener's end, and returns the lines that `wanted` makes something of.
fn records<T>(path: &Path, port: u16, wanted: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let end = "\"from\":\"LISTEN\",\"to\":\"CLOSE\"";
    let port = format!("\"port\":{port}");
    let text = || fs::read_to_string(path).unwrap_or_default();
    wait_until(&format!("{} has everything", path.display()), || {
        text().lines().any(|line| line.contains(end) && line.contains(&port))
    });
    text().lines().filter_map(wanted).collect()
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Fails with what is different first, not with everything.
fn assert_same<T: PartialEq + std::fmt::Debug>(found: &[T], said: &[T], whose: &str) {
    let at = found.iter().zip(said).position(|(found, said)| found != said);
    let at = at.unwrap_or(found.len().min(said.len()));
    let lengths = (found.len(), said.len());
    assert!(
        found == said,
        "{whose}: {lengths:?}, from {at} on: {:?} and not {:?}",
        found.get(at),
        said.get(at)
    );
}

/// The transitions of one stream, as another must have them.
fn transitions(records: Vec<Value>) -> Vec<Value> {
    records.into_iter().filter(|it| it["kind"] == "transition").collect()
}

fn rsyslog() {
    let Some(mut rsyslogd) = tools::find("rsyslogd", "rsyslog") else { return };
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let dir = directory.path().display();
        let [tcp, udp, port] = [fresh_port(), fresh_port(), fresh_port()];
        let config = format!(
            "module(load=\"imtcp\")\nmodule(load=\"imudp\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             global(workDirectory=\"{dir}\" maxMessageSize=\"64k\")\n\
             template(name=\"all\" type=\"string\" string=\"%pri% %timestamp:::date-rfc3339% %hostname% %app-name% %msgid% %structured-data% %msg%\\n\")\n\
             ruleset(name=\"tcp\") {{ action(type=\"omfile\" file=\"{dir}/tcp\" template=\"all\") }}\n\
             ruleset(name=\"udp\") {{ action(type=\"omfile\" file=\"{dir}/udp\" template=\"all\") }}\n\
             ruleset(name=\"unix\") {{ action(type=\"omfile\" file=\"{dir}/unix\" template=\"all\") }}\n\
             input(type=\"imtcp\" port=\"{tcp}\" ruleset=\"tcp\")\ninput(type=\"imudp\" port=\"{udp}\" ruleset=\"udp\" rcvbufSize=\"8m\")\n\
             input(type=\"imuxsock\" Socket=\"{dir}/log\" ruleset=\"unix\" RateLimit.Interval=\"0\" UseSpecialParser=\"off\" ParseTrusted=\"off\")\n"
        );
        let file = directory.path().join("rsyslog.conf");
        fs::write(&file, config).expect("config");
        let rsyslogd = rsyslogd
            .arg("-n")
            .arg("-f")
            .arg(&file)
            .args([
                "-i",
                &format!("{dir}/pid"),
                "-M",
                &tools::below(&format!("usr/lib/{}/rsyslog", tools::triplet())),
            ])
            .env("LC_ALL", "C");
        let _rsyslogd = Running::start(rsyslogd);
        wait_until("rsyslog listens", || {
            TcpStream::connect(("127.0.0.1", tcp)).is_ok() && directory.path().join("log").exists()
        });
        let daemon = Daemon::start(
            netns,
            port,
            &format!(
                "[sinks.tcp]\ntype = \"syslog\"\naddress = \"tcp://127.0.0.1:{tcp}\"\n\
                 [sinks.udp]\ntype = \"syslog\"\nfacility = 16\naddress = \"udp://127.0.0.1:{udp}\"\n\
                 [sinks.unix]\ntype = \"syslog\"\naddress = \"unix:{dir}/log\"\n"
            ),
        );
        connections(50, port);
        let (story, _directory) = daemon.stop();
        let said: Vec<Value> = story.transitions().cloned().collect();
        assert!(said.len() > 400, "{}", said.len());
        for (name, priority) in [("tcp", 30), ("udp", 134), ("unix", 30)] {
            let lines = records(&directory.path().join(name), port, |line| {
                let (head, message) = line.split_once("] ")?;
                let record = json(message.trim_start())?;
                if record["kind"] == "transition" {
                    let begin = format!("{priority} ");
                    assert!(
                        head.starts_with(&begin)
                            && head.contains(" sockstate transition [sockstate@32473 seq="),
                        "{line}"
                    );
                    let to = format!(" to=\"{}\"", record["to"].as_str().expect("state"));
                    assert!(head.contains(&to), "{line}");
                }
                Some(record)
            });
            assert_same(&transitions(lines), &said, name);
        }
    });
}

fn syslog_ng() {
    let Some(mut syslog_ng) = tools::find("syslog-ng", "syslog-ng-core") else { return };
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let dir = directory.path().display();
        let [plain, framed, port] = [fresh_port(), fresh_port(), fresh_port()];
        let config = format!(
            "@version: 3.38\n\
             source plain {{ network(ip(127.0.0.1) port({plain}) transport(tcp) flags(no-parse) log-msg-size(65536)); }};\n\
             source framed {{ syslog(ip(127.0.0.1) port({framed}) transport(tcp) log-msg-size(65536)); }};\n\
             destination plain {{ file(\"{dir}/plain\" template(\"$MSG\\n\")); }};\n\
             destination framed {{ file(\"{dir}/framed\" template(\"$(format-json --key .SDATA.* --key MSGID --key PROGRAM)\\t$MSG\\n\")); }};\n\
             log {{ source(plain); destination(plain); }};\nlog {{ source(framed); destination(framed); }};\n"
        );
        let file = directory.path().join("syslog-ng.conf");
        fs::write(&file, config).expect("config");
        let name = |name: &str| format!("{dir}/{name}");
        let _syslog_ng = Running::start(
            syslog_ng
                .args(["-F", "--no-caps", "-f"])
                .arg(&file)
                .args(["-p", &name("pid"), "-R", &name("persist"), "-c", &name("control")])
                .args(["--module-path", &tools::below("usr/lib/syslog-ng/3.38")])
                .stderr(Stdio::null()),
        );
        wait_until("syslog-ng listens", || TcpStream::connect(("127.0.0.1", framed)).is_ok());
        let daemon = Daemon::start(
            netns,
            port,
            &format!(
                "[sinks.plain]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{plain}\"\n\
                 [sinks.framed]\ntype = \"syslog\"\naddress = \"tcp://127.0.0.1:{framed}\"\n"
            ),
        );
        connections(50, port);
        let (story, _directory) = daemon.stop();
        let said: Vec<Value> = story.transitions().cloned().collect();
        let plain = records(&directory.path().join("plain"), port, json);
        assert_same(&transitions(plain), &said, "plain");
        let framed = records(&directory.path().join("framed"), port, |line| {
            let (fields, message) = line.split_once('\t')?;
            let (fields, record) = (json(fields)?, json(message)?);
            assert_eq!((&fields["PROGRAM"], &fields["MSGID"]), (&"sockstate".into(), &record["kind"]));
            let data = &fields["_SDATA"]["sockstate@32473"];
            assert_eq!(data["conn"], record["conn"], "{line}");
            Some(record)
        });
        assert_same(&transitions(framed), &said, "framed");
    });
}

/// A journald of its own: what it takes for /run is a directory of the test.
struct Journal {
    run: TempDir,
    _journald: Running,
}

impl Journal {
    fn start() -> Option<Self> {
        const JOURNALD: &str = "/lib/systemd/systemd-journald";
        let Ok(machine) = fs::read_to_string("/etc/machine-id").map(|id| id.trim().to_owned()) else {
            crate::skip("needs /etc/machine-id");
            return None;
        };
        if !Path::new(JOURNALD).exists() {
            crate::skip("needs systemd's journald");
            return None;
        }
        let run = tempfile::tempdir().expect("directory");
        for directory in [format!("log/journal/{machine}"), "systemd/journal".into()] {
            fs::create_dir_all(run.path().join(directory)).expect("directory");
        }
        let script = format!("mount --bind {} /run && exec {JOURNALD}", run.path().display());
        let mut command = Command::new("unshare");
        let command = command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let journald = Running::start(command.stderr(Stdio::null()).stdout(Stdio::null()));
        let journal = Self { run, _journald: journald };
        wait_until("journald listens", || journal.socket().exists());
        Some(journal)
    }

    fn socket(&self) -> PathBuf {
        self.run.path().join("systemd/journal/socket")
    }

    fn entries(&self) -> Vec<Value> {
        let output = Command::new("journalctl")
            .arg("--directory")
            .arg(self.run.path().join("log/journal"))
            .args(["--output", "json", "--all", "--no-pager", "SYSLOG_IDENTIFIER=sockstate"])
            .output()
            .expect("journalctl");
        String::from_utf8_lossy(&output.stdout).lines().filter_map(json).collect()
    }
}

fn journal() {
    let Some(journal) = Journal::start() else { return };
    in_lab(|netns| {
        let port = fresh_port();
        let socket = journal.socket();
        let daemon = Daemon::start(
            netns,
            port,
            &format!("[sinks.journal]\ntype = \"journald\"\nsocket = \"{}\"\n", socket.display()),
        );
        connections(50, port);
        let (story, _directory) = daemon.stop();
        let said: Vec<Value> = story.records.to_vec();
        let text = |it: &Value, key: &str| it[key].as_str().map(str::to_owned);
        let is_stop = |it: &Value| it["SOCKSTATE_KIND"] == "stop";
        wait_until("the journal has everything", || journal.entries().iter().any(is_stop));
        let entries = journal.entries();
        let records: Vec<Value> = entries
            .iter()
            .filter_map(|it| json(&text(it, "SOCKSTATE_RECORD").expect("the record")))
            .collect();
        assert_same(&records, &said, "journal");
        for (entry, record) in entries.iter().zip(&records).filter(|(_, it)| it["kind"] == "transition") {
            assert_eq!(entry["OBJECT_TCP_OLD_STATE"], record["from"]);
            assert_eq!(entry["OBJECT_TCP_NEW_STATE"], record["to"]);
            assert_eq!(text(entry, "OBJECT_PID"), record["owner"]["pid"].as_u64().map(|pid| pid.to_string()));
            assert_eq!(entry["OBJECT_IPV4_SOURCE_ADDRESS"], record["local"]["address"]);
            let port = |value: &Value| value.as_u64().map(|port| port.to_string());
            assert_eq!(text(entry, "OBJECT_TCP_DESTINATION_PORT"), port(&record["remote"]["port"]));
            let message = text(entry, "MESSAGE").expect("a message");
            assert!(message.contains(record["to"].as_str().expect("state")), "{message}");
        }
    });
}

/// One request to ClickHouse; its answer.
fn ask(port: u16, query: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = query.len();
    write!(stream, "POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{query}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains(" 200 OK\r\n").then_some(answer)
}

fn clickhouse() {
    let Some(mut server) = tools::find("clickhouse-server", "clickhouse-server") else { return };
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let dir = directory.path().display();
        let [http, native, port] = [fresh_port(), fresh_port(), fresh_port()];
        let users = "<yandex><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>\
                     <networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default></users></yandex>";
        let config = format!(
            "<yandex><logger><level>error</level><console>1</console></logger><http_port>{http}</http_port><tcp_port>{native}</tcp_port>\
             <listen_host>127.0.0.1</listen_host><path>{dir}/data/</path><tmp_path>{dir}/tmp/</tmp_path><users_config>users.xml</users_config>\
             <mark_cache_size>1000000</mark_cache_size><default_profile>default</default_profile><default_database>default</default_database></yandex>"
        );
        let file = directory.path().join("config.xml");
        fs::write(&file, config).expect("config");
        fs::write(directory.path().join("users.xml"), users).expect("users");
        let _server = Running::start(
            server
                .arg(format!("--config-file={}", file.display()))
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        wait_until("ClickHouse answers", || ask(http, "SELECT 1").is_some());
        let table = "CREATE TABLE events (seq UInt64, kind String, time String, conn String, from String, to String) ENGINE = Memory";
        ask(http, table).expect("a table");
        let sink = |name: &str, more: &str| {
            format!(
                "[sinks.{name}]\ntype = \"http\"\nbatch-time = \"50ms\"\n{more}\
                 url = \"http://127.0.0.1:{http}/?query=INSERT%20INTO%20events%20FORMAT%20JSONEachRow&input_format_skip_unknown_fields=1\"\n"
            )
        };
        let daemon = Daemon::start(netns, port, &sink("clickhouse", ""));
        connections(50, port);
        let (story, _directory) = daemon.stop();
        let answer =
            ask(http, "SELECT seq, kind, time, conn, from, to FROM events ORDER BY seq FORMAT JSONEachRow")
                .expect("rows");
        let rows: Vec<Value> = answer
            .lines()
            .filter(|line| line.contains("\"seq\""))
            .map(|line| json(line.trim()).expect("JSON"))
            .collect();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let of = |it: &Value| {
            let seq = it["seq"].as_u64().map_or_else(|| text(&it["seq"]), |seq| seq.to_string());
            [seq, text(&it["kind"]), text(&it["time"]), text(&it["conn"]), text(&it["from"]), text(&it["to"])]
        };
        let found: Vec<_> = rows.iter().map(of).collect();
        let said: Vec<_> = story.records.iter().map(of).collect();
        assert_same(&found, &said, "rows");
    });
}

/// A TCP collector in a process of its own, which can be stopped: socat's work in a line of Python.
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
        let sink = |name: &str, port: u16| {
            format!(
                "[sinks.{name}]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{port}\"\nspool = \"DIR/spool\"\nqueue = \"2M\"\nretry = \"200ms\"\n"
            )
        };
        let sinks = [sink("paused", paused), sink("stopped", stopped), sink("dead", dead)].concat();
        let mut daemon = Daemon::start(netns, port, &sinks);
        first.signal(libc::SIGSTOP);
        connections(1000, port);
        // Its reader ends, and comes back later; the third never comes.
        drop(second);
        connections(1000, port);
        daemon.tracer.wait_for(|it| {
            it["from"] == "LISTEN" && it["to"] == "CLOSE" && it["seq"].as_u64() > Some(20_000)
        });
        let _second = netcat(stopped, &file("stopped"));
        first.signal(libc::SIGCONT);
        connections(10, port);
        let spool = daemon.path("spool/dead");
        let (story, _kept) = daemon.stop();
        let said: Vec<u64> = story.records.iter().filter_map(|it| it["seq"].as_u64()).collect();
        assert!(story.of("lost").next().is_none(), "{:?}", story.of("lost").collect::<Vec<_>>());
        for name in ["paused", "stopped"] {
            let text = || fs::read_to_string(file(name)).unwrap_or_default();
            wait_until(name, || text().contains("\"kind\":\"stop\""));
            let mut seqs: Vec<u64> =
                text().lines().filter_map(json).filter_map(|it| it["seq"].as_u64()).collect();
            // What a reset left in doubt comes twice.
            if name == "paused" {
                assert!(seqs.is_sorted_by(|a, b| a < b), "nothing twice");
            }
            seqs.sort_unstable();
            seqs.dedup();
            assert_same(&seqs, &said, name);
        }
        // What never went anywhere is on disk, for the next run.
        let mut spool = sockstate::sinks::Spool::open(&spool, 1 << 30, false).expect("spool");
        let mut kept = Vec::new();
        while !spool.is_empty() {
            kept.extend(spool.read(1 << 20).expect("read").batch.frames.iter().map(|frame| frame.seq));
            spool.delivered();
        }
        assert_same(&kept, &said, "spool");
    });
}

/// A small file system of its own, gone with the test.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
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
        daemon.tracer.wait_for(|it| it["from"] == "LISTEN" && it["to"] == "CLOSE");
        fs::remove_file(&ballast).expect("remove");
        let records = || fs::read_to_string(disk.0.path().join("records")).unwrap_or_default();
        wait_until("the loss is said", || records().lines().filter_map(json).any(|it| it["kind"] == "lost"));
        connections(5, port);
        let (story, _directory) = daemon.stop();
        assert!(story.of("lost").next().is_none());
        let found: Vec<Value> = records().lines().map(|line| json(line).expect("whole lines only")).collect();
        let lost = |it: &&Value| it["kind"] == "lost";
        let counted: u64 = found.iter().filter(lost).map(|it| it["count"].as_u64().expect("count")).sum();
        assert!(found.iter().filter(lost).all(|it| it["place"] == "sink"));
        let kept = found.iter().filter(|it| !lost(it)).count() as u64;
        assert!(counted > 0);
        assert_eq!(kept + counted, story.records.len() as u64);
        // The last record's number counts the `lost` records, too.
        let last = found.last().and_then(|it| it["seq"].as_u64()).expect("seq");
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
            daemon.tracer.wait_for(|it| it["seq"].as_u64() > Some(3000));
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
        let starts: Vec<usize> =
            changed.iter().enumerate().filter(|(_, it)| it["kind"] == "start").map(|(at, _)| at).collect();
        let [0, second] = starts[..] else { panic!("{starts:?}") };
        assert_same(&changed[..second], &said[..second], "everything before");
        let later: Vec<(&Value, &Value)> = said[second..]
            .iter()
            .filter(|it| it["to"] == "CLOSE_WAIT")
            .map(|it| (&it["conn"], &it["time"]))
            .collect();
        let filtered: Vec<(&Value, &Value)> = changed[second + 1..]
            .iter()
            .filter(|it| it["kind"] == "transition")
            .map(|it| (&it["conn"], &it["time"]))
            .collect();
        assert_same(&filtered, &later, "and then what it asks for");
        let seqs: Vec<u64> = changed.iter().filter_map(|it| it["seq"].as_u64()).collect();
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
                file("sampled", "sample = 4"),
            ]
            .concat(),
        );
        connections(100, port);
        daemon.tracer.wait_for(|it| it["from"] == "LISTEN" && it["to"] == "CLOSE");
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
        let pair = |it: &Value| (it["role"].to_string(), it["from"].to_string(), it["to"].to_string());
        let mut said: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for it in story.transitions() {
            let (count, sum_ns) = said.entry(pair(it)).or_default();
            *count += 1;
            *sum_ns += it["in_state_ns"].as_u64().filter(|_| it["in_state_at_least"].is_null()).unwrap_or(0);
        }
        for name in ["counted", "few"] {
            let mut counted: BTreeMap<_, (u64, u64)> = BTreeMap::new();
            for it in read(name).iter().filter(|it| it["kind"] == "aggregate") {
                let (count, sum_ns) = counted.entry(pair(it)).or_default();
                *count += it["count"].as_u64().expect("count");
                *sum_ns += it["in_state"]["sum_ns"].as_u64().expect("sum");
                let is_one = it["peer"]["address"] == "127.0.0.1" && it["port"] == port;
                let is_rest = it["peer"].is_null() && it["port"].is_null();
                assert!(is_one || it["role"] == "listener" || (name == "few" && is_rest), "{it}");
            }
            assert_eq!(counted, said, "{name}");
        }
        let sampled = transitions(read("sampled"));
        let conns: BTreeSet<String> = sampled.iter().map(|it| it["conn"].to_string()).collect();
        assert!((20..=90).contains(&conns.len()), "a quarter of 201, more or less: {}", conns.len());
        let without_seq = |it: &Value| {
            let mut it = it.clone();
            it["seq"] = Value::Null;
            it
        };
        let of_sampled = story.transitions().filter(|it| conns.contains(&it["conn"].to_string()));
        let expected: Vec<Value> = of_sampled.map(without_seq).collect();
        let found: Vec<Value> = sampled.iter().map(without_seq).collect();
        assert_same(&found, &expected, "sampled");
    });
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
