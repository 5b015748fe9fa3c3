//! The queries of docs/fleet.md, in two query engines: which of two hosts holds a connection open?

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
};

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, in_lab, own_netns},
    netns::in_new_netns,
    observer, skip, test, tools,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![test("fleet: the queries say which end holds a connection, who leaks, and for how long", queries)]
}

/// The kinds of records that the database gets.
const KINDS: &str = r#"["transitions", "connections", "stuck", "resolved", "resyncs"]"#;
/// What the clients send that end normally.
const REQUEST: usize = 1000;

const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {arguments}");
}

/// A daemon on a host of this name. `top` has keys of the configuration.
pub(crate) fn host(name: &str, netns: u64, directory: &Path, top: &str) -> Tracer {
    let config = directory.join(format!("{name}.toml"));
    let text = format!(
        "{top}[filter]\nnetns = {netns}\n[kernel]\nalongside = true\n\
         [sinks.console]\ntype = \"stdout\"\nrecords = {KINDS}\n\
         [sinks.file]\ntype = \"file\"\npath = \"{}/{name}.json\"\nrecords = {KINDS}\n",
        directory.display()
    );
    fs::write(&config, text).expect("config");
    let script = format!(
        "echo {name} > /proc/sys/kernel/hostname && exec {} run --config {}",
        env!("CARGO_BIN_EXE_sockstate"),
        config.display()
    );
    Tracer::spawn(Command::new("unshare").args(["--uts", "sh", "-c", &script]))
}

type Job = Box<dyn FnOnce() + Send>;

/// Runs a job in the other namespace, and waits for it.
fn there<T: Send + 'static>(jobs: &Sender<Job>, job: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, answer) = channel();
    let job = move || sender.send(job()).expect("somebody waits");
    jobs.send(Box::new(job)).expect("the other thread runs");
    answer.recv().expect("an answer")
}

fn queries() {
    if observer::is_in_vm() {
        return skip("needs ip and Python");
    }
    let directory = tempfile::tempdir().expect("directory");
    in_lab(|netns| {
        let (jobs, todo) = channel::<Job>();
        let (sender, other) = channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                in_new_netns(|| {
                    // SAFETY: takes nothing, cannot fail.
                    let thread = unsafe { libc::gettid() };
                    sender.send((own_netns(), thread)).expect("somebody waits");
                    todo.into_iter().for_each(|job| job());
                })
                .expect("a network namespace");
            });
            let (other, thread) = other.recv().expect("the other thread");
            ip(&format!("link add here type veth peer name there netns {thread}"));
            ip(&format!("addr add {}/24 dev here", ADDRESSES[0]));
            ip("link set here up");
            there(&jobs, || {
                ip(&format!("addr add {}/24 dev there", ADDRESSES[1]));
                ip("link set there up");
            });
            let mut web = host("web", netns, directory.path(), "");
            let path = directory.path().to_owned();
            let mut db = there(&jobs, move || host("db", other, &path, ""));
            // Three times the client closes and the server does not. Two other connections end normally.
            let listener = there(&jobs, || TcpListener::bind((ADDRESSES[1], 5432)).expect("listen"));
            let mut forgotten = Vec::new();
            for at in 0..5 {
                let mut client = TcpStream::connect((ADDRESSES[1], 5432)).expect("connect");
                let (mut server, _) = listener.accept().expect("accept");
                if at >= 3 {
                    client.write_all(&[7; REQUEST]).expect("write");
                    server.read_exact(&mut [0; REQUEST]).expect("read");
                }
                drop(client);
                if at < 3 {
                    forgotten.push(server);
                }
            }
            // The other two connections may be in FIN_WAIT2 for a moment, too.
            let port = |server: &TcpStream| server.peer_addr().expect("a peer").port();
            let mut waiting: BTreeSet<u16> = forgotten.iter().map(port).collect();
            while !waiting.is_empty() {
                let record = web.wait_for(|record| record["to"] == "FIN_WAIT2");
                waiting.retain(|port| record["local"]["port"] != *port);
            }
            let is_end = |record: &Value| record["kind"] == "connection";
            for _ in web.seen().iter().filter(|record| is_end(record)).count()..2 {
                web.wait_for(is_end);
            }
            for _ in 0..2 {
                db.wait_for(is_end);
            }
            web.stop();
            db.stop();
            drop(forgotten);
            drop(jobs);
        });
    });
    let files = ["web.json", "db.json"].map(|name| directory.path().join(name));
    let lines: usize =
        files.iter().map(|file| fs::read_to_string(file).expect("records").lines().count()).sum();
    rows_of_each_engine(&files.each_ref().map(PathBuf::as_path), |engine, rows| {
        check(rows, engine);
        if engine == "clickhouse" {
            assert_eq!(rows["events"], lines, "what came twice is there once");
        }
    });
}

/// Passes the name of each query engine, and the rows of all queries on the records in `files`.
pub(crate) fn rows_of_each_engine(files: &[&Path], check: impl Fn(&str, &Value)) {
    for (engine, package) in [("duckdb", "duckdb"), ("clickhouse", "chdb")] {
        let Some(mut python) = tools::python(package) else { continue };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/programs/fleet.py");
        let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");
        let output = python.args([script, engine, packaging]).args(files).output().expect("python");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{engine}: {error}");
        check(engine, &serde_json::from_slice(&output.stdout).expect("JSON"));
    }
}

/// ClickHouse writes 64-bit numbers as texts.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).expect("a number")
}

fn check(rows: &Value, engine: &str) {
    let own = fs::read_to_string("/proc/self/comm").expect("comm");
    let held = rows["held"].as_array().expect("rows");
    assert_eq!(held.len(), 3, "{engine}: {rows:#}");
    for row in held {
        assert_eq!((&row["holder"], &row["waits"]), (&"db".into(), &"web".into()), "{engine}");
        assert_eq!(row["peer_state"], "FIN_WAIT2", "{engine}");
        assert_eq!(row["comm"], own.trim(), "{engine}");
        assert_eq!(row["pid"], std::process::id(), "{engine}");
    }
    let leakers = rows["leakers"].as_array().expect("rows");
    assert_eq!(leakers.len(), 1, "{engine}: {rows:#}");
    assert_eq!(leakers[0]["host"], "db", "{engine}");
    assert_eq!(number(&leakers[0]["connections"]), 3, "{engine}");
    let both = rows["both"].as_array().expect("rows");
    assert_eq!(both.len(), 2, "{engine}: {rows:#}");
    for row in both {
        assert_eq!((&row["client"], &row["server"]), (&"web".into(), &"db".into()), "{engine}");
        assert_eq!(
            (number(&row["client_sent"]), number(&row["server_received"])),
            (1000, 1000),
            "{engine}: {row}"
        );
        assert_eq!(
            (&row["client_closed_first"], &row["server_cause"]),
            (&"local".into(), &"fin".into()),
            "{engine}"
        );
    }
    let talkers = rows["talkers"].as_array().expect("rows");
    let sent: Vec<(&Value, u64, u64)> =
        talkers.iter().map(|row| (&row["host"], number(&row["sent"]), number(&row["received"]))).collect();
    assert_eq!(sent, [(&"db".into(), 0, 2000), (&"web".into(), 2000, 0)], "{engine}");
    let handshakes = rows["handshakes"].as_array().expect("rows");
    assert_eq!((handshakes.len(), &handshakes[0]["remote_port"]), (1, &5432.into()), "{engine}: {rows:#}");
    assert!(handshakes[0]["quantiles"][1].as_f64().expect("seconds") > 0.0, "{engine}");
    assert_eq!(rows["retransmits"], Value::Array(Vec::new()), "{engine}: nothing was lost");
    let dwell = rows["dwell"].as_array().expect("rows");
    let established = dwell.iter().find(|record| record["host"] == "web" && record["state"] == "ESTABLISHED");
    let quantiles = established.expect("the clients' time in ESTABLISHED")["quantiles"].clone();
    let median = quantiles[0].as_f64().expect("seconds");
    assert!(median > 0.0 && median < 5.0, "{engine}: {quantiles}");
}
