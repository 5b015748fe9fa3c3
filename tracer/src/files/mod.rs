//! Files that a root daemon writes: opened so that no other user can turn a write into another file.

mod directory;
mod identity;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use directory::{Directory, can_make};
pub use identity::Identity;

/// Mode of files with records: they name processes and peers.
pub const RECORDS_MODE: u32 = 0o640;

/// Longer than any configuration, certificate or secret.
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
    #[error("{path} is not a regular file: it cannot be rotated, and records cannot be taken back from it")]
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

/// The file that the key `key` names, for messages. What is no absolute path may be the secret itself, put there by mistake, and is not
/// shown.
#[must_use]
pub fn shown(key: &str, path: &Path) -> String {
    if path.is_absolute() { path.display().to_string() } else { format!("the file that '{key}' names") }
}

/// Whether `path` names a descriptor that this process was given: who gave it has chosen the file.
#[must_use]
pub fn is_inherited(path: &Path) -> bool {
    let is_standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name));
    is_standard
        || path
            .parent()
            .is_some_and(|parent| [Path::new("/dev/fd"), Path::new("/proc/self/fd")].contains(&parent))
}

/// Makes the file at `path`, or empties it, for a command whose user has named it, as a shell's `>` does. A symbolic link that another
/// user may have put there is not followed.
///
/// # Errors
/// It cannot be opened.
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

/// Opens the file at `path` to write at its end, as [`create`] does; makes it where it is missing.
///
/// # Errors
/// It cannot be opened.
pub fn append(path: &Path) -> io::Result<File> {
    options(path).append(true).create(true).open(path)
}

/// Reads a regular file of no more than `most` bytes. What is at its path may be a pipe that nobody writes to, a device, or a file with
/// holes of any size. Only of a descriptor that this process was given a pipe is read, too.
///
/// # Errors
/// It cannot be read, is longer, or is not a regular file.
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

/// The same for a text.
///
/// # Errors
/// It cannot be read, is longer, or is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Options for a file of the daemon's own state: nobody else may open it, a symbolic link is not followed, and a pipe blocks nothing.
#[must_use]
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

/// Replaces the daemon's own file at `path`: a reader sees all of the old content, or all of the new.
///
/// # Errors
/// The system refuses; the old content stays.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let written =
        private().create(true).truncate(true).open(&part).and_then(|mut file| file.write_all(content));
    if written.is_err() {
        // Where there is no room, a part would only take more of it.
        let _ = fs::remove_file(&part);
    }
    written.and_then(|()| fs::rename(part, path))
}

/// Gives a file that cannot be used another name, and returns that: what the file holds is not deleted.
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
