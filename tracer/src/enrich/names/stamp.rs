//! Whether a file or a directory has changed since it was read.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

/// A clock of a file system may have ticks this long: a change in the tick of the last one does not change the time.
const TICK: Duration = Duration::from_secs(2);

/// The state of a file when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    /// The time of the change was long ago when the file was read, so that another change has another time.
    is_settled: bool,
}

impl Stamp {
    /// `None` if there is no such file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let age = metadata.modified().ok()?.elapsed().unwrap_or_default();
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
            is_settled: age > TICK,
        })
    }

    /// Whether a file with this stamp has to be read again, if `read` is its stamp from just before it was read.
    pub(super) fn is_news(self, read: Option<Self>) -> bool {
        read.is_none_or(|read| !read.is_settled || Self { is_settled: true, ..self } != read)
    }
}
