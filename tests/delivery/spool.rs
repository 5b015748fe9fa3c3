//! Spools: the records stay in order through restarts and damage.

mod counts;

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::Duration,
};

use sockstate::sinks::{SinkSettings, Spool, SpoolError};

use crate::{
    all,
    collector::{Feeder, Manners, batch, listen, seq, spooled, stream_collector, tcp, wait_until},
};

#[test]
fn a_spool_takes_what_memory_does_not_and_gives_it_back_in_order() {
    let directory = tempfile::tempdir().expect("directory");
    let (listener, port) = listen();
    drop(listener);
    let mut feeder = Feeder::start(&spooled(tcp(port), directory.path(), 1 << 30), None);
    for _ in 0..500 {
        feeder.push(100);
        // The queue is small: the sink's thread must get a turn.
        wait_until("the spool takes it", || feeder.queue.has_room(30_000));
    }
    assert_eq!(feeder.refused, 0);
    feeder.wait_until("much is on disk", |status| status.spooled_bytes() > 8 << 20);
    let taken =
        stream_collector(TcpListener::bind(("127.0.0.1", port)).expect("listen"), vec![Manners::Reads]);
    for _ in 0..50 {
        feeder.push(100);
        wait_until("there is room", || feeder.queue.has_room(30_000));
    }
    feeder.wait_until("all is delivered", |status| status.delivered() == 55_000);
    wait_until("all is read", || taken.len() == 55_000);
    assert_eq!(taken.seqs(), all(55_000));
    feeder.wait_until("the disk is free", |status| status.spooled_bytes() == 0);
    feeder.end(Duration::from_secs(5));
    let left = fs::read_dir(directory.path()).expect("directory").filter(|entry| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "spool"))
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_spool_has_an_end_and_what_is_behind_it_is_counted() {
    let directory = tempfile::tempdir().expect("directory");
    let (listener, port) = listen();
    drop(listener);
    let mut feeder = Feeder::start(&spooled(tcp(port), directory.path(), 4 << 20), None);
    for _ in 0..600 {
        feeder.push(100);
        thread::sleep(Duration::from_micros(200));
    }
    let on_disk: u64 = fs::read_dir(directory.path())
        .expect("directory")
        .map(|entry| entry.expect("entry").metadata().expect("metadata").len())
        .sum();
    assert!(on_disk <= 4 << 20, "{on_disk}");
    let taken =
        stream_collector(TcpListener::bind(("127.0.0.1", port)).expect("listen"), vec![Manners::Reads]);
    feeder.wait_until("all is delivered", |status| status.delivered() + status.lost() == feeder.pushed());
    feeder.end(Duration::from_secs(15));
    let status = feeder.queue.status();
    assert!(status.lost() > 0 && status.lost() == feeder.refused, "{} {}", status.lost(), feeder.refused);
    wait_until("all is read", || taken.len() as u64 + feeder.refused == feeder.pushed());
    let seqs = taken.seqs();
    assert!(seqs.is_sorted_by(|a, b| a < b));
}

#[test]
fn the_next_run_delivers_what_the_last_one_could_not() {
    let directory = tempfile::tempdir().expect("directory");
    let (listener, port) = listen();
    drop(listener);
    let settings = spooled(tcp(port), directory.path(), 1 << 30);
    let convert = || -> Option<sockstate::sinks::Convert> {
        Some(Box::new(|line, out| {
            out.extend_from_slice(b"{\"converted\":true,");
            out.extend_from_slice(&line[1..]);
        }))
    };
    let mut first = Feeder::start(&settings, convert());
    for _ in 0..100 {
        first.push(100);
        wait_until("there is room", || first.queue.has_room(30_000));
    }
    let locked = Spool::open(directory.path(), 1 << 30, false);
    assert!(matches!(locked, Err(SpoolError::Locked { .. })));
    first.end(Duration::from_millis(50));
    assert_eq!((first.refused, first.queue.status().lost()), (0, 0));
    let taken =
        stream_collector(TcpListener::bind(("127.0.0.1", port)).expect("listen"), vec![Manners::Reads]);
    let mut second = Feeder::start(&settings, convert()).after(&first);
    second.push(100);
    second.wait_until("all is delivered", |status| status.delivered() == 10_100);
    wait_until("all is read", || taken.len() == 10_100);
    assert_eq!(taken.seqs(), all(10_100));
    assert!(taken.lines().iter().all(|line| line.matches("converted").count() == 1), "converted once each");
}

/// Reads a spool to its end: numbers, and how many are missing.
fn read_all(path: &Path) -> (Vec<u64>, u64) {
    let mut spool = Spool::open(path, 1 << 30, false).expect("spool");
    let (mut seqs, mut missing) = (Vec::new(), 0);
    while !spool.is_empty() {
        let read = spool.read(1).expect("read");
        missing += read.missing;
        for (bytes, frame) in read.batch.records() {
            let line = std::str::from_utf8(bytes).expect("UTF-8");
            assert_eq!(seq(line.trim_end()), frame.seq);
            seqs.push(frame.seq);
        }
        spool.delivered();
    }
    (seqs, missing)
}

/// A spool with three entries of ten records; its only segment's name and bytes, and where entries end.
fn small_spool(path: &Path) -> (std::path::PathBuf, Vec<u8>, Vec<usize>) {
    let mut spool = Spool::open(path, 1 << 30, true).expect("spool");
    let mut entry_ends = Vec::new();
    for entry in 0..3 {
        spool.append(&batch(entry * 10 + 1, 10)).expect("append");
        entry_ends.push(spool.bytes() as usize);
    }
    let segment = fs::read_dir(path)
        .expect("directory")
        .map(|entry| entry.expect("entry").path())
        .find(|entry| entry.extension().is_some_and(|extension| extension == "spool"))
        .expect("a segment");
    let bytes = fs::read(&segment).expect("segment");
    (segment, bytes, entry_ends)
}

#[test]
fn a_file_that_is_too_long_for_a_segment_is_not_read() {
    let directory = tempfile::tempdir().expect("directory");
    let (segment, ..) = small_spool(directory.path());
    let huge = segment.with_file_name("0000000000000007.spool");
    // A hole takes no room on the disk, and all of the memory.
    File::create(&huge).and_then(|file| file.set_len(2 << 30)).expect("a hole");
    assert_eq!(read_all(directory.path()), ((1..=30).collect(), 0));
    assert!(!huge.exists() && huge.with_extension("spool.unusable").exists());
}

#[test]
fn a_spool_that_is_cut_anywhere_keeps_every_whole_entry() {
    let directory = tempfile::tempdir().expect("directory");
    let (segment, bytes, entry_ends) = small_spool(directory.path());
    let count = segment.with_extension("count");
    let counted = fs::read(&count).expect("count");
    for cut in 0..=bytes.len() {
        fs::write(&segment, &bytes[..cut]).expect("write");
        fs::write(&count, &counted).expect("write");
        let whole = entry_ends.partition_point(|end| *end <= cut) as u64 * 10;
        assert_eq!(read_all(directory.path()), (all(whole), 30 - whole), "cut at {cut}");
    }
}

#[test]
fn a_spool_that_is_damaged_anywhere_loses_one_entry_and_says_so() {
    let directory = tempfile::tempdir().expect("directory");
    let (segment, bytes, entry_ends) = small_spool(directory.path());
    let count = segment.with_extension("count");
    let counted = fs::read(&count).expect("count");
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            fs::write(&segment, &damaged).expect("write");
            fs::write(&count, &counted).expect("write");
            let hit = (at >= 8).then(|| entry_ends.partition_point(|end| *end <= at));
            let expected: Vec<u64> =
                all(30).into_iter().filter(|seq| hit != Some((*seq as usize - 1) / 10)).collect();
            let (seqs, missing) = read_all(directory.path());
            assert_eq!(seqs, expected, "byte {at}");
            assert_eq!(missing, if hit.is_some() { 10 } else { 0 }, "byte {at}");
            if flip != 0x01 {
                continue;
            }
            // Without the count, only the entries around them show missing ones.
            fs::write(&segment, &damaged).expect("write");
            assert_eq!(read_all(directory.path()).1, if hit == Some(1) { 10 } else { 0 }, "byte {at}");
        }
    }
}

type Damage = fn(&mut Vec<u8>);

/// Bytes of a spool of some segments: an eighth of it is one.
const SMALL: u64 = 200_000;

/// Fills a spool; how many records it has then.
fn fill(path: &Path) -> u64 {
    let mut spool = Spool::open(path, SMALL, false).expect("spool");
    let mut pushed = 0;
    while spool.append(&batch(pushed + 1, 10)).is_ok() {
        pushed += 10;
    }
    pushed
}

#[test]
fn every_record_of_a_damaged_spool_is_read_or_counted() {
    let damage: [(&str, Damage); 6] = [
        ("the first entry", |bytes| bytes[8..100].fill(0)),
        ("zeros", |bytes| bytes.fill(0)),
        ("empty", Vec::clear),
        ("half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("zeros at the end", |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
        }),
        ("every 999th byte", |bytes| bytes.iter_mut().step_by(999).for_each(|byte| *byte ^= 0x10)),
    ];
    for (name, damage) in damage {
        for hit in 0..3 {
            let directory = tempfile::tempdir().expect("directory");
            let pushed = fill(directory.path());
            let mut segments: Vec<_> = fs::read_dir(directory.path())
                .expect("directory")
                .map(|entry| entry.expect("entry").path())
                .filter(|path| path.extension().is_some_and(|extension| extension == "spool"))
                .collect();
            segments.sort();
            assert!(segments.len() >= 3, "{segments:?}");
            let mut bytes = fs::read(&segments[hit]).expect("segment");
            damage(&mut bytes);
            fs::write(&segments[hit], bytes).expect("write");
            // The process ends before what was read is delivered: its losses are not counted twice.
            let mut first = Spool::open(directory.path(), SMALL, false).expect("spool");
            let reported = first.read(usize::MAX).expect("read").missing;
            drop(first);
            let (seqs, missing) = read_all(directory.path());
            assert!((seqs.len() as u64) < pushed, "{name}, segment {hit}: nothing was damaged");
            assert_eq!(seqs.len() as u64 + reported + missing, pushed, "{name}, segment {hit}");
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_counted() {
    let directory = tempfile::tempdir().expect("directory");
    let pushed = fill(directory.path());
    fs::remove_file(directory.path().join("0000000100000001.spool")).expect("remove");
    let (seqs, missing) = read_all(directory.path());
    assert!((seqs.len() as u64) < pushed);
    assert_eq!(seqs.len() as u64 + missing, pushed);
}

#[test]
fn a_spool_deletes_and_overwrites_nothing_that_is_not_its_own() {
    let directory = tempfile::tempdir().expect("directory");
    let (spool_path, foreign) = (directory.path().join("spool"), directory.path().join("foreign"));
    fs::create_dir(&spool_path).expect("directory");
    fs::write(&foreign, "precious").expect("file");
    let segment = "0000000100000007.spool";
    for name in ["probe", "delivered", segment, "0000000100000000.count"] {
        std::os::unix::fs::symlink(&foreign, spool_path.join(name)).expect("symlink");
    }
    let own = ["cafe.spool", "FFFFFFFFFFFFFFFF.spool", "notes.txt", "0000000100000009.spool"];
    for name in own {
        fs::write(spool_path.join(name), name).expect("file");
    }
    let mut spool = Spool::open(&spool_path, 1 << 20, true).expect("spool");
    // Links where files of its own should be may be an error, and harm nothing.
    for entry in 0..3 {
        let _ = spool.append(&batch(entry * 10 + 1, 10));
    }
    while !spool.is_empty() {
        spool.read(1).expect("read");
        spool.delivered();
    }
    drop(spool);
    assert_eq!(fs::read_to_string(&foreign).expect("file"), "precious");
    for name in own {
        let aside = spool_path.join(format!("{name}.unusable"));
        let found = fs::read_to_string(spool_path.join(name)).or_else(|_| fs::read_to_string(aside));
        assert_eq!(found.expect("still there"), name);
    }
}

#[test]
fn a_spool_in_a_directory_of_everybody_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("directory");
    for mode in [0o777, 0o1777, 0o757] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("mode");
        let error = Spool::open(directory.path(), 1 << 20, false).err().expect("an error").to_string();
        assert!(error.contains("other users"), "{error}");
    }
}

#[test]
fn a_spool_forgets_nothing_that_is_not_delivered() {
    let directory = tempfile::tempdir().expect("directory");
    let (segment, bytes, _) = small_spool(directory.path());
    let mut spool = Spool::open(directory.path(), 1 << 30, false).expect("spool");
    assert_eq!(spool.read(1).expect("read").batch.len(), 10);
    spool.delivered();
    assert_eq!(spool.read(1).expect("read").batch.frames[0].seq, 11);
    drop(spool);
    // Records that were read and not delivered come again. With a damaged mark, all records come again.
    assert_eq!(read_all(directory.path()).0, (11..=30).collect::<Vec<_>>());
    fs::write(&segment, &bytes).expect("write");
    fs::write(directory.path().join("delivered"), b"garbage that is as long").expect("write");
    assert_eq!(read_all(directory.path()).0, all(30));
    let mut front = Spool::open(directory.path(), 1 << 30, false).expect("spool");
    front.append(&batch(2, 1)).expect("append");
    front.push_front(&batch(1, 1)).expect("in front");
    drop(front);
    assert_eq!(read_all(directory.path()), (vec![1, 2], 0));
}

#[test]
fn a_spool_that_cannot_be_is_an_error_that_says_why() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("file");
    let error = Spool::open(&file.join("below"), 1 << 20, false).err().expect("an error").to_string();
    assert!(error.contains("file/below") && error.contains("directory"), "{error}");
    let mut small = Spool::open(&directory.path().join("small"), 1000, false).expect("spool");
    let error = small.append(&batch(1, 10)).expect_err("full").to_string();
    assert!(error.contains("full (1000 bytes)"), "{error}");
}

/// A sink whose spool has several segments, and the collector's port, where nobody listens yet.
fn segmented(directory: &Path) -> (Feeder, u16) {
    let (listener, port) = listen();
    drop(listener);
    let settings = SinkSettings { queue_bytes: 64 << 10, ..spooled(tcp(port), directory, 2 << 20) };
    let mut feeder = Feeder::start(&settings, None);
    for _ in 0..50 {
        feeder.push(100);
        wait_until("the spool takes it", || feeder.queue.has_room(30_000));
    }
    wait_until("there are segments", || segments(directory).len() >= 3);
    (feeder, port)
}

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).expect("directory").map(|entry| entry.expect("entry").path());
    let mut found: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "spool")).collect();
    found.sort();
    found
}

#[test]
fn a_segment_that_may_not_be_read_is_tried_again() {
    let directory = tempfile::tempdir().expect("directory");
    let (feeder, port) = segmented(directory.path());
    let second = segments(directory.path()).remove(1);
    // A sink's thread has no capability, also as root.
    fs::set_permissions(&second, fs::Permissions::from_mode(0o000)).expect("mode");
    let taken =
        stream_collector(TcpListener::bind(("127.0.0.1", port)).expect("listen"), vec![Manners::Reads]);
    // The collector takes everything, so each failure after the first delivery is one to read the second segment.
    feeder.wait_until("the first is delivered", |status| status.delivered() > 0);
    let failures = feeder.queue.status().failures();
    feeder.wait_until("the second cannot be read", |status| status.failures() > failures);
    assert!(feeder.queue.status().delivered() < feeder.pushed());
    fs::set_permissions(&second, fs::Permissions::from_mode(0o600)).expect("mode");
    feeder.wait_until("all is delivered", |status| status.delivered() == feeder.pushed());
    wait_until("all is read", || taken.len() as u64 == feeder.pushed());
    assert_eq!(taken.seqs(), all(feeder.pushed()));
    assert_eq!(feeder.queue.status().lost(), 0);
}

#[test]
fn a_segment_that_the_disk_does_not_give_back_is_counted_and_stays() {
    let directory = tempfile::tempdir().expect("directory");
    let (feeder, port) = segmented(directory.path());
    let second = segments(directory.path()).remove(1);
    // Reading a directory fails, and not for want of descriptors, memory or rights: to the sink as EIO does.
    fs::remove_file(&second).expect("remove");
    fs::create_dir(&second).expect("mkdir");
    let taken =
        stream_collector(TcpListener::bind(("127.0.0.1", port)).expect("listen"), vec![Manners::Reads]);
    feeder.wait_until("all is settled", |status| status.delivered() + status.lost() >= feeder.pushed());
    let status = feeder.queue.status();
    wait_until("all is read", || taken.len() as u64 == status.delivered());
    assert_eq!(status.delivered() + status.lost(), feeder.pushed(), "each counted once");
    assert!(status.lost() > 0 && status.delivered() > 0);
    // The missing records are consecutive.
    let seqs = taken.seqs();
    let gaps: Vec<u64> = seqs.windows(2).map(|pair| pair[1] - pair[0] - 1).filter(|gap| *gap > 0).collect();
    assert_eq!(gaps, [status.lost()]);
    assert!(second.with_added_extension("unusable").is_dir(), "it stays");
}
