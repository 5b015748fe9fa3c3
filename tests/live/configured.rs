//! A configuration's secrets stay secret, and a wrong configuration changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::{
    Test,
    collectors::json,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{in_lab, signal, wait_until},
    roles::{Actor, copy_to},
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("configured: no secret in messages, records and metrics", secrets),
        test("configured: labels with dots make documents that Elasticsearch takes", documents),
        test("configured: a name that is a formula is escaped in CSV, if configured", formulas),
        test(
            "configured: a sink that is removed or renamed leaves its spool to the next of its name",
            renamed,
        ),
        test("configured: the name of the host, by the key and by NODE_NAME", host_name),
        test("configured: a reload of a configuration with a fault changes nothing", wrong_reload),
    ]
}

pub(crate) fn ask(port: u16) -> String {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("request");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answer");
    answer
}

fn host_name() {
    in_lab(|netns| {
        let of_system = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for (key, of_node, expected) in [
            ("", None, &*of_system),
            ("", Some(""), &of_system),
            ("", Some("node-7"), "node-7"),
            ("host-name = \"mine\"\n", Some("node-7"), "mine"),
        ] {
            let port = fresh_port();
            let mut daemon = Raw::start_with(key, netns, FILE, |command| {
                command.env_remove("NODE_NAME").envs(of_node.map(|name| ("NODE_NAME", name)));
            });
            daemon.wait_for("\"kind\":\"start\"");
            connections(1, port);
            daemon.wait_for("\"to\":\"TIME_WAIT\"");
            assert!(daemon.end_now().success());
            let records = fs::read_to_string(daemon.path("out")).expect("records");
            for record in records.lines().filter_map(json) {
                assert_eq!(record["host"]["name"], expected, "{key:?} {of_node:?}: {record}");
            }
        }
    });
}

fn secrets() {
    in_lab(|netns| {
        let [dead, port, metrics] = [fresh_port(), fresh_port(), fresh_port()];
        let secret = tempfile::NamedTempFile::new().expect("file");
        fs::write(secret.path(), "Bearer s3cr3t").expect("secret");
        let sinks = format!(
            "{FILE}[sinks.http]\ntype = \"http\"\nurl = \"http://127.0.0.1:{dead}/in?token=s3cr3t\"\n\
             authorization-file = \"{}\"\nretry = \"100ms\"\n[sinks.http.headers]\nX-Key = \"s3cr3t\"\n",
            secret.path().display()
        );
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let mut daemon =
            Raw::start_with(&format!("metrics = \"127.0.0.1:{metrics}\"\n"), netns, &sinks, |command| {
                command.stderr(stderr).stdout(Stdio::null());
            });
        daemon.wait_for("\"kind\":\"start\"");
        connections(2, port);
        let said = || fs::read_to_string(errors.path()).expect("messages");
        wait_until("the collector is missed", || said().contains("sink http: "));
        let numbers = ask(metrics);
        assert!(numbers.contains("sockstate_") && !numbers.contains("s3cr3t"), "{numbers}");
        let seen = said().len();
        daemon.write(&sinks.replace("url = \"http://", "url = \"http://user:s3cr3t@"));
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("the reload is refused", || said()[seen..].contains("user or a password"));
        assert!(daemon.end_now().success());
        let records = fs::read_to_string(daemon.path("out")).expect("records");
        assert!(records.contains("\"to\":\"TIME_WAIT\""));
        for text in [said(), records] {
            assert!(!text.contains("s3cr3t"), "{text}");
        }
    });
}

fn wrong_reload() {
    in_lab(|netns| {
        let port = fresh_port();
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let mut daemon = Raw::start(netns, FILE, |command| {
            command.stderr(stderr);
        });
        daemon.wait_for("\"kind\":\"start\"");
        let said = || fs::read_to_string(errors.path()).expect("messages");
        for (sinks, words) in [
            (format!("{FILE}[sinks.b]\ntype = \"tape\"\n[sinks.c]\ntype = \"file\"\n"), "'path' is missing"),
            (format!("{FILE}[sinks.b]\ntype = \"file\"\npath = \"DIR/out\"\n"), "write to the same file"),
        ] {
            daemon.write(&sinks);
            signal(daemon.pid(), libc::SIGHUP);
            wait_until(words, || said().contains(words));
        }
        assert_eq!(said().matches("going on as before").count(), 2, "{}", said());
        connections(1, port);
        daemon.wait_for("\"to\":\"TIME_WAIT\"");
        assert!(daemon.end_now().success());
        let records = fs::read_to_string(daemon.path("out")).expect("records");
        assert_eq!(records.matches("\"kind\":\"start\"").count(), 1, "the sink went on");
    });
}

/// The paths that Elasticsearch finds in a document (keys joined with dots), and whether each value is an object.
fn paths(at: &str, value: &Value, found: &mut BTreeMap<String, BTreeSet<bool>>) {
    match value {
        Value::Object(map) => {
            if !at.is_empty() {
                found.entry(at.to_owned()).or_default().insert(true);
            }
            for (key, value) in map {
                let mut path = at.to_owned();
                let parts: Vec<&str> = key.split('.').collect();
                for (number, part) in parts.iter().enumerate() {
                    assert!(!part.trim().is_empty(), "{key}");
                    path = if path.is_empty() { (*part).to_owned() } else { format!("{path}.{part}") };
                    if number + 1 < parts.len() {
                        found.entry(path.clone()).or_default().insert(true);
                    }
                }
                paths(&path, value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(at, item, found)),
        Value::Null => {}
        _ => {
            found.entry(at.to_owned()).or_default().insert(false);
        }
    }
}

fn documents() {
    in_lab(|netns| {
        let port = fresh_port();
        let labels = "[labels]\nenv = \"a\"\n\"env.tier\" = \"b\"\n\"app.kubernetes.io/name\" = \"c\"\n\".x.\" = \"d\"\n\
                      [stuck]\nthreshold = [\"CLOSE_WAIT=0\"]\n[sinks.file]\ntype = \"file\"\npath = \"DIR/out\"\nformat = \"ecs\"\n";
        let mut daemon = Raw::start(netns, labels, |command| {
            command.stderr(Stdio::null());
        });
        daemon.wait_for("sockstate.start");
        connections(2, port);
        let listener = Kind::V4.listen(port);
        let client = Kind::V4.connect(port).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        drop(client);
        daemon.wait_for("sockstate.stuck");
        drop(server);
        daemon.wait_for("sockstate.resolved");
        assert!(daemon.end_now().success());
        let text = fs::read_to_string(daemon.path("out")).expect("documents");
        let mut found = BTreeMap::new();
        for line in text.lines() {
            let document: Value = serde_json::from_str(line).expect("JSON");
            for (name, value) in
                [("env", "a"), ("env_tier", "b"), ("app_kubernetes_io/name", "c"), ("_x_", "d")]
            {
                assert_eq!(document["labels"][name], value, "{line}");
            }
            paths("", &document, &mut found);
        }
        let both: Vec<_> = found.iter().filter(|(_, kinds)| kinds.len() > 1).collect();
        assert!(both.is_empty(), "values and objects: {both:?}");
        assert!(found.contains_key("source.ip"), "{found:?}");
    });
}

fn formulas() {
    in_lab(|netns| {
        let port = fresh_port();
        let directory = tempfile::tempdir().expect("directory");
        let program = directory.path().join("=1+1,x");
        copy_to(&program);
        let sink = |name: &str, more: &str| {
            format!("[sinks.{name}]\ntype = \"file\"\npath = \"DIR/{name}\"\nformat = \"csv\"\n{more}\n")
        };
        let sinks = [FILE, &sink("plain", ""), &sink("safe", "escape-formulas = true")].concat();
        let mut daemon = Raw::start(netns, &sinks, |command| {
            command.stderr(Stdio::null());
        });
        daemon.wait_for("\"kind\":\"start\"");
        let mut actor = Actor::start_as(&program, "leaker", port);
        assert_eq!(actor.hear(), "listening");
        let client = Kind::V4.connect(port).expect("connect");
        actor.go_on();
        assert_eq!(actor.hear(), "accepted");
        drop(client);
        daemon.wait_for("\"to\":\"CLOSE_WAIT\"");
        actor.end();
        assert!(daemon.end_now().success());
        let cells = |name: &str, cell: &str| {
            let text = fs::read_to_string(daemon.path(name)).expect("CSV");
            assert!(text.starts_with("SKADDR,C-PID,C-COMM,"), "{text}");
            text.matches(cell).count()
        };
        let named = cells("plain", ",\"=1+1,x\",");
        assert!(named > 0, "named in no line");
        assert_eq!((cells("safe", ",\"'=1+1,x\","), cells("safe", "\"=1")), (named, 0));
    });
}

/// The transitions on a port in some lines, by the keys that identify a transition.
fn transitions(lines: &str, port: u16) -> Vec<String> {
    let is_wanted = |record: &Value| {
        record["kind"] == "transition"
            && [&record["local"], &record["remote"]].iter().any(|end| end["port"] == port)
    };
    let records = lines.lines().filter_map(json).filter(is_wanted);
    records
        .map(|record| format!("{} {} {} {}", record["conn"], record["from"], record["to"], record["time"]))
        .collect()
}

fn renamed() {
    in_lab(|netns| {
        let [dead, port] = [fresh_port(), fresh_port()];
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let sink = |name: &str, spool: &str| {
            format!(
                "[sinks.{name}]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{dead}\"\nretry = \"100ms\"\n{spool}\n"
            )
        };
        let spool = "spool = \"DIR/spool\"";
        let before = format!("{FILE}{}{}", sink("old", spool), sink("gone", ""));
        let mut daemon = Raw::start(netns, &before, |command| {
            command.stderr(stderr);
        });
        daemon.wait_for("\"kind\":\"start\"");
        connections(5, port);
        let so_far = || transitions(&fs::read_to_string(daemon.path("out")).expect("records"), port);
        // The transitions of the listener and of five connections, up to their ends.
        wait_until("all have happened", || {
            so_far().iter().filter(|line| line.contains("\"TIME_WAIT\"")).count() == 5
        });
        let said = || fs::read_to_string(errors.path()).expect("messages");
        daemon.write(&format!("{FILE}{}", sink("new", spool)));
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("its spool is left", || {
            said().lines().any(|line| line.contains("sink old: ") && line.contains("wait in its spool"))
        });
        wait_until("what had no spool is lost", || {
            let lost = |line: &str| line.contains("sink gone: ") && line.contains("were not delivered");
            said().lines().any(lost)
        });
        let happened = so_far();
        // The sink gets its old name again, and a collector that answers.
        let listener = TcpListener::bind(("127.0.0.1", dead)).expect("listen");
        daemon.write(&format!("{FILE}{}", sink("old", spool)));
        signal(daemon.pid(), libc::SIGHUP);
        // The collector may answer the sink `new` first.
        let texts: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&texts);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    into.lock().expect("lock").push(line);
                }
            }
        });
        let found = || transitions(&texts.lock().expect("lock").join("\n"), port);
        wait_until("the spool is delivered", || happened.iter().all(|line| found().contains(line)));
        assert!(daemon.end_now().success());
        for line in &happened {
            assert_eq!(found().iter().filter(|found| *found == line).count(), 1, "{line}");
        }
    });
}
