//! How far each sink has come, in memory that outlives a process that is killed: a mapped file. What was numbered and not settled
//! then is lost, and the next one can say how much that is.

use std::{
    fs::File,
    io,
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

use super::{Begun, counts::Counts};
use crate::files;

/// Numbers in the file: the first half as described here; in the second one, where earlier versions had nothing, how many records
/// are in doubt and not reported, at the places of the names' sums.
const WORDS: usize = 2 * HALF;
const HALF: usize = 512;
/// The first ones are the caller's; then for each sink: its name's sum, whose numbers they are, the last number, how many are
/// settled, how many have no number yet.
const FREE: usize = 8;
const SLOT: usize = 5;

/// The file.
pub struct Ledger {
    words: NonNull<[AtomicU64; WORDS]>,
    /// Locked as long as it is in use.
    _file: File,
}

// SAFETY: it is mapped for the whole process, and holds atomics only.
unsafe impl Send for Ledger {}
// SAFETY: the same.
unsafe impl Sync for Ledger {}

impl Ledger {
    /// Maps the file at `path`, which is made, of zeros, where there is none.
    ///
    /// # Errors
    /// It cannot be made or mapped, or another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = Self::file(path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another sockstate goes on with these programs",
            ));
        }
        // SAFETY: a new mapping of a file that is as long; who else maps it does not shorten it.
        let words = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(ptr::null_mut(), WORDS * 8, protection, MapFlags::SHARED, &file, 0)?
        };
        let words = NonNull::new(words.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { words, _file: file })
    }

    fn file(path: &Path) -> io::Result<File> {
        let file = files::private().read(true).create(true).truncate(false).open(path)?;
        // Room that is only promised would end the process by SIGBUS where /run is full.
        fallocate(&file, FallocateFlags::empty(), 0, WORDS as u64 * 8)?;
        Ok(file)
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: mapped as long as this lives, page-aligned, and only used as atomics.
        unsafe { self.words.as_ref() }
    }

    /// A number of the caller's own, of the first eight.
    #[must_use]
    pub fn word(&self, at: usize) -> &AtomicU64 {
        &self.words()[at.min(FREE - 1)]
    }

    /// The place of the sink called `name`; none where there are too many.
    #[must_use]
    pub fn slot(self: &Arc<Self>, name: &str) -> Option<Slot> {
        let sum = u64::from(crc32fast::hash(name.as_bytes())) + 1;
        let words = self.words();
        let mut places = (FREE..HALF - SLOT).step_by(SLOT);
        let at = places.find(|at| {
            let found = words[*at].load(Ordering::Relaxed);
            found == sum || found == 0
        })?;
        words[at].store(sum, Ordering::Relaxed);
        Some(Slot { ledger: Arc::clone(self), at })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this size, and borrowed by nobody.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), WORDS * 8) };
    }
}

/// One sink's place.
#[derive(Clone)]
pub struct Slot {
    ledger: Arc<Ledger>,
    at: usize,
}

impl Slot {
    /// Goes on behind the last number that `instance` has given, or begins with its first. Beside what has a number, `waiting`
    /// records are lost.
    #[must_use]
    pub fn begin(&self, instance: u32, waiting: u64) -> Begun {
        self.counts().begin(instance, waiting)
    }

    /// Notes the last number that was given.
    pub fn number(&self, seq: u64) {
        self.counts().number(seq);
    }

    /// `records` more are delivered, on disk, or reported as lost; a negative number puts some of those in doubt again.
    pub(super) fn settle(&self, records: i64) {
        self.counts().settle(records);
    }

    /// `count` transitions wait for others, to become one record with them.
    pub fn hold(&self, count: u64) {
        self.counts().hold(count);
    }

    /// The stream has reported `records` in doubt.
    pub fn tell_doubt(&self, records: u64) {
        self.doubt(-records.cast_signed());
    }

    /// `records` more are in doubt and not reported; a negative number has been reported.
    pub(super) fn doubt(&self, records: i64) {
        self.counts().doubt(records);
    }

    fn counts(&self) -> Counts<'_> {
        let words = self.ledger.words();
        Counts {
            whose: &words[self.at + 1],
            numbered: &words[self.at + 2],
            settled: &words[self.at + 3],
            held: &words[self.at + 4],
            doubtful: &words[HALF + self.at],
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
        let (a, b) = (first.slot("a").expect("a"), first.slot("b").expect("b"));
        let begun = |seq, unsettled| Begun { seq, unsettled, in_doubt: 0 };
        assert_eq!((a.begin(1, 0), b.begin(1, 2)), (begun(0, 0), begun(0, 2)));
        (1..=7).for_each(|seq| a.number(seq));
        a.settle(4);
        a.doubt(9);
        a.doubt(-3);
        b.number(12);
        // With what it had waited for, and one that was in doubt.
        b.settle(14);
        b.settle(-1);
        b.settle(1);
        first.word(3).store(99, Ordering::Relaxed);
        assert!(Ledger::open(&path).is_err(), "one at a time");
        // Nothing is written back at the end.
        drop((a, b, first));
        let second = open();
        assert_eq!(second.word(3).load(Ordering::Relaxed), 99);
        let (a, b) = (second.slot("a").expect("a"), second.slot("b").expect("b"));
        assert_eq!((a.begin(1, 0), b.begin(2, 0)), (Begun { in_doubt: 6, ..begun(7, 3) }, begun(0, 0)));
        assert_eq!(a.begin(1, 0).in_doubt, 6, "until it has been said");
        a.doubt(-6);
        assert_eq!(a.begin(1, 1), begun(7, 4), "until it has been said");
        a.settle(4);
        assert_eq!((a.begin(1, 0), a.begin(2, 0)), (begun(7, 0), begun(0, 0)));
        a.hold(5);
        assert_eq!(a.begin(2, 0), begun(0, 5), "what had no number");
        let many = (0..500).filter(|at| second.slot(&format!("sink {at}")).is_some()).count();
        assert!((90..200).contains(&many), "{many}");
    }
}
