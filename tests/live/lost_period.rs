//! A `lost` record says in which period records were lost.

use std::{fs, process::Stdio};

use serde_json::Value;

use crate::{
    Test,
    collectors::{collect, json},
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{Tracer, in_lab, signal, wait_until},
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("lost period: a sink's losses lie in the interval of its lost records", of_a_sink),
        test("lost period: the ring's losses lie in the interval of its lost records", of_the_ring),
    ]
}

/// The time of a record as text. Texts of RFC 3339 with equal length sort by time.
fn time(record: &Value, key: &str) -> String {
    record[key].as_str().unwrap_or_default().to_owned()
}

fn of_a_sink() {
    in_lab(|netns| {
        let [dead, port] = [fresh_port(), fresh_port()];
        // The filter keeps the sink's own connections out of the streams.
        let sinks = format!(
            "{FILE}[sinks.small]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{dead}\"\nretry = \"100ms\"\nqueue = \"64K\"\n"
        );
        let mut daemon = Raw::start_in("", &format!("netns = {netns}\nport = {port}"), &sinks, |command| {
            command.stderr(Stdio::null());
        });
        daemon.wait_for("\"kind\":\"start\"");
        connections(300, port);
        let ended = |line: &str| line.contains("\"from\":\"LISTEN\"") && line.contains("\"to\":\"CLOSE\"");
        let path = daemon.path("out");
        let so_far = || fs::read_to_string(&path).expect("records");
        wait_until("all have happened", || so_far().lines().any(ended));
        let (_, lines) = collect(("127.0.0.1", dead));
        wait_until("the loss is reported", || {
            lines.lock().expect("lock").iter().any(|record| record["kind"] == "lost")
        });
        assert!(daemon.end_now().success());
        let found = lines.lock().expect("lock").clone();
        let seen: Vec<&Value> = found.iter().map(|record| &record["time"]).collect();
        let missing: Vec<String> = so_far()
            .lines()
            .filter_map(json)
            .filter(|record| record["kind"] == "transition" && !seen.contains(&&record["time"]))
            .map(|line| time(&line, "time"))
            .collect();
        assert!(!missing.is_empty());
        let intervals: Vec<(String, String)> = found
            .iter()
            .filter(|record| record["kind"] == "lost")
            .map(|record| (time(record, "since"), time(record, "time")))
            .collect();
        for at in &missing {
            assert!(intervals.iter().any(|(since, until)| since <= at && at <= until), "{at}: {intervals:?}");
        }
        // The period is not longer than necessary.
        let first = missing.iter().min().expect("one");
        assert_eq!(intervals.iter().map(|(since, _)| since).min(), Some(first));
    });
}

fn of_the_ring() {
    in_lab(|netns| {
        let port = fresh_port();
        let mut tracer = Tracer::start(netns, &["--ring-size", "4K", "--port", &port.to_string()]);
        connections(1, port);
        let last = tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        signal(tracer.pid(), libc::SIGSTOP);
        connections(200, port);
        signal(tracer.pid(), libc::SIGCONT);
        let lost = tracer.wait_for(|record| record["kind"] == "lost" && record["place"] == "ring");
        let start = tracer.first();
        let begin = time(&lost, "since");
        assert!(begin >= time(&start, "time"), "{lost}");
        let story = tracer.stop();
        // Records are missing between these two records, and none before them: the ring had been read to its end.
        let next =
            story.transitions().map(|record| time(record, "time")).find(|at| *at > time(&last, "time"));
        let next = next.expect("the ring held some");
        assert!(begin <= next && next <= time(&lost, "time"), "{begin} {next} {lost}");
    });
}
