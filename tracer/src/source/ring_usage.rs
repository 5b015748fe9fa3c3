//! How full the ring is: the positions of the kernel and of the reader, from the ring's first two pages.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// The two pages before the data of a `BPF_MAP_TYPE_RINGBUF` (kernel/bpf/ringbuf.c, 5.8): the reader's position, then the
/// kernel's.
pub(super) struct RingUsage {
    reader: Page,
    kernel: Page,
}

/// A mapped page that begins with a position.
struct Page(NonNull<AtomicU64>);

// SAFETY: the page is mapped for the whole process, and only read, atomically.
unsafe impl Send for Page {}

impl Page {
    fn map(ring: impl AsFd, at: u64) -> io::Result<Self> {
        // SAFETY: a new mapping, which nothing else knows of, of a page that every ring has.
        let page =
            unsafe { mmap(ptr::null_mut(), page_size(), ProtFlags::READ, MapFlags::SHARED, ring, at)? };
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn position(&self) -> u64 {
        // SAFETY: mapped as long as this lives, page-aligned, and written by others atomically only.
        unsafe { self.0.as_ref() }.load(Ordering::Relaxed)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this size, and borrowed by nobody.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), page_size()) };
    }
}

impl RingUsage {
    pub(super) fn of(ring: impl AsFd) -> io::Result<Self> {
        Ok(Self { reader: Page::map(&ring, 0)?, kernel: Page::map(&ring, page_size() as u64)? })
    }

    /// Unread bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.kernel.position().saturating_sub(self.reader.position())
    }

    /// The kernel's position.
    pub(super) fn written(&self) -> u64 {
        self.kernel.position()
    }

    /// The reader's position.
    pub(super) fn read(&self) -> u64 {
        self.reader.position()
    }
}
