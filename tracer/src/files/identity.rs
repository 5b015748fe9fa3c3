//! Which files sockstate has made: what another program wrote is never cut.

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

/// State that ends with the machine.
const STATE: &str = "/run/sockstate/files";
/// Bytes of a note, at most.
const MOST_NOTE: u64 = 128;

/// A file's device and inode, and when it was made: an inode is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    /// ns since the epoch; 0 where the file system does not note it.
    born_ns: u128,
}

impl Identity {
    /// # Errors
    /// The system does not say.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::by(&file.metadata()?))
    }

    /// That of what has the name `path` now; a symbolic link is not followed.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::by)
    }

    fn by(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.map_or(0, |since| since.as_nanos());
        Self { device: metadata.dev(), inode: metadata.ino(), born_ns }
    }

    /// Notes that sockstate has made the file at `path`.
    ///
    /// # Errors
    /// /run cannot be written to.
    pub fn remember(self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(STATE)?;
        super::replace(&note(path), self.to_string().as_bytes())
    }

    /// Whether this is the file that sockstate has made last at `path`.
    #[must_use]
    pub fn is_remembered(self, path: &Path) -> bool {
        let known = super::read_text(&note(path), MOST_NOTE).ok();
        known.is_some_and(|known| known == self.to_string())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.device, self.inode, self.born_ns)
    }
}

fn note(path: &Path) -> PathBuf {
    let path = path.as_os_str().as_bytes();
    Path::new(STATE).join(format!("{:08x}{:08x}", crc32fast::hash(path), path.len()))
}
