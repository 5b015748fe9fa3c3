//! Files that commit 2ca3231 has written (`tests/fixtures/2ca3231`) are read as what they were.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use sockstate::{
    model::{Record, Snapshot},
    restart::{Ledger, ResumePoint, SavedState},
    sinks::Spool,
    source::Recording,
    track::{Table, Visibility},
    wire::Parser,
};

use crate::Names;

/// The instance of the daemon that wrote the files.
const INSTANCE: u32 = 164_452;

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/2ca3231")).join(name)
}

#[test]
fn a_ledger_has_the_progress_of_each_sink() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger");
    fs::copy(fixture("ledger"), &path).expect("copy");
    let ledger = Arc::new(Ledger::open(&path, &directory.path().join("settled")).expect("ledger"));
    assert_eq!(ledger.last_id(), u64::from(INSTANCE) << 40 | 28);
    assert_eq!((ledger.waiting(), ledger.instance()), (0, 0));
    let resume = |name: &str| ledger.sink(name).expect("a place").resume(INSTANCE, 0);
    let point = |seq, unsettled| ResumePoint { seq, unsettled, in_doubt: 0 };
    assert_eq!(resume("file"), point(135, 0));
    assert_eq!(resume("away"), point(135, 135));
    assert_eq!(resume("spooled"), point(136, 1));
    assert_eq!(resume("another"), point(0, 0));
    let upgraded = ledger.sink("away").expect("a place").resume(INSTANCE + 1, 0);
    assert_eq!(upgraded, point(0, 135), "another instance reports what is lost, and begins with 1");
}

#[test]
fn a_saved_table_has_its_connections() {
    let bytes = fs::read(fixture("state.json")).expect("state");
    let state: SavedState = serde_json::from_slice(&bytes).expect("state");
    assert_eq!((state.instance, state.is_complete), (INSTANCE, false));
    let mut table = Table::new(1, 0, Visibility::default());
    table.restore(&state.table, 0, true, &mut Names::default());
    assert_eq!(table.last_id(), u64::from(INSTANCE) << 40 | 28);
    let mut counts = BTreeMap::new();
    for Snapshot { conn, state, .. } in table.snapshot() {
        let owner = conn.subject.owner.as_ref().map(|owner| (owner.comm.clone(), owner.source.name()));
        let (comm, source) = owner.expect("an owner");
        assert_eq!((comm.as_str(), conn.id.0 >> 40), ("python3", u64::from(INSTANCE)));
        *counts.entry((state.name(), conn.role.expect("a role").name(), source)).or_insert(0) += 1;
    }
    let expected = [
        (("CLOSE_WAIT", "server", "inherited"), 1),
        (("ESTABLISHED", "client", "connect"), 2),
        (("ESTABLISHED", "server", "inherited"), 2),
        (("FIN_WAIT2", "client", "connect"), 1),
        (("LISTEN", "listener", "listen"), 2),
        (("TIME_WAIT", "client", "connect"), 10),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
    // Saved again it says the same, but for fields that are new since.
    let saved = serde_json::to_value(table.save()).expect("JSON");
    let mut before: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    for conn in before["table"]["conns"].as_array_mut().expect("connections") {
        conn["interface"] = 0.into();
        conn["remind_ns"] = 0.into();
    }
    assert_eq!(saved["conns"], before["table"]["conns"]);
}

#[test]
fn a_spool_has_all_of_its_records() {
    let directory = tempfile::tempdir().expect("directory");
    let name = "0000000100000000.spool";
    fs::copy(fixture("spool").join(name), directory.path().join(name)).expect("copy");
    let mut spool = Spool::open(directory.path(), 1 << 20, false).expect("spool");
    let read = spool.read(1 << 20).expect("entries");
    assert_eq!(read.missing, 0);
    let lines = std::str::from_utf8(&read.batch.bytes).expect("text").lines();
    let records: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let seqs: Vec<u64> = records.iter().map(|record| record["seq"].as_u64().expect("seq")).collect();
    assert_eq!(seqs, read.batch.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>());
    let reported: u64 = read.batch.frames.iter().map(|frame| frame.reported_lost).sum();
    let lost = records.iter().filter(|record| record["kind"] == "lost");
    assert_eq!(reported, lost.map(|record| record["count"].as_u64().expect("count")).sum::<u64>());
    // With the last one that was still in memory, this is what the ledger says.
    assert_eq!(records.len() as u64 + reported, 135);
}

#[test]
fn a_recording_has_all_of_its_records() {
    let mut recording = Recording::open(&fixture("recording.ndjson.zst")).expect("recording");
    let (mut parser, mut line, mut records) = (Parser::default(), Vec::new(), Vec::new());
    while recording.next(&mut line).expect("a line") {
        records.extend(parser.parse(&line).expect("a record"));
        line.clear();
    }
    assert_eq!(records.len(), 136);
    assert!(matches!(records.first(), Some(Record::Start(start)) if start.tier == "timers"));
    assert!(matches!(records.last(), Some(Record::Stop(_))));
    let transitions = records.iter().filter(|record| matches!(record, Record::Transition(_)));
    assert_eq!(transitions.count(), 134);
}
