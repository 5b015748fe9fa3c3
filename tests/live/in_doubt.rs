//! Records that a collector may have received: acknowledged + in doubt + lost == happened, also if the sink is replaced
//! or has ended.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Test,
    collectors::json,
    configured::ask,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{in_lab, signal, wait_until},
    restart::{DaemonFiles, end},
    schema,
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test(
            "doubt: a successor reports what a replaced sink has in doubt, and the metrics keep the count",
            replaced,
        ),
        test("doubt: the next daemon reports what is in doubt at the end", restarted),
    ]
}

/// A collector that reads requests and answers none. It tells the test of each request.
fn silent() -> (u16, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    let (send, requests) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let send = send.clone();
            thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while stream.read(&mut buffer).is_ok_and(|len| len > 0) {
                    let _ = send.send(());
                }
            });
        }
    });
    (port, requests)
}

fn http(name: &str, port: u16) -> String {
    format!(
        "[sinks.{name}]\ntype = \"http\"\nurl = \"http://127.0.0.1:{port}\"\nbatch-time = \"1ms\"\ntimeout = \"60s\"\n"
    )
}

fn records(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap_or_default().lines().filter_map(json).collect()
}

fn sum(found: &[Value], key: &str) -> u64 {
    let lost = found.iter().filter(|record| record["kind"] == "lost");
    lost.filter_map(|record| record[key].as_u64()).sum()
}

fn replaced() {
    in_lab(|netns| {
        let metrics = fresh_port();
        let (port, requests) = silent();
        let sinks = format!("{FILE}{}", http("out2", port));
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let mut daemon =
            Raw::start_with(&format!("metrics = \"127.0.0.1:{metrics}\"\n"), netns, &sinks, |command| {
                command.stderr(stderr);
            });
        requests.recv_timeout(Duration::from_secs(30)).expect("a request");
        connections(10, fresh_port());
        daemon.wait_for("\"from\":\"LISTEN\",\"to\":\"CLOSE\"");
        let happened = records(&daemon.path("out")).len() as u64;
        daemon.write(&format!("{FILE}[sinks.out2]\ntype = \"file\"\npath = \"DIR/second\"\n"));
        signal(daemon.pid(), libc::SIGHUP);
        let found = || records(&daemon.path("second"));
        wait_until("all is counted", || sum(&found(), "in_doubt") + sum(&found(), "count") >= happened);
        let doubtful = sum(&found(), "in_doubt");
        assert!(doubtful > 0, "{:?}", found());
        assert_eq!(doubtful + sum(&found(), "count"), happened);
        let number = |name: &str| {
            let text = ask(metrics);
            let mut lines = text.lines();
            let value = lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix("{sink=\"out2\"} "))
                .map(str::to_owned);
            value.map(|value| value.parse::<u64>().expect("a number"))
        };
        assert_eq!(number("sockstate_sink_in_doubt_total"), Some(doubtful));
        assert_eq!(number("sockstate_sink_failing"), Some(0));
        // The sink with this name is removed, and its counts stay.
        daemon.write(FILE);
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("the sink has ended", || number("sockstate_sink_failing").is_none());
        assert_eq!(number("sockstate_sink_in_doubt_total"), Some(doubtful));
        assert_eq!(number("sockstate_sink_lost_total"), Some(happened - doubtful));
        assert!(daemon.end_now().success());
        let said = fs::read_to_string(errors.path()).expect("messages");
        assert!(said.contains(&format!("; {doubtful} in doubt")), "{said}");
        records(&daemon.path("second")).iter().for_each(schema::check);
    });
}

fn restarted() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::new(port) else { return };
        let (collector, requests) = silent();
        files.configure(netns, port, &http("silent", collector));
        let first = files.start(1);
        requests.recv_timeout(Duration::from_secs(30)).expect("a request");
        files.connection(port);
        end(first);
        let written = files.records().len() as u64;
        let out = files.config().with_file_name("second");
        let file = format!("[sinks.silent]\ntype = \"file\"\npath = \"{}\"\n", out.display());
        files.configure(netns, port, &file);
        let second = files.start(2);
        wait_until("the loss is reported", || records(&out).iter().any(|record| record["kind"] == "lost"));
        end(second);
        let found = records(&out);
        assert!(sum(&found, "in_doubt") > 0, "{found:?}");
        assert_eq!(sum(&found, "in_doubt") + sum(&found, "count"), written, "{found:?}");
        // The records are reported as lost only once: the third daemon does not report them.
        let third = files.start(3);
        end(third);
        assert_eq!(sum(&records(&out), "in_doubt"), sum(&found, "in_doubt"));
    });
}
