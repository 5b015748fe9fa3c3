//! How far each sink has come, in memory that outlives a process that is killed. The module [`restart`](super) has the
//! layout of the files.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use super::{
    ResumePoint,
    mapped::{BYTES, Mapped, WORDS, locked},
    progress::{Apart, Counts},
};
use crate::source::Losses;

/// In the second half, number `HALF + at` belongs to the sink whose name is number `at` of the first half: how many of its records are
/// in doubt.
const HALF: usize = WORDS / 2;
/// The losses that were reported are the numbers before this one.
const WAITING: usize = 4;
const LAST_ID: usize = 5;
const INSTANCE: usize = 6;
/// Resets without a socket that were reported as a number.
const RESETS: usize = 7;
/// The first sink's place.
const FIRST_SINK: usize = 8;
/// Numbers of one sink in the first half.
const SINK: usize = 5;
/// The number of settled records among them.
const SETTLED: usize = 3;

/// The process of the sinks counts no further, whatever is in its file.
const MOST_APART: i64 = 1 << 48;

/// The ledger, and the file of what the process of the sinks counts.
pub struct Ledger {
    mapped: Arc<Mapped>,
    /// Only the process of the sinks maps it: if it makes the file shorter, it ends itself.
    apart: Arc<File>,
}

impl Ledger {
    /// Maps the ledger at `path`, and opens the file at `apart`. Files that do not exist are made, and hold zeros.
    ///
    /// # Errors
    /// A file cannot be made or mapped, or another process uses it.
    pub fn open(path: &Path, apart: &Path) -> io::Result<Self> {
        let mapped = Mapped::new(locked(path)?)?;
        let apart = locked(apart)?;
        apart.set_len(BYTES as u64)?;
        Ok(Self { mapped: Arc::new(mapped), apart: Arc::new(apart) })
    }

    /// The file for the process of the sinks. Both processes have its lock, until the last of them ends.
    #[must_use]
    pub fn settled_apart(&self) -> BorrowedFd<'_> {
        self.apart.as_fd()
    }

    fn get(&self, at: usize) -> u64 {
        self.mapped.words()[at].load(Ordering::Relaxed)
    }

    fn set(&self, at: usize, value: u64) {
        self.mapped.words()[at].store(value, Ordering::Relaxed);
    }

    /// Losses that were reported.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses {
            ring: self.get(0),
            evidence: self.get(1),
            recursion: self.get(2),
            stacks: self.get(3),
            resets: self.get(RESETS),
        }
    }

    /// Notes losses that are reported.
    pub fn set_losses(&self, losses: Losses) {
        let all = [losses.ring, losses.evidence, losses.recursion, losses.stacks];
        all.into_iter().enumerate().for_each(|(at, count)| self.set(at, count));
        self.set(RESETS, losses.resets);
    }

    /// Transitions that were read from the ring and are in no stream yet.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.get(WAITING)
    }

    /// Notes how many there are.
    pub fn set_waiting(&self, count: usize) {
        self.set(WAITING, count as u64);
    }

    /// The last id that a connection was given.
    #[must_use]
    pub fn last_id(&self) -> u64 {
        self.get(LAST_ID)
    }

    /// Notes that id. The caller does so before anybody reads it in a record.
    pub fn set_last_id(&self, id: u64) {
        self.set(LAST_ID, id);
    }

    /// The upper bits of the connections' ids.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.get(INSTANCE)
    }

    pub(super) fn set_instance(&self, instance: u32) {
        self.set(INSTANCE, u64::from(instance));
    }

    /// The progress of the sink called `name`. `None` if 100 other names have used the file before: a place is never freed. Names with
    /// the same CRC-32 would share a place; by chance, two names have it once in four billion times.
    #[must_use]
    pub fn sink(self: &Arc<Self>, name: &str) -> Option<SinkProgress> {
        let sum = u64::from(crc32fast::hash(name.as_bytes())) + 1;
        let at = places().find(|at| [0, sum].contains(&self.get(*at)))?;
        self.set(at, sum);
        Some(SinkProgress { mapped: Arc::clone(&self.mapped), at, apart: Some(Arc::clone(&self.apart)) })
    }
}

/// In the process of the sinks: what its sinks have settled.
pub struct Settled(Arc<Mapped>);

impl Settled {
    /// The file whose descriptor the tracer's process has passed.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn passed(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self(Arc::new(Mapped::new(descriptor.into())?)))
    }

    /// The progress of the sink whose [`SinkProgress::place`] in the ledger this is.
    #[must_use]
    pub fn sink(&self, place: usize) -> Option<SinkProgress> {
        places().find(|at| *at == place)?;
        Some(SinkProgress { mapped: Arc::clone(&self.0), at: place, apart: None })
    }
}

/// Where the sinks' numbers begin.
fn places() -> impl Iterator<Item = usize> {
    (FIRST_SINK..HALF - SINK).step_by(SINK)
}

/// How far one sink has come.
#[derive(Clone)]
pub struct SinkProgress {
    mapped: Arc<Mapped>,
    at: usize,
    /// What the process of the sinks has counted; `None` in that process.
    apart: Option<Arc<File>>,
}

impl SinkProgress {
    /// Continues after the last number that `instance` has given; another instance begins with 1. `waiting` records are lost
    /// beside those that have a number.
    #[must_use]
    pub fn resume(&self, instance: u32, waiting: u64) -> ResumePoint {
        let apart = Apart { settled: self.apart(self.at + SETTLED), in_doubt: self.apart(HALF + self.at) };
        self.counts().resume(instance, waiting, apart)
    }

    /// Where the numbers are, for [`Settled::sink`].
    #[must_use]
    pub fn place(&self) -> usize {
        self.at
    }

    fn apart(&self, at: usize) -> i64 {
        let mut bytes = [0; size_of::<u64>()];
        let file = self.apart.iter();
        // The process of the sinks may have made it shorter.
        let read = file.map(|file| file.read_exact_at(&mut bytes, (at * size_of::<u64>()) as u64));
        let is_read = read.last().is_some_and(|read| read.is_ok());
        if is_read { i64::from_ne_bytes(bytes).clamp(-MOST_APART, MOST_APART) } else { 0 }
    }

    /// Notes the last number that was given.
    pub fn number(&self, seq: u64) {
        self.counts().number(seq);
    }

    /// `records` more are delivered, on disk, or reported as lost; a negative number puts some of those in doubt again.
    pub(crate) fn settle(&self, records: i64) {
        self.counts().settle(records);
    }

    /// `count` transitions are only counted yet, and become one record.
    pub fn hold(&self, count: u64) {
        self.counts().hold(count);
    }

    /// The stream has reported `records` in doubt.
    pub fn report_doubt(&self, records: u64) {
        self.doubt(-records.cast_signed());
    }

    /// `records` more are in doubt and not reported; a negative number has been reported.
    pub(crate) fn doubt(&self, records: i64) {
        self.counts().doubt(records);
    }

    fn counts(&self) -> Counts<'_> {
        let words = self.mapped.words();
        Counts {
            instance: &words[self.at + 1],
            numbered: &words[self.at + 2],
            settled: &words[self.at + SETTLED],
            held: &words[self.at + 4],
            in_doubt: &words[HALF + self.at],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_settled_is_known_to_the_next() {
        let directory = tempfile::tempdir().expect("directory");
        let (path, apart) = (directory.path().join("ledger"), directory.path().join("apart"));
        let open = || Arc::new(Ledger::open(&path, &apart).expect("ledger"));
        let first = open();
        let (a, b) = (first.sink("a").expect("a"), first.sink("b").expect("b"));
        let point = |seq, unsettled| ResumePoint { seq, unsettled, in_doubt: 0 };
        assert_eq!((a.resume(1, 0), b.resume(1, 2)), (point(0, 0), point(0, 2)));
        (1..=7).for_each(|seq| a.number(seq));
        a.settle(4);
        a.doubt(9);
        a.doubt(-3);
        b.number(12);
        // Two transitions that had no number, and one record that was in doubt.
        b.settle(14);
        b.settle(-1);
        b.settle(1);
        first.set_losses(Losses { stacks: 99, ..Losses::default() });
        assert!(Ledger::open(&path, &apart).is_err(), "one at a time");
        // The next process maps the same memory.
        drop((a, b, first));
        let second = open();
        assert_eq!(second.losses().stacks, 99);
        let (a, b) = (second.sink("a").expect("a"), second.sink("b").expect("b"));
        assert_eq!(
            (a.resume(1, 0), b.resume(2, 0)),
            (ResumePoint { in_doubt: 6, ..point(7, 3) }, point(0, 0))
        );
        assert_eq!(a.resume(1, 0).in_doubt, 6, "until it is reported");
        a.doubt(-6);
        assert_eq!(a.resume(1, 1), point(7, 4), "until it is reported");
        a.settle(4);
        assert_eq!((a.resume(1, 0), a.resume(2, 0)), (point(7, 0), point(0, 0)));
        a.hold(5);
        assert_eq!(a.resume(2, 0), point(0, 5), "what had no number");
        let many = (0..500).filter(|at| second.sink(&format!("sink {at}")).is_some()).count();
        assert!((90..200).contains(&many), "{many}");
    }

    #[test]
    fn what_the_process_of_the_sinks_counts_is_added_once() {
        let directory = tempfile::tempdir().expect("directory");
        let (path, apart) = (directory.path().join("ledger"), directory.path().join("apart"));
        let open = || Arc::new(Ledger::open(&path, &apart).expect("ledger"));
        let point = |seq, unsettled, in_doubt| ResumePoint { seq, unsettled, in_doubt };
        let ledger = open();
        let ours = ledger.sink("a").expect("a");
        let far = Settled::passed(ledger.settled_apart().try_clone_to_owned().expect("descriptor"));
        let far = far.expect("the file");
        let theirs = far.sink(ours.place()).expect("a");
        assert!([0, ours.place() + 1, 1 << 20].iter().all(|place| far.sink(*place).is_none()));
        assert_eq!(ours.resume(1, 0), point(0, 0, 0));
        ours.number(9);
        theirs.settle(6);
        theirs.doubt(4);
        // The stream has reported a loss, and one record in doubt.
        ours.settle(1);
        ours.report_doubt(1);
        drop((ours, ledger));
        assert!(Ledger::open(&path, &apart).is_err(), "the other process still counts");
        drop((theirs, far));
        for _ in 0..2 {
            let ours = open().sink("a").expect("a");
            assert_eq!(ours.resume(1, 0), point(9, 2, 3), "also if it was killed before it reported");
        }
        // Without such a process, the numbers go on.
        let ours = open().sink("a").expect("a");
        ours.settle(2);
        assert_eq!(ours.resume(2, 0), point(0, 0, 3));
        ours.number(5);
        ours.settle(4);
        assert_eq!(ours.resume(2, 0), point(5, 1, 3));
    }

    #[test]
    fn whatever_the_process_of_the_sinks_writes_only_its_sinks_counts_are_wrong() {
        let directory = tempfile::tempdir().expect("directory");
        let (path, apart) = (directory.path().join("ledger"), directory.path().join("apart"));
        let ledger = Arc::new(Ledger::open(&path, &apart).expect("ledger"));
        let file = File::from(ledger.settled_apart().try_clone_to_owned().expect("descriptor"));
        ledger.set_last_id(7);
        for byte in [0xff, 0x80, 0x7f, 0] {
            file.write_all_at(&vec![byte; 2 * BYTES], 0).expect("write");
            let sink = ledger.sink("a").expect("a");
            let ResumePoint { unsettled, in_doubt, .. } = sink.resume(1, 3);
            assert!(unsettled < 1 << 50 && in_doubt < 1 << 50, "{unsettled} {in_doubt}");
        }
        file.set_len(3).expect("a shorter file");
        let _ = ledger.sink("a").expect("a").resume(1, 0);
        assert_eq!(ledger.last_id(), 7);
        drop((ledger, file));
        Ledger::open(&path, &apart).expect("a file of the right size");
        assert_eq!(std::fs::metadata(&apart).expect("metadata").len(), BYTES as u64);
    }
}
