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
use crate::{cli::KernelArgs, files, kernel, procfs::text};

/// The locked file.
pub(super) const LOCK: &str = "/run/sockstate.lock";

/// How an instance behaves if a daemon is tracing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sharing {
    /// The instance is a daemon: it takes the lock, or ends because another daemon has it.
    Daemon,
    /// The instance attaches its own programs and a ring of this size beside the daemon's, and says so. It takes no lock: a command
    /// that a user runs must not keep the daemon from starting.
    Beside { ring_bytes: u32 },
    /// The instance does not ask.
    Unlocked,
}

impl Sharing {
    /// Of a command that a user runs.
    pub(super) fn of(args: &KernelArgs) -> Self {
        if args.alongside { Self::Unlocked } else { Self::Beside { ring_bytes: args.ring_size } }
    }
}

/// Takes the lock if this kind of sharing has one; `None` if the instance runs without, also because there is no /run.
///
/// # Errors
/// This instance is a daemon, and another daemon has the lock, or the lock cannot be opened.
pub(super) fn lock(sharing: Sharing) -> Result<Option<File>, Failure> {
    match sharing {
        Sharing::Unlocked => Ok(None),
        Sharing::Daemon => try_lock().map_err(|error| match error {
            LockError::Second(pid) => second(&pid),
            LockError::Denied(failure) => failure,
        }),
        Sharing::Beside { ring_bytes } => {
            if let Some(pid) = holder(Path::new(LOCK)) {
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

fn try_lock() -> Result<Option<File>, LockError> {
    let path = Path::new(LOCK);
    let mut file = match open(path) {
        Ok(file) => file,
        // Without capabilities to trace, the later error is more useful.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && kernel::may_trace() => {
            return Err(denied(path, &error));
        }
        Err(_) => return Ok(None),
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
        message!("cannot write the process id to {LOCK}: {error}");
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
    let message = format!(
        "cannot lock {LOCK}: {error}. Without the lock a second daemon may start, and every transition would cost twice: run as \
                 root, give this user the file (as root: touch {LOCK} if it is missing, then chown {} {LOCK}), or set \
                 `alongside = true` in [kernel]",
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

/// The daemon that is tracing.
pub(super) fn daemon() -> Option<u32> {
    holder(Path::new(LOCK))?.parse().ok()
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
