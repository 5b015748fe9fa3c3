//! The counts of a spool with missing segments, with names that are in use, and with more records than one segment
//! holds.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sockstate::sinks::{Batch, Frame, SinkSettings, Spool};

use super::{fill, read_all, segments};
use crate::{
    all,
    collector::{Feeder, batch, listen, spooled, tcp},
};

fn count_of(segment: &Path) -> PathBuf {
    segment.with_extension("count")
}

#[test]
fn segments_that_are_gone_are_counted_wherever_they_were() {
    let (first, last, all_of_them) = (0..1, usize::MAX..usize::MAX, 0..usize::MAX);
    for (name, gone) in [("first", first), ("last", last), ("first two", 0..2), ("all", all_of_them)] {
        let directory = tempfile::tempdir().expect("directory");
        let pushed = fill(directory.path());
        let mut found = segments(directory.path());
        assert!(found.len() >= 4, "{found:?}");
        let end = gone.end.min(found.len());
        for segment in found.drain(gone.start.min(end - 1)..end) {
            fs::remove_file(segment).expect("remove");
        }
        // Killed before anything behind them is delivered, the next process does not count them again.
        let mut first = Spool::open(directory.path(), 1 << 30, false).expect("spool");
        assert!(!first.is_empty(), "{name}");
        let reported = first.read(1).expect("read").missing;
        drop(first);
        let (seqs, missing) = read_all(directory.path());
        assert!((seqs.len() as u64) < pushed, "{name}");
        assert_eq!(seqs.len() as u64 + reported + missing, pushed, "{name}");
        assert_eq!(read_all(directory.path()), (Vec::new(), 0), "{name}: all of it is settled");
    }
}

#[test]
fn of_a_segment_that_is_gone_what_was_delivered_is_not_counted() {
    let directory = tempfile::tempdir().expect("directory");
    let pushed = fill(directory.path());
    let mut first = Spool::open(directory.path(), 1 << 30, false).expect("spool");
    for _ in 0..3 {
        assert_eq!(first.read(1).expect("read").batch.len(), 10);
        first.delivered();
    }
    drop(first);
    fs::remove_file(&segments(directory.path())[0]).expect("remove");
    let (seqs, missing) = read_all(directory.path());
    assert!(missing > 0);
    assert_eq!(30 + seqs.len() as u64 + missing, pushed);
}

#[test]
fn a_kill_while_a_segment_is_removed_counts_nothing_twice() {
    let directory = tempfile::tempdir().expect("directory");
    let pushed = fill(directory.path());
    // The count goes first.
    fs::remove_file(count_of(&segments(directory.path())[0])).expect("remove");
    let (seqs, missing) = read_all(directory.path());
    assert_eq!((seqs.len() as u64, missing), (pushed, 0));
    let left: Vec<_> = fs::read_dir(directory.path()).expect("directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_foreign_file_with_the_name_of_a_count_stays_as_it_is() {
    let directory = tempfile::tempdir().expect("directory");
    let (spool_path, foreign) = (directory.path().join("spool"), directory.path().join("foreign"));
    fs::create_dir(&spool_path).expect("directory");
    let precious = "precious, and longer than a count";
    fs::write(&foreign, precious).expect("file");
    let own = ["0000000100000000.count", "0000000100000002.count"].map(|name| spool_path.join(name));
    fs::hard_link(&foreign, &own[0]).expect("link");
    fs::write(&own[1], precious).expect("file");
    let front = spool_path.join("00000000ffffffff.count");
    fs::write(&front, precious).expect("file");
    let mut spool = Spool::open(&spool_path, 200_000, true).expect("spool");
    let mut pushed = 1;
    while spool.append(&batch(pushed + 1, 10)).is_ok() {
        pushed += 10;
    }
    spool.push_front(&batch(1, 1)).expect("in front");
    drop(spool);
    assert!(segments(&spool_path).len() >= 4);
    assert_eq!(read_all(&spool_path), (all(pushed), 0));
    for path in own.iter().chain([&front, &foreign]) {
        assert_eq!(fs::read_to_string(path).expect("file"), precious, "{}", path.display());
    }
    assert_eq!(fs::metadata(&foreign).expect("file").nlink(), 2);
}

#[test]
fn pipes_with_the_names_of_a_spools_files_block_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path();
    let pushed = fill(path);
    let counts: Vec<PathBuf> = segments(path).iter().map(|segment| count_of(segment)).collect();
    fs::remove_file(&counts[1]).expect("remove");
    for pipe in [path.join("delivered"), counts[1].clone(), path.join("0000000f00000000.count")] {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_bits_truncate(0o600),
            0,
        )
        .expect("mkfifo");
    }
    assert_eq!(read_all(path), (all(pushed), 0));
}

#[test]
fn what_is_left_of_a_large_queue_is_spooled_in_segments_that_can_be_read() {
    const RECORD: usize = 1 << 20;
    const RECORDS: u64 = 150;
    let directory = tempfile::tempdir().expect("directory");
    let (listener, port) = listen();
    drop(listener);
    let settings = SinkSettings { queue_bytes: 1 << 30, ..spooled(tcp(port), directory.path(), 1 << 30) };
    let feeder = Feeder::start(&settings, None);
    feeder.push_records(RECORDS, RECORD);
    feeder.end(Duration::from_millis(50));
    assert_eq!(feeder.queue.status().lost(), 0);
    let longest = segments(directory.path()).iter().map(|path| fs::metadata(path).expect("file").len()).max();
    // A queue's limit is what its user has chosen; a segment has one of its own, above which it is not read.
    assert!(longest.expect("a segment") < 80 << 20, "{longest:?}");
    let mut spool = Spool::open(directory.path(), 1 << 30, false).expect("spool");
    let mut seqs = Vec::new();
    while !spool.is_empty() {
        let read = spool.read(1).expect("read");
        assert_eq!(read.missing, 0);
        seqs.extend(read.batch.frames.iter().map(|frame| frame.seq));
        spool.delivered();
    }
    assert_eq!(seqs, all(RECORDS));
}

impl Feeder {
    /// Pushes `count` records of `len` bytes, each in a push of its own.
    fn push_records(&self, count: u64, len: usize) {
        for seq in 1..=count {
            let mut bytes = vec![b'x'; len - 1];
            bytes.push(b'\n');
            self.queue.push(Batch {
                bytes,
                frames: vec![Frame { end: len, seq, time_ns: 1, reported_lost: 0, reported_in_doubt: 0 }],
            });
        }
    }
}
