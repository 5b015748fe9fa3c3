//! A trace with `--duration` lasts as long as given, by its own records.

use serde_json::Value;

use crate::{
    Test,
    daemon::connections,
    lab::{Tracer, in_lab, sockstate},
    observer::patience,
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("duration: a trace lasts from its first record on", of_a_trace),
        test("duration: a recording lasts from its first record on, also after a long start", of_a_recording),
    ]
}

const MS: i64 = 1_000_000;

/// The time of the day in nanoseconds. No test lasts a day.
fn time(record: &Value) -> i64 {
    let text = record["time"].as_str().expect("time");
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("number");
    ((number(11..13) * 60 + number(14..16)) * 60 + number(17..19)) * 1_000_000_000 + number(20..29)
}

/// The time between the first and the last record is the duration and what the end takes, and no more.
fn assert_lasts(records: &[Value], duration_ms: i64) {
    let (first, last) = (records.first().expect("a record"), records.last().expect("a record"));
    assert_eq!((&first["kind"], &last["kind"]), (&"start".into(), &"stop".into()));
    assert_eq!(last["reason"], "duration");
    let day = 86_400_000 * MS;
    let lasted = (time(last) - time(first)).rem_euclid(day);
    // Something may adjust the wall clock a little meanwhile.
    assert!(lasted >= (duration_ms - 50) * MS, "{lasted} ns");
    // The tracer lists the existing sockets after the time of the first record, which may take long on a busy machine.
    let most = duration_ms * MS + i64::try_from(patience().as_nanos()).expect("number");
    assert!(lasted <= most, "{lasted} ns");
}

fn of_a_trace() {
    in_lab(|netns| {
        let port = fresh_port();
        let mut tracer = Tracer::start(netns, &["--duration", "700ms"]);
        connections(3, port);
        tracer.wait_for(|record| record["kind"] == "stop");
        assert_lasts(tracer.seen(), 700);
    });
}

fn of_a_recording() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("recording");
        let mut record = sockstate();
        record.args(["record", "--alongside", "--netns", &netns.to_string(), "--duration", "700ms"]);
        let status = record.arg(&path).status().expect("sockstate");
        assert!(status.success());
        let output = sockstate().args(["replay", "--format", "json"]).arg(&path).output().expect("sockstate");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let records: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_lasts(&records, 700);
    });
}
