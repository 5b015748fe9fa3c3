//! Where the files are that belong to a directory of pins.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::Ledger;
use crate::files::runtime_directory;

/// How long the process of the sinks may still deliver after the tracer's process was killed, in which it has the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The ledger that belongs to the pins in `directory`.
///
/// # Errors
/// The ledger cannot be made.
pub fn ledger(directory: &Path) -> io::Result<Arc<Ledger>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(runtime_directory())?;
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match open(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                thread::sleep(LOCK_PAUSE);
            }
            ledger => return ledger,
        }
    }
}

fn open(directory: &Path) -> io::Result<Arc<Ledger>> {
    let path = file(directory, "ledger");
    let ledger = match first_version(directory, &path)? {
        Some(ledger) => ledger,
        None => Ledger::open(&path, &settled_apart(directory))?,
    };
    Ok(Arc::new(ledger))
}

/// The ledger of a first version, which named its files by the last part of the directory only, renamed to `path`. What is not
/// settled in it is to be reported. The saved table beside it belongs to other programs, and is removed.
fn first_version(directory: &Path, path: &Path) -> io::Result<Option<Ledger>> {
    let named = runtime_directory().join(directory.file_name().unwrap_or_default());
    let first = named.with_extension("ledger");
    let is_there = fs::symlink_metadata(&first).is_ok_and(|file| file.is_file());
    if !is_there || fs::symlink_metadata(path).is_ok() {
        return Ok(None);
    }
    // Fails where a process of that version still runs.
    let ledger = Ledger::open(&first, &settled_apart(directory))?;
    fs::rename(&first, path)?;
    remove(&named.with_extension("state"))?;
    Ok(Some(ledger))
}

/// Removes the saved state of earlier programs.
///
/// # Errors
/// The file cannot be removed.
pub fn forget_state(directory: &Path) -> io::Result<()> {
    remove(&file(directory, "state"))
}

/// Removes the saved state and both files of the ledger.
///
/// # Errors
/// A file cannot be removed.
pub fn forget(directory: &Path) -> io::Result<()> {
    forget_state(directory)?;
    remove(&file(directory, "ledger"))?;
    remove(&settled_apart(directory))
}

/// The file of what the process of the sinks has settled.
fn settled_apart(directory: &Path) -> PathBuf {
    file(directory, "settled")
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The file with this extension that belongs to `directory`. Directories that have the same name have different files.
pub(super) fn file(directory: &Path, extension: &str) -> PathBuf {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{:08x}.{extension}", crc32fast::hash(directory.as_os_str().as_bytes())));
    runtime_directory().join(name)
}
