//! Numbers in a file that is mapped, so that they outlive a process that is killed.

use std::{
    fs::File,
    io,
    path::Path,
    ptr::{self, NonNull},
    sync::atomic::AtomicU64,
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, fallocate, flock},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

use crate::files;

/// Numbers in a file.
pub(super) const WORDS: usize = 1024;
pub(super) const BYTES: usize = WORDS * size_of::<u64>();

/// The mapped file.
pub(super) struct Mapped {
    words: NonNull<[AtomicU64; WORDS]>,
    /// Holds the lock.
    _file: File,
}

// SAFETY: the file is mapped for the whole process, and the mapping holds atomics only.
unsafe impl Send for Mapped {}
// SAFETY: the same.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a file of [`locked`].
    ///
    /// # Errors
    /// The file is too short, or cannot be mapped.
    pub(super) fn new(file: File) -> io::Result<Self> {
        if file.metadata()?.len() < BYTES as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: a new mapping of a file that has this length; no process that maps the file shortens it.
        let words = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(ptr::null_mut(), BYTES, protection, MapFlags::SHARED, &file, 0)?
        };
        let words = NonNull::new(words.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { words, _file: file })
    }

    pub(super) fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: mapped as long as this lives, page-aligned, and only used as atomics.
        unsafe { self.words.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this type has mapped it with this size, and nothing borrows it.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), BYTES) };
    }
}

/// Opens and locks the file at `path`. A file that does not exist is made, and holds zeros.
///
/// # Errors
/// The file cannot be made, or another process uses it.
pub(super) fn locked(path: &Path) -> io::Result<File> {
    let file = files::private().read(true).create(true).truncate(false).open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "another sockstate process uses these programs",
        ));
    }
    // Without memory behind the file, a full /run would end the process by SIGBUS.
    fallocate(&file, FallocateFlags::empty(), 0, BYTES as u64)?;
    Ok(file)
}
