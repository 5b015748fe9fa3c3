//! Opens files for a root daemon, so that no other user can redirect a write to another file.

mod directory;
mod identity;
mod runtime;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use directory::{Directory, can_make, is_kept_by_sticky_bit};
pub use identity::Identity;
pub use runtime::{DEFAULT_RUNTIME, runtime_directory, use_runtime_directory};

/// Mode of files with records: they name processes and peers.
pub const RECORDS_MODE: u32 = 0o640;

/// Limit of the size of a configuration, certificate or secret.
pub const MOST_SETTINGS: u64 = 4 << 20;

/// Why a file is not opened.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is a symbolic link, and its target may be any file; name the target itself")]
    Link { path: PathBuf },
    #[error(
        "{path} is not a regular file: it cannot be rotated, and an incomplete record cannot be removed from it"
    )]
    Kind { path: PathBuf },
    #[error("{path} names no file")]
    NoName { path: PathBuf },
    #[error(
        "the directory {path} can be written to by other users ({why}), who could replace the file; use a directory of root's or of the user that runs sockstate, such as one in /var/log or /var/lib"
    )]
    Shared { path: PathBuf, why: String },
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        let kind = match &error {
            FileError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::PermissionDenied,
        };
        Self::new(kind, error)
    }
}

/// The file of the key `key`, for messages. A value that is not an absolute path is not shown, because it may be the secret itself,
/// written there by mistake.
#[must_use]
pub fn shown(key: &str, path: &Path) -> String {
    if path.is_absolute() { path.display().to_string() } else { format!("the file that '{key}' names") }
}

/// Whether `path` names an inherited descriptor, whose file the parent process has chosen.
#[must_use]
pub fn is_inherited(path: &Path) -> bool {
    let is_standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name));
    is_standard
        || path
            .parent()
            .is_some_and(|parent| [Path::new("/dev/fd"), Path::new("/proc/self/fd")].contains(&parent))
}

/// Creates or truncates the file at `path`, as a shell's `>` does. Symbolic links are not followed where another user may have made
/// them.
///
/// # Errors
/// The file cannot be opened.
pub fn create(path: &Path) -> io::Result<File> {
    options(path).write(true).create(true).truncate(true).open(path)
}

fn options(path: &Path) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(RECORDS_MODE);
    if !is_inherited(path) && !directory::is_private(path) {
        options.custom_flags(libc::O_NOFOLLOW);
    }
    options
}

/// Opens or creates the file at `path` to append to it, with the same rule for symbolic links as [`create`].
///
/// # Errors
/// The file cannot be opened.
pub fn append(path: &Path) -> io::Result<File> {
    options(path).append(true).create(true).open(path)
}

/// Reads a regular file of up to `most` bytes. Other kinds are refused, because a pipe may block and a device may be endless; only an
/// inherited descriptor may be a pipe.
///
/// # Errors
/// The file cannot be read, is longer than the limit, or is not a regular file.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_to_read(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let message = format!("it has more than {} MiB", most >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn open_to_read(path: &Path) -> io::Result<File> {
    if is_inherited(path) {
        return File::open(path);
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// [`read`] for UTF-8.
///
/// # Errors
/// The file cannot be read, is longer than the limit, or is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Options for a state file of the daemon: private, without following a symbolic link, and non-blocking.
#[must_use]
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Replaces a state file of the daemon at `path` atomically.
///
/// # Errors
/// The system refuses; the old content stays.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let written =
        private().create(true).truncate(true).open(&part).and_then(|mut file| file.write_all(content));
    if written.is_err() {
        // On a full disk the incomplete file would waste space.
        let _ = fs::remove_file(&part);
    }
    written.and_then(|()| fs::rename(part, path))
}

/// Renames a file that cannot be used, instead of deleting it, and returns the new name.
///
/// # Errors
/// The name is taken, or the system refuses.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_added_extension("unusable");
    if fs::symlink_metadata(&aside).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", aside.display())));
    }
    fs::rename(path, &aside).map(|()| aside)
}
