//! `sockstate run` with real collectors: each gets the same records as another sink of the same daemon.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Test,
    daemon::{Daemon, SPLIT, connections},
    lab::{in_lab, wait_until},
    sockets::fresh_port,
    test,
    tools::{self, Running},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("collectors: rsyslog over TCP, UDP and unix", rsyslog),
        test("collectors: syslog-ng over TCP, NDJSON and syslog", syslog_ng),
        test("collectors: the journal", journal),
        test("collectors: ClickHouse over HTTP", || clickhouse("")),
        test("collectors: ClickHouse, from the sinks' process", || clickhouse(SPLIT)),
    ]
}

/// Waits until the file has the record of the listener's end. Returns what `wanted` makes from the lines.
fn records<T>(path: &Path, port: u16, wanted: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let end = "\"from\":\"LISTEN\",\"to\":\"CLOSE\"";
    let port = format!("\"port\":{port}");
    let text = || fs::read_to_string(path).unwrap_or_default();
    wait_until(&format!("{} has everything", path.display()), || {
        text().lines().any(|line| line.contains(end) && line.contains(&port))
    });
    text().lines().filter_map(wanted).collect()
}

/// Starts a collector that reads all lines. Returns its port, and the records that it has read so far.
pub(crate) fn collect(address: (&str, u16)) -> (u16, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind(address).expect("listen");
    let port = listener.local_addr().expect("address").port();
    let records: Arc<Mutex<Vec<Value>>> = Arc::default();
    let into = Arc::clone(&records);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                into.lock().expect("lock").extend(json(&line));
            }
        }
    });
    (port, records)
}

pub(crate) fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Fails with the first difference instead of both complete streams.
pub(crate) fn assert_same<T: PartialEq + std::fmt::Debug>(found: &[T], said: &[T], whose: &str) {
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

/// The transitions of one stream, without the keys that differ between streams.
pub(crate) fn transitions(records: Vec<Value>) -> Vec<Value> {
    records.into_iter().filter(|record| record["kind"] == "transition").collect()
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

/// A journald of the test: it uses a directory of the test as /run.
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
        let text = |entry: &Value, key: &str| entry[key].as_str().map(str::to_owned);
        let is_stop = |record: &Value| record["SOCKSTATE_KIND"] == "stop";
        wait_until("the journal has everything", || journal.entries().iter().any(is_stop));
        let entries = journal.entries();
        let records: Vec<Value> = entries
            .iter()
            .filter_map(|entry| json(&text(entry, "SOCKSTATE_RECORD").expect("the record")))
            .collect();
        assert_same(&records, &said, "journal");
        for (entry, record) in
            entries.iter().zip(&records).filter(|(_, record)| record["kind"] == "transition")
        {
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

/// Sends one request to ClickHouse, and returns the answer.
fn ask(port: u16, query: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = query.len();
    write!(stream, "POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{query}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains(" 200 OK\r\n").then_some(answer)
}

fn clickhouse(top: &'static str) {
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
        let daemon = Daemon::start_with(top, netns, port, &sink("clickhouse", ""));
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
        let of = |record: &Value| {
            let seq = record["seq"].as_u64().map_or_else(|| text(&record["seq"]), |seq| seq.to_string());
            [
                seq,
                text(&record["kind"]),
                text(&record["time"]),
                text(&record["conn"]),
                text(&record["from"]),
                text(&record["to"]),
            ]
        };
        let found: Vec<_> = rows.iter().map(of).collect();
        let said: Vec<_> = story.records.iter().map(of).collect();
        assert_same(&found, &said, "rows");
    });
}
