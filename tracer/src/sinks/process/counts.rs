//! The counts of all queues, in memory that both processes map.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::Arc,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::sinks::delivery::Status;

/// Queues that there may be while a process runs. A number is not used twice, because the other process may still
/// count for the queue that had it.
const QUEUES: usize = 4096;
const BYTES: usize = QUEUES * size_of::<Status>();

/// The mapped memory.
pub(super) struct SharedCounts {
    all: NonNull<[Status; QUEUES]>,
    file: OwnedFd,
}

// SAFETY: the mapping is valid in the whole process until it is dropped, and holds atomics only.
unsafe impl Send for SharedCounts {}
// SAFETY: the same.
unsafe impl Sync for SharedCounts {}

impl SharedCounts {
    /// New counts, all zero. The other process cannot change the size of the memory.
    pub(super) fn new() -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("sockstate-counts", flags)?;
        ftruncate(&file, BYTES as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file)
    }

    /// The counts that another process has made.
    pub(super) fn received(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        if file.metadata()?.len() < BYTES as u64 {
            return Err(super::connection::invalid("the counts have another size"));
        }
        Self::map(file.into())
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        // SAFETY: a new mapping of a file that has this length, and keeps it because it is sealed.
        let all = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(ptr::null_mut(), BYTES, protection, MapFlags::SHARED, &file, 0)?
        };
        let all = NonNull::new(all.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { all, file })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn all(&self) -> &[Status; QUEUES] {
        // SAFETY: mapped as long as this lives, page-aligned, and atomics, for which any bytes are valid.
        unsafe { self.all.as_ref() }
    }

    /// The counts of the queue with this number; `None` if there are not as many queues.
    pub(super) fn of_queue(self: &Arc<Self>, queue: u32) -> Option<QueueCounts> {
        let queue = usize::try_from(queue).ok().filter(|queue| *queue < QUEUES)?;
        Some(QueueCounts { all: Arc::clone(self), queue })
    }
}

impl Drop for SharedCounts {
    fn drop(&mut self) {
        // SAFETY: this type has mapped it with this size, and nothing borrows it.
        let _ = unsafe { munmap(self.all.as_ptr().cast(), BYTES) };
    }
}

/// The counts of one queue.
pub(super) struct QueueCounts {
    all: Arc<SharedCounts>,
    queue: usize,
}

impl AsRef<Status> for QueueCounts {
    fn as_ref(&self) -> &Status {
        &self.all.all()[self.queue]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sinks::{
        Batch, Frame, Queue,
        delivery::{End, Forward, Notice},
    };

    struct Nothing;

    impl Forward for Nothing {
        fn push(&self, _: Batch) {}
        fn close(&self, _: Duration) {}
        fn reopen(&self) {}
        fn unsent(&self) -> usize {
            0
        }
        fn number(&self) -> u32 {
            7
        }
    }

    impl Notice for Nothing {
        fn lost(&self) {}
        fn finished(&self) {}
        fn released(&self) {}
    }

    #[test]
    fn both_processes_have_the_same_counts() {
        let ours = Arc::new(SharedCounts::new().expect("counts"));
        let theirs = ours.descriptor().try_clone_to_owned().expect("descriptor");
        let theirs = Arc::new(SharedCounts::received(theirs).expect("counts"));
        let of = |counts: &Arc<SharedCounts>| Box::new(counts.of_queue(7).expect("a queue"));
        let sink = Queue::at("any", 8, None, of(&theirs), End::Sink(Box::new(Nothing)));
        sink.count_overflow(3);
        let stream = Queue::at("any", 8, None, of(&ours), End::Stream(Box::new(Nothing)));
        assert_eq!((stream.status().lost(), stream.status().delivered()), (3, 0));
        assert!(ours.of_queue(QUEUES as u32).is_none());
    }

    #[test]
    fn whatever_the_other_process_writes_is_a_number() {
        let counts = Arc::new(SharedCounts::new().expect("counts"));
        let file = File::from(counts.descriptor().try_clone_to_owned().expect("descriptor"));
        for byte in [0xff, 0x80, 0x7f, 0x01] {
            std::os::unix::fs::FileExt::write_all_at(&file, &vec![byte; BYTES], 0).expect("write");
            let of_queue = Box::new(counts.of_queue(1).expect("a queue"));
            let queue = Queue::at("any", 8, None, of_queue, End::Stream(Box::new(Nothing)));
            let frame = Frame { end: 4, seq: 1, time_ns: 5, reported_lost: 0, reported_in_doubt: 0 };
            queue.push(Batch { bytes: b"line".to_vec(), frames: vec![frame] });
            let status = queue.status();
            let all =
                [status.delivered(), status.lost(), status.in_doubt(), queue.take_lost(), queue.take_doubt()];
            // No sum of all queues overflows.
            assert!(all.iter().all(|count| count.checked_mul(QUEUES as u64).is_some()), "{all:?}");
            let _ = (queue.has_room(1), queue.stands_still(), status.is_failing(), queue.take_lost_since());
            queue.count_overflow(1);
            queue.abandon();
        }
        assert!(ftruncate(&file, 0).is_err(), "sealed");
    }
}
