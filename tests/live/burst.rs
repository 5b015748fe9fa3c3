//! More transitions than the ring can hold: each is delivered, or counted as lost.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Test,
    blind::Blind,
    lab::{in_lab, own_netns, signal, sockstate},
    load::{Load, Mode},
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("burst: a small ring, 400,000 transitions: delivered + lost == happened", small_ring),
        test("burst: two threads with acceptors, small ring, resets", small_ring_two_threads),
        test("burst: the default ring loses nothing at the highest rate", default_ring),
    ]
}

fn load(mode: Mode, threads: u32, count: u32, acceptors: bool) -> Load {
    let port = fresh_port();
    // The port of the second thread.
    fresh_port();
    Load { mode, threads, count, acceptors, gap_us: 0, port }
}

/// What a tracer reported about a load.
struct Outcome {
    happened: u64,
    delivered: u64,
    lost: u64,
    numbered: bool,
}

/// Traces into a file, so that the test does not measure the reader of a pipe.
fn trace(args: &[&str], load: &Load) -> Outcome {
    in_lab(|_| {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("stream.json");
        let mut tracer = sockstate()
            // Without mini-sockets, the number of transitions is known exactly.
            .args(["--alongside", "--format", "json", "--tier", "none", "--netns"])
            .args([&own_netns().to_string(), "--output"])
            .arg(&file)
            .args(args)
            .stderr(Stdio::null())
            .spawn()
            .expect("tracer");
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"start\"")) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let blind = Blind::watch(load.port).expect("ftrace");
        let made = load.run().expect("load");
        let unseen = blind.count().expect("ftrace");
        signal(tracer.id(), libc::SIGTERM);
        assert!(tracer.wait().expect("wait").success());
        let mut outcome = Outcome { happened: made.transitions, delivered: 0, lost: 0, numbered: true };
        let mut stop = None;
        for (at, line) in BufReader::new(std::fs::File::open(&file).expect("file")).lines().enumerate() {
            let record: Value = serde_json::from_str(&line.expect("line")).expect("JSON");
            outcome.numbered &= record["seq"] == at + 1;
            match record["kind"].as_str() {
                Some("transition") => outcome.delivered += 1,
                // Lost evidence is not a lost transition.
                Some("lost") if record["place"] == "evidence" => {}
                Some("lost") => outcome.lost += record["count"].as_u64().expect("count"),
                Some("stop") => stop = Some(record),
                _ => {}
            }
        }
        let stop = stop.expect("the stream ends with a stop");
        let by_place = stop["lost"].as_object().expect("object").iter();
        let counts = by_place.filter(|(place, _)| *place != "evidence").map(|(_, count)| count.as_u64());
        assert_eq!(counts.sum::<Option<u64>>(), Some(outcome.lost));
        assert_eq!(stop["transitions"], outcome.delivered);
        // ftrace has counted the transitions that no BPF program could see. They are missing only on kernels that hide
        // some.
        if outcome.delivered + outcome.lost != outcome.happened {
            outcome.happened -= unseen;
        }
        outcome
    })
}

fn small_ring() {
    let outcome = trace(&["--ring-size", "16K"], &load(Mode::Fin, 1, 40_000, false));
    assert_eq!(outcome.delivered + outcome.lost, outcome.happened);
    assert!(outcome.lost > 0, "else this tests nothing");
    assert!(outcome.numbered);
}

fn small_ring_two_threads() {
    let outcome = trace(&["--ring-size", "64K"], &load(Mode::Rst, 2, 30_000, true));
    assert_eq!(outcome.delivered + outcome.lost, outcome.happened);
    assert!(outcome.numbered);
}

fn default_ring() {
    for mode in [Mode::Fin, Mode::Rst] {
        let outcome = trace(&[], &load(mode, 2, 30_000, true));
        assert_eq!((outcome.delivered, outcome.lost), (outcome.happened, 0), "{mode:?}");
        assert!(outcome.numbered);
    }
    // The highest possible rate: two transitions in each round, and no packet.
    let outcome = trace(&[], &load(Mode::Flap, 1, 50_000, false));
    assert_eq!((outcome.delivered, outcome.lost), (outcome.happened, 0));
}
