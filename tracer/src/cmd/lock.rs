//! The lock that keeps a second daemon from starting. Each sockstate that traces adds its cost to every transition.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use anyhow::Result;
use rustix::fs::{FlockOperation, Mode, fchmod, flock, major, minor};

use super::{Failure, exit};
use crate::{
    cli::{DEFAULT_LOCK, KernelArgs},
    files::{self, Directory, FileError},
    kernel,
    procfs::text,
};

/// How an instance behaves if a daemon is tracing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sharing<'a> {
    /// The instance is a daemon: it takes the lock, or ends because another daemon has it.
    Daemon { lock: &'a Path },
    /// The instance attaches its own programs and a ring of this size beside the daemon's, and says so. It takes no lock: a command
    /// that a user runs must not keep the daemon from starting.
    Beside { lock: &'a Path, ring_bytes: u32 },
    /// The instance does not ask.
    Unlocked,
}

impl<'a> Sharing<'a> {
    /// Of a command that a user runs.
    pub(super) fn of(args: &'a KernelArgs) -> Self {
        if args.alongside {
            Self::Unlocked
        } else {
            Self::Beside { lock: &args.lock, ring_bytes: args.ring_size }
        }
    }
}

/// Checks the directory of the lock: where other users can replace the file, any of them could hold the lock.
///
/// # Errors
/// Other users can replace the file, or the directory is missing and not that of the default.
pub(super) fn verify(args: &KernelArgs) -> Result<(), FileError> {
    match Directory::of(&args.lock) {
        _ if args.alongside => Ok(()),
        Err(FileError::Io { source, .. }) if is_default(&args.lock) && is_missing(&source) => Ok(()),
        Err(FileError::Shared { .. }) if files::is_kept_by_sticky_bit(&args.lock) => Ok(()),
        directory => directory.map(drop),
    }
}

fn is_default(lock: &Path) -> bool {
    lock == Path::new(DEFAULT_LOCK)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Takes the lock if this kind of sharing has one; `None` if the instance runs without, also because there is no /run.
///
/// # Errors
/// This instance is a daemon, and another daemon has the lock, or the lock cannot be opened.
pub(super) fn lock(sharing: Sharing<'_>) -> Result<Option<File>, Failure> {
    match sharing {
        Sharing::Unlocked => Ok(None),
        Sharing::Daemon { lock } => try_lock(lock).map_err(|error| match error {
            LockError::Second(pid) => second(&pid),
            LockError::Denied(failure) => failure,
        }),
        Sharing::Beside { lock, ring_bytes } => {
            if let Some(pid) = holder(lock) {
                message!(
                    "a sockstate daemon (pid {pid}) is tracing; this command attaches its own programs, with a ring of {} KiB, and \
                     every transition costs twice while both run",
                    ring_bytes >> 10
                );
            }
            Ok(None)
        }
    }
}

/// Why the lock was not taken.
enum LockError {
    /// The process with this id has it.
    Second(String),
    Denied(Failure),
}

fn try_lock(path: &Path) -> Result<Option<File>, LockError> {
    let mut file = match open(path) {
        Ok(file) => file,
        // Without capabilities to trace, the later error is more useful.
        Err(_) if !kernel::may_trace() => return Ok(None),
        Err(error) if is_default(path) && error.kind() != io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(denied(path, &error)),
    };
    // Earlier versions created the file with a mode that let every user lock it.
    let _ = fchmod(&file, Mode::RUSR | Mode::WUSR);
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        // A process id has at most 20 digits. If it cannot be read, the message lacks it.
        let _ = file.take(20).read_to_string(&mut text);
        return Err(LockError::Second(holder(path).unwrap_or_else(|| text.trim().to_owned())));
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = written {
        // The lock is held nevertheless.
        message!("cannot write the process id to {}: {error}", path.display());
    }
    Ok(Some(file))
}

/// Opens the file to write, or else to read: a process that may only read it (CAP_DAC_READ_SEARCH) can lock it too.
fn open(path: &Path) -> io::Result<File> {
    files::private().read(true).create(true).truncate(false).open(path).or_else(|error| {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        file.map_err(|_| error)
    })
}

fn denied(path: &Path, error: &io::Error) -> LockError {
    if let Some(pid) = holder(path) {
        return LockError::Second(pid);
    }
    let lock = path.display();
    let message = format!(
        "cannot lock {lock}: {error}. Without the lock a second daemon may start, and every transition would cost twice: run as \
                 root, give this user the file (as root: touch {lock} if it is missing, then chown {} {lock}), name another file \
                 with `lock`, or set `alongside = true`, both in [kernel]",
        rustix::process::geteuid().as_raw()
    );
    LockError::Denied(Failure { code: exit::PRIVILEGE, message })
}

fn second(pid: &str) -> Failure {
    let message = format!(
        "another sockstate daemon (pid {pid}) is tracing, and with a second one every transition would cost twice: stop that one, \
         read its output, or set `alongside = true` in [kernel]"
    );
    Failure { code: exit::SECOND, message }
}

/// The daemon that has the default lock.
pub(super) fn daemon() -> Option<u32> {
    holder(Path::new(DEFAULT_LOCK))?.parse().ok()
}

/// The process that holds the lock, from /proc/locks, which every user may read.
fn holder(path: &Path) -> Option<String> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let device = metadata.dev();
    let file = format!("{:02x}:{:02x}:{}", major(device), minor(device), metadata.ino());
    holder_of(&file, text::lines(Path::new("/proc/locks")))
}

/// Parses `1: FLOCK  ADVISORY  WRITE 812 00:1a:1234 0 EOF`; the line of a waiting process has an arrow after the number.
fn holder_of(file: &str, mut locks: impl Iterator<Item = String>) -> Option<String> {
    locks.find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_flock = words.next() == Some("FLOCK");
        let (pid, place) = (words.nth(2)?, words.next()?);
        (is_flock && place == file).then(|| pid.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::holder_of;

    #[test]
    fn the_holder_is_who_has_the_lock_of_that_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1a:1234 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:1b:1234 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:1a:1234 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 00:1a:1234 0 EOF\n";
        let holder = |file| holder_of(file, locks.lines().map(str::to_owned));
        assert_eq!(holder("00:1a:1234").as_deref(), Some("9"));
        assert_eq!(holder("00:1a:123"), None);
    }
}
