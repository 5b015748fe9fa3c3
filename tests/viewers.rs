//! Output for people that needs no privileges: explanations, and everything that is made from a recording.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use proptest::prelude::*;
use sockstate::{
    format::{Format, FormatName, Json},
    story::Story,
    wire::{Parser, ReadError},
};
use testkit::golden;

const RECORDING: &str = "fixtures/recordings/sockstate-1.ndjson";
/// Recorded with `--records connections`.
const CONNECTIONS: &str = "fixtures/recordings/connections-1.ndjson";

fn sockstate(args: &[&str]) -> Output {
    let mut sockstate = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    sockstate.env("TZ", "UTC").env("LC_ALL", "C").env_remove("NO_COLOR");
    sockstate.args(args).current_dir(golden::file("")).output().expect("sockstate")
}

/// The standard output of a command.
fn said(args: &[&str]) -> String {
    let output = sockstate(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{args:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn recording() -> String {
    fs::read_to_string(golden::file(RECORDING)).expect("recording")
}

#[test]
fn outputs_are_as_they_were_looked_at() {
    for (name, args) in [
        ("explain.txt", &["explain"][..]),
        ("explain-walks.txt", &["explain", "--open", "--close", "--simultaneous-close", "--reset"]),
        ("explain-walks-uk.txt", &["explain", "--lang", "uk", "--close"]),
        ("explain-step.txt", &["explain", "fin-wait-2", "0x06"]),
        ("explain-illegal.txt", &["explain", "TIME_WAIT", "ESTABLISHED"]),
        // The other states have settings of this kernel.
        ("explain-close.txt", &["explain", "CLOSE"]),
        ("explain-close-uk.txt", &["explain", "CLOSE", "--lang", "uk"]),
        ("explain-reset.txt", &["explain", "CLOSE_WAIT", "CLOSE"]),
        ("explain-group.txt", &["explain", "connected"]),
        ("explain-group-uk.txt", &["explain", "Bucket", "--lang", "uk"]),
        ("diagram.txt", &["diagram"]),
        ("diagram.svg", &["diagram", "--format", "svg"]),
        ("diagram.mmd", &["diagram", "--format", "mermaid"]),
        ("diagram.dot", &["diagram", "--format", "dot"]),
        ("diagram-weighed.txt", &["diagram", "--from", RECORDING]),
        ("diagram-weighed.svg", &["diagram", "--from", RECORDING, "--format", "svg"]),
        ("diagram-weighed.mmd", &["diagram", "--from", RECORDING, "--format", "mermaid"]),
        ("diagram-weighed.dot", &["diagram", "--from", RECORDING, "--format", "dot"]),
        ("timeline.txt", &["timeline", RECORDING]),
        ("timeline-coloured.txt", &["timeline", RECORDING, "--color", "always", "--most", "4"]),
        ("timeline.svg", &["timeline", RECORDING, "--format", "svg"]),
        ("timeline.html", &["timeline", RECORDING, "--format", "html"]),
        ("report.html", &["report", RECORDING]),
        ("report-connections.html", &["report", CONNECTIONS]),
        ("timeline-connections.txt", &["timeline", CONNECTIONS, "--conn", "dd3278000000001f"]),
        (
            "timeline-connections.svg",
            &["timeline", CONNECTIONS, "--conn", "dd3278000000001f", "--format", "svg"],
        ),
        ("replay.txt", &["replay", RECORDING, "--format", "table"]),
        ("replay.csv", &["replay", RECORDING, "--format", "csv"]),
        ("stuck.txt", &["stuck", "--from", RECORDING, "--format", "table"]),
        ("stuck-groups.txt", &["stuck", "--from", RECORDING, "--format", "table", "--group-by", "process"]),
    ] {
        golden::check(name, &said(args));
    }
}

/// The sums of the records, from their text, are those of the report.
#[test]
fn a_report_of_connections_has_their_sums() {
    let text = fs::read_to_string(golden::file(CONNECTIONS)).expect("recording");
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let ends: Vec<_> = records.filter(|record| record["kind"] == "connection").collect();
    let page = said(&["report", CONNECTIONS]);
    let section = |title: &str| {
        let rest = page.split(&format!("<h2>{title}</h2>")).nth(1).unwrap_or_else(|| panic!("no {title}"));
        rest.split("</section>").next().expect("its end").to_owned()
    };
    let redis = ends.iter().filter(|end| end["remote"]["port"] == 6379);
    let sum = |pointer: &str| -> u64 {
        redis.clone().filter_map(|end| end.pointer(pointer).and_then(serde_json::Value::as_u64)).sum()
    };
    let row = |title: &str| {
        let section = section(title);
        let row = section.lines().find(|line| line.contains("connects to 127.0.0.1:6379"));
        row.unwrap_or_else(|| panic!("no row in {title}: {section}")).to_owned()
    };
    let (bytes, again, handshakes) = (row("Bytes"), row("Retransmits"), row("Handshakes"));
    let (sent, received) = (sum("/bytes/sent"), sum("/bytes/received"));
    assert_eq!(sent, 3_100, "what the clients sent");
    for count in [redis.clone().count() as u64, sent, received] {
        assert!(bytes.contains(&format!(" data-v=\"{count}\"")), "{count}: {bytes}");
    }
    assert!(sum("/retransmits") >= 2, "both sides lost something");
    for count in [sum("/segments/sent"), sum("/retransmits")] {
        assert!(again.contains(&format!(" data-v=\"{count}\"")), "{count}: {again}");
    }
    let longest = redis.clone().filter_map(|end| end["handshake_ns"].as_u64()).max().expect("a handshake");
    assert!(handshakes.contains(&format!(" data-v=\"{longest}\"")), "{longest}: {handshakes}");
    assert!(
        section("Handshakes").contains("as the server") && section("Handshakes").matches("<svg").count() == 2
    );
    // Services without a retransmit are left out, and a recording without counters has no such tables.
    assert!(section("Bytes").contains(":8080") && !section("Retransmits").contains(":8080"));
    let without = said(&["report", RECORDING]);
    assert!(!without.contains("<h2>Bytes</h2>") && !without.contains("<h2>Retransmits</h2>"));
    assert!(without.contains("<h2>Handshakes</h2>"), "transitions have the times of handshakes");
}

/// A sink converts the lines of a recording in the same way as `replay`.
#[test]
fn a_recording_is_replayed_in_the_formats_of_collectors() {
    for name in ["ecs", "otlp"] {
        let format = FormatName::ALL.iter().find(|format| format.name == name).expect("a format");
        let mut convert = format.converter().expect("a format that is made from lines");
        let mut expected = Vec::new();
        recording().lines().for_each(|line| convert(line.as_bytes(), &mut expected));
        assert_eq!(said(&["replay", RECORDING, "--format", name]).as_bytes(), expected, "{name}");
    }
    // The host is that of the recording, and so is known only from its first record on.
    let messages = said(&["replay", RECORDING, "--format", "syslog", "--to", "CLOSE_WAIT"]);
    assert!(messages.contains(" web1 sockstate - transition ["), "{messages}");
    for message in messages.lines() {
        assert!(message.starts_with('<') && message.contains(">1 2026-11-24T"), "{message}");
        assert!(message.contains("Z web1 sockstate - "), "{message}");
    }
}

/// The ids of a stuck connection and of another one in the recording.
#[test]
fn one_connection_is_told_step_by_step() {
    let mut story = Story::default();
    let mut parser = Parser::default();
    for line in recording().lines() {
        if let Some(record) = parser.parse(line.as_bytes()).expect("record") {
            story.record(&record);
        }
    }
    let life = story.in_order().into_iter().find(|life| life.is_stuck).expect("a stuck one");
    let conn = life.conn.to_string();
    golden::check("timeline-one.txt", &said(&["timeline", RECORDING, "--conn", &conn]));
    golden::check("diagram-one.txt", &said(&["diagram", "--from", RECORDING, "--conn", &conn]));
    golden::check(
        "diagram-one.svg",
        &said(&["diagram", "--from", RECORDING, "--conn", &conn, "--format", "svg"]),
    );
    let unknown = sockstate(&["timeline", RECORDING, "--conn", "12"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no connection 12"));
}

#[test]
fn every_state_says_all_of_it_in_every_language() {
    for lang in ["en", "uk"] {
        for number in 1..=13 {
            let text = said(&["explain", &number.to_string(), "--lang", lang]);
            // A key where there are no words would stand for itself.
            let is_key = |word: &str| {
                ["states.", "labels.", "timers.", "edges.", "ends.", "turns."]
                    .iter()
                    .any(|prefix| word.starts_with(prefix))
            };
            let no_key = !text.split_whitespace().any(is_key);
            assert!(text.lines().count() > 15 && no_key, "{lang} {number}: {text}");
        }
    }
    // The values of the settings are those of this kernel.
    let retries = fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_retries").expect("sysctl");
    let text = said(&["explain", "SYN_SENT"]);
    let line = text.lines().find(|line| line.contains("net.ipv4.tcp_syn_retries")).expect("a timer");
    assert!(line.contains(&format!("here {}:", retries.trim())), "{line}");
}

#[test]
fn the_locale_chooses_the_language() {
    for (variables, word) in [
        (&[("LANG", "uk_UA.UTF-8")][..], "слухача"),
        (&[("LANG", "uk_UA.UTF-8"), ("LC_ALL", "C")], "accept queue"),
        (&[("LC_ALL", ""), ("LC_MESSAGES", "uk"), ("LANG", "de_DE")], "слухача"),
        (&[("LANG", "de_DE.UTF-8")], "accept queue"),
    ] {
        let mut sockstate = Command::new(env!("CARGO_BIN_EXE_sockstate"));
        sockstate
            .env_remove("LC_ALL")
            .env_remove("LC_MESSAGES")
            .env_remove("LANG")
            .args(["explain", "LISTEN"]);
        let output = sockstate.envs(variables.iter().copied()).output().expect("sockstate");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(word), "{variables:?}: {text}");
    }
}

#[test]
fn words_that_are_no_state_are_refused_with_what_they_may_be() {
    for (word, near) in
        [("CLOSE_WIAT", "CLOSE_WAIT"), ("timewaits", "TIME_WAIT"), ("nonsense", "sockstate explain")]
    {
        let output = sockstate(&["explain", word]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(near), "{error}");
    }
}

/// A `stuck` record with all findings of a look.
#[test]
fn what_a_look_has_found_is_read_as_it_was_written() {
    let recording = recording();
    let line = recording.lines().find(|line| line.contains("\"kind\":\"stuck\"")).expect("a stuck record");
    let mut before: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let listener = |pid: u32| {
        let holders = serde_json::json!([{"pid": pid, "comm": "server"}]);
        serde_json::json!({"queued": pid, "limit": 8, "full": pid > 8, "holders": holders})
    };
    before["listeners"] = serde_json::json!([listener(7), listener(9)]);
    before["cannot_destroy"] = "it closes when server (7) closes it or ends".into();
    before["mptcp"] = serde_json::json!({"token": "50c68405", "subflow": true});
    let record =
        Parser::default().parse(before.to_string().as_bytes()).expect("record").expect("a known kind");
    let mut bytes = Vec::new();
    Json::default().record(before["seq"].as_u64().expect("seq"), &record, &mut bytes);
    let after: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    for key in ["listeners", "cannot_destroy", "mptcp", "reason", "why", "advice", "commands"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    // Two processes listen on the port, so the creator is not known.
    assert!(after["creator"].is_null(), "{after}");
}

/// Writing the records that were read gives the same lines.
#[test]
fn records_are_read_as_they_were_written() {
    let mut parser = Parser::default();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for line in recording().lines() {
        let before: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let seq = before["seq"].as_u64().expect("seq");
        let mut bytes = Vec::new();
        let record = parser.parse(line.as_bytes()).expect("record").expect("a known kind");
        Json::default().record(seq, &record, &mut bytes);
        let mut after: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let kind = before["kind"].as_str().expect("kind").to_owned();
        if kind == "stuck" {
            // Keys that only a look has, and that a recording does not need.
            for key in ["timer", "creator"] {
                after[key] = before[key].clone();
            }
        }
        assert_eq!(before, after);
        *kinds.entry(kind).or_default() += 1;
    }
    for kind in ["start", "snapshot", "transition", "stuck", "resolved", "stop"] {
        assert!(kinds.contains_key(kind), "{kind} is not in {kinds:?}");
    }
}

#[test]
fn what_is_newer_or_no_record_is_said_with_its_line() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("r");
    let name = path.display().to_string();
    let first = recording().lines().next().expect("a line").to_owned();
    for (second, words) in [
        (
            "{\"schema\":\"sockstate/2\",\"kind\":\"start\",\"time\":\"2026-01-01T00:00:00Z\"}\n",
            "written by a newer sockstate (sockstate/2)",
        ),
        ("no JSON\n", "not a record of sockstate"),
        (
            "{\"schema\":\"sockstate/1\",\"kind\":\"transition\",\"time\":\"2026-01-01T00:00:00Z\"}\n",
            "a required key of the transition is missing or has an unknown value",
        ),
    ] {
        fs::write(&path, format!("{first}\n{second}")).expect("write");
        for command in [
            &["replay", &name][..],
            &["report", &name],
            &["timeline", &name],
            &["diagram", "--from", &name],
            &["stuck", "--from", &name],
        ] {
            let output = sockstate(command);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{command:?}: {error}");
            assert!(error.contains("line 2") && error.contains(words), "{command:?}: {error}");
        }
    }
    // A kind of a later version is passed over, and handed on.
    let later =
        "{\"schema\":\"sockstate/1\",\"kind\":\"weather\",\"time\":\"2026-01-01T00:00:00Z\",\"rain\":true}\n";
    assert_eq!(Parser::default().parse(later.as_bytes()), Ok(None));
    assert!(matches!(Parser::default().parse(b"[]"), Err(ReadError::NoRecord(_))));
    let missing = sockstate(&["report", "/no/such/file"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read /no/such/file"));
}

/// A recording whose writer was killed ends where it was cut, in a line or in a frame of zstd.
#[test]
fn a_cut_recording_is_read_to_its_cut() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("cut");
    let name = path.display().to_string();
    let whole = recording();
    let lines = whole.lines().count();
    let cut = &whole.as_bytes()[..whole.len() - 20];
    fs::write(&path, cut).expect("write");
    assert_eq!(said(&["replay", &name]).lines().count(), lines - 1);
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("zstd");
    for part in whole.as_bytes().chunks(whole.len() / 3) {
        encoder.write_all(part).and_then(|()| encoder.flush()).expect("compress");
    }
    let compressed = encoder.finish().expect("compress");
    fs::write(&path, &compressed).expect("write");
    assert_eq!(said(&["replay", &name]), whole);
    fs::write(&path, &compressed[..compressed.len() * 2 / 3]).expect("write");
    let part = said(&["replay", &name]);
    assert!(whole.starts_with(&part) && part.lines().count() > lines / 4, "{} lines", part.lines().count());
}

#[test]
fn a_replay_filters_as_a_trace_does() {
    let all = said(&["replay", RECORDING]);
    assert_eq!(all, recording());
    let records = |args: &[&str]| -> Vec<serde_json::Value> {
        let text = said(&[&["replay", RECORDING], args].concat());
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let transitions = |args: &[&str]| {
        let mut found = records(args);
        found.retain(|record| record["kind"] == "transition");
        found
    };
    let to = transitions(&["--to", "CLOSE_WAIT"]);
    assert!(to.len() >= 4 && to.iter().all(|record| record["to"] == "CLOSE_WAIT"), "{}", to.len());
    // A connect's first transition has no local port yet, and is not left out.
    let client = transitions(&["-6", "--remote-port", "8082"]);
    assert_eq!(client[0]["to"], "SYN_SENT");
    let port = client[1]["local"]["port"].as_u64().expect("port").to_string();
    let by_port = transitions(&["--local-port", &port]);
    assert_eq!(by_port, client);
    assert!(transitions(&["--comm", "nobody"]).is_empty());
}

#[test]
fn a_replay_takes_its_time() {
    let begin = std::time::Instant::now();
    let text = said(&["replay", RECORDING, "--speed", "10x"]);
    assert_eq!(text, recording());
    let took = begin.elapsed().as_secs_f64();
    assert!((0.3..5.0).contains(&took), "{took}");
}

#[test]
fn standard_input_is_a_recording() {
    let mut sockstate = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    let mut child = sockstate
        .args(["diagram", "--from", "-", "--format", "mermaid"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sockstate");
    child.stdin.take().expect("stdin").write_all(recording().as_bytes()).expect("write");
    let output = child.wait_with_output().expect("output");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        said(&["diagram", "--from", RECORDING, "--format", "mermaid"])
    );
}

proptest! {
    /// Whatever a line holds: an answer, and no panic.
    #[test]
    fn no_line_is_too_strange(line in "\\PC*") {
        let _ = Parser::default().parse(line.as_bytes());
    }

    /// The same for records with something missing or in another's place.
    #[test]
    fn no_record_is_too_strange(at in 0_usize..80, key in 0_usize..30, value in "null|-1|\"x\"|\\[\\]|\\{\\}|1e99|true") {
        let text = recording();
        let lines: Vec<&str> = text.lines().collect();
        let mut record: serde_json::Value = serde_json::from_str(lines[at % lines.len()]).expect("JSON");
        let map = record.as_object_mut().expect("object");
        let name = map.keys().nth(key % map.len()).expect("key").clone();
        map.insert(name, serde_json::from_str(&value).expect("JSON"));
        let _ = Parser::default().parse(record.to_string().as_bytes());
    }
}
