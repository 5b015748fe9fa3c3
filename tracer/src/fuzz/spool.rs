//! A spool whose files anybody may have damaged.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sinks::{Batch, Frame, Spool};

/// Bytes that it may hold; an eighth of it is a segment.
const LIMIT: u64 = 16 << 10;
const RECORDS: u64 = 60;

/// The first byte says what the rest is: a segment, with or without files beside it, or damage of one that was written.
pub(super) fn read(bytes: &[u8]) {
    let Some((way, rest)) = bytes.split_first() else { return };
    let Ok(scratch) = Scratch::new() else { return };
    let path = &scratch.0;
    match way % 4 {
        0 => foreign(path, &[("0000000100000000.spool", rest)]),
        1 => {
            let half = rest.len() / 2;
            let (count, segment) = rest.split_at(rest.len().min(20));
            foreign(path, &[("0000000100000000.count", count), ("0000000100000000.spool", segment)]);
            foreign(path, &[("delivered", &rest[..half]), ("00000000ffffffff.spool", &rest[half..])]);
        }
        _ => damaged(path, rest),
    }
}

/// Reads a spool to its end: numbers, and how many records are missing.
fn read_all(path: &Path) -> (Vec<u64>, u64) {
    let (mut seqs, mut missing) = (Vec::new(), 0);
    let Ok(mut spool) = Spool::open(path, LIMIT, false) else { return (seqs, missing) };
    let bytes = spool.bytes();
    let mut turns = 0;
    while !spool.is_empty() {
        let Ok(read) = spool.read(1000) else { break };
        missing += read.missing;
        for (record, frame) in read.batch.records() {
            assert!(record.len() as u64 <= bytes, "no more than there was");
            seqs.push(frame.seq);
        }
        spool.delivered();
        turns += 1;
        assert!(turns <= bytes + 2, "it goes on");
    }
    (seqs, missing)
}

/// Files that no sockstate has written.
fn foreign(path: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        // A disk that is full leaves less to read.
        let _ = fs::write(path.join(name), bytes);
    }
    read_all(path);
    let (again, _) = read_all(path);
    assert!(again.is_empty(), "what was delivered is gone");
}

/// Each three bytes of `damage` change a byte of a segment: where, and how. Every record is delivered once, in order, or counted.
fn damaged(path: &Path, damage: &[u8]) {
    let Some(written) = fill(path) else { return };
    let Some(mut segments) = segments(path) else { return };
    for hit in damage.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([hit[0], hit[1]]));
        let count = segments.len();
        let (_, bytes) = &mut segments[at % count];
        match (hit[2], bytes.len()) {
            (_, 0) => {}
            (0xfe, len) => bytes.truncate(at / count % len),
            (0xff, len) => bytes[at / count % len..].fill(hit[3]),
            (_, len) => bytes[at / count % len] = hit[3],
        }
    }
    for (path, bytes) in &segments {
        if fs::write(path, bytes).is_err() {
            return;
        }
    }
    let (seqs, missing) = read_all(path);
    assert!(
        seqs.is_sorted_by(|one, other| one < other) && seqs.iter().all(|seq| (1..=written).contains(seq))
    );
    assert_eq!(seqs.len() as u64 + missing, written, "delivered and counted is what was written");
}

/// How many records were written.
fn fill(path: &Path) -> Option<u64> {
    let mut spool = Spool::open(path, LIMIT, false).ok()?;
    let mut seq = 0;
    while seq < RECORDS {
        let mut batch = Batch::default();
        for _ in 0..5 {
            seq += 1;
            batch.bytes.extend(format!("{{\"seq\":{seq},\"text\":\"{}\"}}\n", "x".repeat(40)).bytes());
            batch.frames.push(Frame {
                end: batch.bytes.len(),
                seq,
                time_ns: 1,
                reported_lost: 0,
                reported_in_doubt: 0,
            });
        }
        spool.append(&batch).ok()?;
    }
    Some(seq)
}

fn segments(path: &Path) -> Option<Vec<(PathBuf, Vec<u8>)>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(path).ok()?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "spool") {
            segments.push((entry.path(), fs::read(entry.path()).ok()?));
        }
    }
    segments.sort();
    (!segments.is_empty()).then_some(segments)
}

/// A directory that is removed with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        // Memory, where it is mounted.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("sockstate-fuzz-{}-{number}", std::process::id()));
        fs::create_dir(&path).map(|()| Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The remaining files are in memory. The name of their directory has the pid of the process.
        let _ = fs::remove_dir_all(&self.0);
    }
}
