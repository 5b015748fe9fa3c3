//! Resolves `--netns`: an inode number, a name of `ip netns`, or a path.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::model::NamedNetns;

/// Why an argument of `--netns` is not a network namespace.
#[derive(Debug, Error)]
pub enum NetnsError {
    #[error(
        "no network namespace '{0}': give a name of `ip netns`, a path such as /proc/PID/ns/net, or an inode number"
    )]
    NotThere(String),
    /// The path leads to another kind of file.
    #[error("{0} is not a network namespace")]
    NotNamespace(String),
    /// A namespace can never be mounted at the path.
    #[error("there cannot be a network namespace at {path}: {error}")]
    Never { path: String, error: io::Error },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Netns {
    Inode(u32),
    /// The namespace that a path leads to, now or later.
    Named(NamedNetns),
}

impl Netns {
    /// The inode of a namespace that exists now.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn find(text: &str) -> Result<u32, NetnsError> {
        match Self::follow(text)? {
            Self::Inode(inode) => Ok(inode),
            Self::Named(name) => name.now().ok_or_else(|| NetnsError::NotThere(text.into())),
        }
    }

    /// Like [`Self::find`], for commands that run for a long time: a name may be created later, and again. The namespace of a
    /// process is the one that it is in now.
    ///
    /// # Errors
    /// There can never be such a namespace.
    pub fn follow(text: &str) -> Result<Self, NetnsError> {
        if let Ok(inode) = text.parse::<u32>() {
            return Ok(Self::Inode(inode));
        }
        // Such a path can only lead to a directory, also if the directory does not exist yet.
        if matches!(text.rsplit('/').next(), None | Some("" | "." | "..")) {
            return Err(NetnsError::NotThere(text.into()));
        }
        let path = if text.contains('/') { PathBuf::from(text) } else { Path::new("/run/netns").join(text) };
        let is_process = fs::canonicalize(&path).unwrap_or_else(|_| path.clone()).starts_with("/proc");
        let shown = || path.display().to_string();
        match fs::metadata(&path) {
            // `ip netns` creates an empty file first, and then mounts the namespace on it.
            Ok(metadata) if !is_namespace(&metadata) && metadata.is_file() && !is_process => {}
            Ok(metadata) if is_other_type(&metadata) || netns_at(&path).is_none() => {
                return Err(NetnsError::NotNamespace(shown()));
            }
            Ok(_) => {}
            Err(_) if is_process => return Err(NetnsError::NotThere(text.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(NetnsError::Never { path: shown(), error }),
        }
        let now = netns_at(&path);
        match now {
            Some(inode) if is_process => Ok(Self::Inode(inode)),
            _ => Ok(Self::Named(NamedNetns::new(path, now))),
        }
    }
}

/// The inode of the network namespace that `path` leads to now.
#[must_use]
pub fn netns_at(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok().filter(is_namespace)?;
    is_netns(path).then(|| u32::try_from(metadata.ino()).ok())?
}

/// Whether the file has a type that no namespace is ever mounted on.
fn is_other_type(metadata: &fs::Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_dir() || kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device()
}

/// Whether a file is a namespace of any kind: all of them are in one file system.
fn is_namespace(metadata: &fs::Metadata) -> bool {
    fs::metadata("/proc/self/ns/net").is_ok_and(|own| own.dev() == metadata.dev())
}

fn is_netns(path: &Path) -> bool {
    /// `_IO(0xb7, 3)` (linux/nsfs.h).
    const NS_GET_NSTYPE: u64 = 0xb703;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    // SAFETY: the descriptor is open, and this request takes no argument.
    file.is_ok_and(|file| unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) } == libc::CLONE_NEWNET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_or_may_come_and_what_can_never_be() {
        let inode = fs::metadata("/proc/self/ns/net").expect("namespace").ino();
        assert!(matches!(Netns::follow("4026531840"), Ok(Netns::Inode(4_026_531_840))));
        assert!(
            matches!(Netns::follow("/proc/self/ns/net"), Ok(Netns::Inode(found)) if u64::from(found) == inode),
            "a process's one is resolved at once"
        );
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name).display().to_string();
        fs::write(at("file"), "").expect("file");
        for later in [at("later"), at("file"), "a-name-that-nobody-has-made".into()] {
            assert!(
                matches!(Netns::follow(&later), Ok(Netns::Named(name)) if name.now().is_none()),
                "{later}"
            );
            assert!(Netns::find(&later).is_err(), "{later}");
        }
        for never in [
            at("."),
            at("file/below"),
            at("later/.."),
            at("later/"),
            "..".into(),
            ".".into(),
            String::new(),
            "/proc/self/ns/uts".into(),
            "/proc/0/ns/net".into(),
        ] {
            assert!(Netns::follow(&never).is_err(), "{never}");
        }
    }
}
