//! How far each sink has come, in memory that outlives a process that is killed: a mapped file. The module [`restart`](super) has
//! its layout.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, fallocate, flock},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{ResumePoint, progress::Counts};
use crate::{files, source::Losses};

/// Numbers in the file. In the second half, number `HALF + at` belongs to the sink whose name is number `at` of the first half: how many
/// of its records are in doubt.
const WORDS: usize = 2 * HALF;
const HALF: usize = 512;
/// The losses that were reported are the numbers before this one.
const WAITING: usize = 4;
const LAST_ID: usize = 5;
const INSTANCE: usize = 6;
/// The first sink's place.
const FIRST_SINK: usize = 8;
/// Numbers of one sink in the first half.
const SINK: usize = 5;

/// The mapped file.
pub struct Ledger {
    words: NonNull<[AtomicU64; WORDS]>,
    /// Holds the lock.
    file: File,
}

// SAFETY: the file is mapped for the whole process, and the mapping holds atomics only.
unsafe impl Send for Ledger {}
// SAFETY: the same.
unsafe impl Sync for Ledger {}

impl Ledger {
    /// Maps the file at `path`. A file that does not exist is made, and holds zeros.
    ///
    /// # Errors
    /// The file cannot be made or mapped, or another process uses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = Self::file(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another sockstate process uses these programs",
            ));
        }
        Self::map(file)
    }

    /// The ledger whose descriptor another process has passed. Both have the lock, until the last of them ends.
    ///
    /// # Errors
    /// The file cannot be mapped.
    pub fn passed(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        if file.metadata()?.len() < WORDS as u64 * 8 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(file)
    }

    /// The descriptor for the process of the sinks.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn map(file: File) -> io::Result<Self> {
        // SAFETY: a new mapping of a file that has this length; no process that maps the file shortens it.
        let words = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(ptr::null_mut(), WORDS * 8, protection, MapFlags::SHARED, &file, 0)?
        };
        let words = NonNull::new(words.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { words, file })
    }

    fn file(path: &Path) -> io::Result<File> {
        let file = files::private().read(true).create(true).truncate(false).open(path)?;
        // Without memory behind the file, a full /run would end the process by SIGBUS.
        fallocate(&file, FallocateFlags::empty(), 0, WORDS as u64 * 8)?;
        Ok(file)
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: mapped as long as this lives, page-aligned, and only used as atomics.
        unsafe { self.words.as_ref() }
    }

    fn get(&self, at: usize) -> u64 {
        self.words()[at].load(Ordering::Relaxed)
    }

    fn set(&self, at: usize, value: u64) {
        self.words()[at].store(value, Ordering::Relaxed);
    }

    /// Losses that were reported.
    #[must_use]
    pub fn losses(&self) -> Losses {
        Losses { ring: self.get(0), evidence: self.get(1), recursion: self.get(2), stacks: self.get(3) }
    }

    /// Notes losses that are reported.
    pub fn set_losses(&self, losses: Losses) {
        let all = [losses.ring, losses.evidence, losses.recursion, losses.stacks];
        all.into_iter().enumerate().for_each(|(at, count)| self.set(at, count));
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
        let mut places = (FIRST_SINK..HALF - SINK).step_by(SINK);
        let at = places.find(|at| [0, sum].contains(&self.get(*at)))?;
        self.set(at, sum);
        Some(SinkProgress { ledger: Arc::clone(self), at })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: this type has mapped it with this size, and nothing borrows it.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), WORDS * 8) };
    }
}

/// How far one sink has come.
#[derive(Clone)]
pub struct SinkProgress {
    ledger: Arc<Ledger>,
    at: usize,
}

impl SinkProgress {
    /// Continues after the last number that `instance` has given; another instance begins with 1. `waiting` records are lost
    /// beside those that have a number.
    #[must_use]
    pub fn resume(&self, instance: u32, waiting: u64) -> ResumePoint {
        self.counts().resume(instance, waiting)
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
        let words = self.ledger.words();
        Counts {
            instance: &words[self.at + 1],
            numbered: &words[self.at + 2],
            settled: &words[self.at + 3],
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
        let path = directory.path().join("ledger");
        let open = || Arc::new(Ledger::open(&path).expect("ledger"));
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
        assert!(Ledger::open(&path).is_err(), "one at a time");
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
}
