//! Ends and restarts when something is wrong: promised records are delivered, and all others are counted as lost.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use sockstate::sinks::Spool;

use crate::{
    Test,
    collectors::{assert_same, json},
    daemon::{Daemon, connections},
    hostile::{FILE, Raw},
    lab::{in_lab, signal, sockstate, wait_until},
    restart::{DaemonFiles, end, kill, state_files},
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("reliability: a dead sink does not delay others", dead_sink_at_the_end),
        test(
            "reliability: a second signal ends the wait, and what is left is spooled or counted",
            second_signal,
        ),
        test("reliability: a full /run does not prevent tracing", full_run),
        test("reliability: without its ledger, state is not taken over", lost_ledger),
        test("reliability: the state is removed with the pins", state_of_pins),
    ]
}

fn dead_sink_at_the_end() {
    in_lab(|netns| {
        let [dead, port] = [fresh_port(), fresh_port()];
        let mut daemon = Daemon::start(
            netns,
            port,
            &format!(
                "[sinks.dead]\ntype = \"http\"\nurl = \"http://127.0.0.1:{dead}\"\nqueue = \"64K\"\nretry = \"100ms\"\n\
                 [sinks.file]\ntype = \"file\"\npath = \"DIR/out\"\n"
            ),
        );
        connections(1, port);
        daemon.tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        // Many records wait in the ring when the daemon ends.
        signal(daemon.tracer.pid(), libc::SIGSTOP);
        connections(1500, port);
        signal(daemon.tracer.pid(), libc::SIGCONT);
        let (story, directory) = daemon.stop();
        let text = fs::read_to_string(directory.path().join("out")).expect("records");
        let found: Vec<Value> = text.lines().map(|line| json(line).expect("JSON")).collect();
        assert!(found.len() > 10_000, "{}", found.len());
        assert_same(&found, &story.records, "the healthy one");
        assert_eq!(found.last().map(|record| &record["kind"]), Some(&Value::from("stop")));
    });
}

fn second_signal() {
    in_lab(|netns| {
        // The collector accepts connections, and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let url = format!("http://{}", silent.local_addr().expect("address"));
        let http = |name: &str| format!("[sinks.{name}]\ntype = \"http\"\nurl = \"{url}\"\n");
        let sinks = format!("{FILE}{}{}spool = \"DIR/spool\"\n", http("silent"), http("spooled"));
        let directory = tempfile::tempdir().expect("directory");
        let messages = directory.path().join("messages");
        let mut daemon = Raw::start(netns, &sinks, |command| {
            command.stderr(File::create(&messages).expect("file"));
        });
        daemon.wait_for("\"kind\":\"start\"");
        connections(20, fresh_port());
        daemon.wait_for("\"from\":\"LISTEN\",\"to\":\"CLOSE\"");
        // Both sinks have sent records. The sink with a spool keeps them; some records of the other sink are in doubt.
        let _requests = [(); 2].map(|()| {
            let (mut request, _) = silent.accept().expect("a sink's connection");
            assert_eq!(request.read(&mut [0]).expect("a request"), 1);
            request
        });
        signal(daemon.pid(), libc::SIGTERM);
        daemon.wait_for("\"kind\":\"stop\"");
        assert!(daemon.end_now().success());
        let records = read_records(&daemon.path("out")).len();
        let messages = fs::read_to_string(messages).expect("messages");
        let count = |before: &str, behind: &str| -> usize {
            let rests = messages.lines().filter_map(|line| line.split_once(before));
            rests.filter_map(|(_, rest)| rest.split_once(behind)?.0.parse::<usize>().ok()).sum()
        };
        // The collector may have the records that were sent and not answered.
        let doubtful = count("no answer came before the end: ", " records are in doubt");
        let lost = count("; lost ", " (sink)");
        assert!(doubtful > 0 && doubtful + lost == records, "{records}: {messages}");
        let mut spool = Spool::open(&daemon.path("spool/spooled"), 1 << 30, false).expect("spool");
        let mut spooled = 0;
        while !spool.is_empty() {
            let read = spool.read(1).expect("read");
            assert_eq!(read.missing, 0);
            spooled += read.batch.len();
            spool.delivered();
        }
        assert_eq!(spooled, records, "{messages}");
    });
}

/// The records of a file so far.
fn read_records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(json).collect()
}

fn degraded(record: &Value) -> String {
    record["degraded"].to_string()
}

fn full_run() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        // The daemon runs in a mount namespace in which /run/sockstate cannot be written to.
        let script = "mkdir -p /run/sockstate && mount -t tmpfs -o size=4k,mode=0700 tmpfs /run/sockstate \
                      && ! head -c 8192 /dev/zero 2>/dev/null >/run/sockstate/full; exec \"$0\" run --config \"$1\"";
        let binary = sockstate().get_program().to_owned();
        let mut unshare = Command::new("unshare");
        let unshare = unshare.args(["--mount", "sh", "-c", script]).arg(binary).arg(files.config());
        let mut daemon = unshare.stderr(Stdio::null()).spawn().expect("unshare");
        wait_until("it traces", || {
            daemon.try_wait().expect("wait").is_some()
                || files.records().iter().any(|record| record["kind"] == "start")
        });
        let start = files.records().into_iter().next().expect("a record");
        assert!(degraded(&start).contains("/run/sockstate"), "{start}");
        files.connection(port);
        end(daemon);
        assert!(!files.pin.exists());
    });
}

fn lost_ledger() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        let first = files.start(1);
        files.connection(port);
        end(first);
        let ledgers = state_files(&files.pin, ".ledger");
        assert_eq!(ledgers.len(), 1, "{ledgers:?}");
        fs::remove_file(&ledgers[0]).expect("remove");
        end(files.start(2));
        let records = files.records();
        let starts: Vec<&Value> = records.iter().filter(|record| record["kind"] == "start").collect();
        assert_ne!(starts[0]["instance"], starts[1]["instance"]);
        assert!(degraded(starts[1]).contains("replaced"), "{}", starts[1]);
        let mut numbers: Vec<String> =
            records.iter().map(|record| format!("{} {}", record["instance"], record["seq"])).collect();
        numbers.sort_unstable();
        let all = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), all, "no number twice");
    });
}

fn state_of_pins() {
    in_lab(|netns| {
        let [port, other] = [fresh_port(), fresh_port()];
        let Some(files) = DaemonFiles::new(port) else { return };
        files.configure(netns, port, "");
        end(files.start(1));
        files.configure(netns, other, "");
        // The daemon is killed before it has written its state.
        kill(files.start(2));
        files.configure(netns, port, "");
        let third = files.start(3);
        files.connection(port);
        end(third);
        let records = files.records();
        let starts: Vec<&Value> = records.iter().filter(|record| record["kind"] == "start").collect();
        assert!(degraded(starts[2]).contains("replaced"), "{}", starts[2]);
        // Two directories with the same name have separate states.
        let root = Path::new("/sys/fs/bpf");
        let pins: Vec<PathBuf> = ["a", "b"]
            .map(|name| root.join(format!("sockstate-twins-{}-{name}", std::process::id())).join("same"))
            .into();
        let directory = tempfile::tempdir().expect("directory");
        let mut daemons = Vec::new();
        for (at, pin) in pins.iter().enumerate() {
            let config = directory.path().join(format!("{at}.toml"));
            let out = directory.path().join(format!("{at}.json"));
            let text = format!(
                "pin = \"{}\"\n[filter]\nport = {port}\nnetns = {netns}\n[kernel]\nalongside = true\n\
                 [sinks.file]\ntype = \"file\"\npath = \"{}\"\n",
                pin.display(),
                out.display()
            );
            fs::write(&config, text).expect("config");
            let child = sockstate().args(["run", "--config"]).arg(&config).stderr(Stdio::null()).spawn();
            daemons.push((child.expect("sockstate"), out));
        }
        for (_, out) in &daemons {
            wait_until("both trace", || !read_records(out).is_empty());
        }
        connections(1, port);
        for (daemon, out) in daemons {
            wait_until("both see it", || read_records(&out).iter().any(|record| record["to"] == "TIME_WAIT"));
            end(daemon);
        }
        for pin in &pins {
            let detach = sockstate().args(["detach", "--pin"]).arg(pin).stdout(Stdio::null()).status();
            assert!(detach.expect("sockstate").success());
            let _ = fs::remove_dir(pin.parent().expect("parent"));
        }
    });
}
