//! Corrections after losses: at the end, the stream agrees with /proc/net/tcp.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Test,
    lab::{Tracer, in_lab},
    load::{Load, Mode},
    observer::{Line, patience, proc_net_tcp},
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("resync: after a loss the stream ends with the truth", after_a_loss),
        test("resync: nothing to correct where nothing was lost", nothing_to_correct),
    ]
}

/// The sockets that exist according to the stream.
pub(crate) fn believed(records: &[Value]) -> Vec<Line> {
    let mut last: BTreeMap<&str, Line> = BTreeMap::new();
    for record in records {
        let state = match record["kind"].as_str() {
            Some("transition") => &record["to"],
            Some("resync" | "snapshot") => &record["state"],
            _ => continue,
        };
        let port = |end: &str| record[end]["port"].as_u64().unwrap_or(0) as u16;
        let line = (port("local"), port("remote"), state.as_str().expect("state").to_owned());
        last.insert(record["conn"].as_str().expect("conn"), line);
    }
    let mut lines: Vec<Line> = last.into_values().filter(|line| line.2 != "CLOSE").collect();
    lines.sort();
    lines
}

fn after_a_loss() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--ring-size", "4K", "--resync", "1s"]);
        let (port, nobody) = (fresh_port(), fresh_port());
        let load = Load { mode: Mode::Fin, threads: 1, count: 2000, acceptors: false, gap_us: 0, port };
        load.run().expect("load");
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        drop(client);
        tracer.wait_for(|record| record["kind"] == "lost");
        tracer.wait_for(|record| record["kind"] == "resync");
        let deadline = Instant::now() + patience();
        loop {
            // A connection of the test's own shows how far the stream has come. If it is lost, a `lost` record counts it.
            let error = Kind::V4.connect(nobody).expect_err("nobody listens");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
            tracer.wait_for(|record| {
                record["kind"] == "lost" || (record["remote"]["port"] == nobody && record["to"] == "CLOSE")
            });
            let (said, shown) = (believed(tracer.seen()), proc_net_tcp());
            if said == shown {
                break;
            }
            let wrong: Vec<_> = said.iter().filter(|line| !shown.contains(line)).take(5).collect();
            let missing: Vec<_> = shown.iter().filter(|line| !said.contains(line)).take(5).collect();
            assert!(Instant::now() < deadline, "wrong {wrong:?}, missing {missing:?}");
        }
        drop((listener, server));
        tracer.stop();
    });
}

fn nothing_to_correct() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &["--resync", "100ms"]);
        let port = fresh_port();
        let load = Load { mode: Mode::Fin, threads: 1, count: 200, acceptors: false, gap_us: 100, port };
        let start = Instant::now();
        // Many readings of the kernel's tables happen while connections begin and end.
        while start.elapsed() < Duration::from_millis(1500) {
            load.run().expect("load");
            let is_end = |record: &Value| record["from"] == "LISTEN" && record["to"] == "CLOSE";
            tracer.wait_for(|record| is_end(record) && record["local"]["port"] == port);
        }
        let story = tracer.stop();
        assert_eq!(story.of("lost").count(), 0);
        let resyncs: Vec<&Value> = story.of("resync").collect();
        assert!(resyncs.is_empty(), "{resyncs:#?}");
    });
}
