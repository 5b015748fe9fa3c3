//! Remembers which files sockstate has created, because it must not truncate a file of another program. For each path a
//! note, a small file, has the identity of the file.

use std::{
    fmt,
    fs::{self, DirBuilder, File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// The directory of the notes in the runtime directory, which a reboot clears.
const NOTES: &str = "files";
/// Limit of bytes of a note.
const MAX_NOTE: u64 = 128;

/// Device, inode and creation time of a file; the inode alone may be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// ns since the epoch; 0 if the file system does not store it.
    created_ns: u128,
}

impl Identity {
    /// # Errors
    /// The metadata of the file cannot be read.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    /// The identity of the file at `path`; a symbolic link is not followed.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::from_metadata)
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        let created = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let created_ns = created.map_or(0, |since| since.as_nanos());
        Self { device: metadata.dev(), inode: metadata.ino(), created_ns }
    }

    /// Notes that sockstate has created the file at `path`.
    ///
    /// # Errors
    /// The runtime directory cannot be written to.
    pub fn remember(self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(notes())?;
        super::replace(&note(path), self.to_string().as_bytes())
    }

    /// Whether this is the file that sockstate last created at `path`.
    #[must_use]
    pub fn is_remembered(self, path: &Path) -> bool {
        let known = super::read_text(&note(path), MAX_NOTE).ok();
        known.is_some_and(|known| known == self.to_string())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.device, self.inode, self.created_ns)
    }
}

fn notes() -> PathBuf {
    super::runtime_directory().join(NOTES)
}

fn note(path: &Path) -> PathBuf {
    let path = path.as_os_str().as_bytes();
    notes().join(format!("{:08x}{:08x}", crc32fast::hash(path), path.len()))
}
