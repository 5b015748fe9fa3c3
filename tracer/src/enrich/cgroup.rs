//! Paths of cgroups by id: one `open_by_handle_at` for each id, without a walk through the tree.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use rustc_hash::FxBuildHasher;
use thiserror::Error;

use crate::{model::CgroupTree, procfs::text};

/// Why a cgroup cannot be found.
#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("no cgroup v2 hierarchy is mounted")]
    NoHierarchy,
    #[error("no cgroup {path}: {source}; give its path below {mount} (see /proc/PID/cgroup)")]
    NotFound {
        path: String,
        /// Mount point of the hierarchy.
        mount: String,
        source: io::Error,
    },
}

/// A mounted cgroup v2 hierarchy.
pub struct Cgroups {
    mount: PathBuf,
    directory: File,
    paths: HashMap<u64, Option<String>, FxBuildHasher>,
}

/// Limit of cached paths; the cache is cleared when it is full.
const MAX_PATHS: usize = 16_384;

/// `struct file_handle` with the kernfs id as its handle (`FILEID_KERNFS`, fs/kernfs/mount.c).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: u64,
}

impl Cgroups {
    /// The hierarchy that `root`/proc/self/mounts names.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub fn find(root: &Path) -> Result<Self, CgroupError> {
        let is_cgroup2 = |line: &String| line.split(' ').nth(2) == Some("cgroup2");
        let mount = text::lines(&root.join("proc/self/mounts"))
            .find(is_cgroup2)
            .and_then(|line| line.split(' ').nth(1).map(|path| root.join(path.trim_start_matches('/'))))
            .ok_or(CgroupError::NoHierarchy)?;
        let directory = File::open(&mount).map_err(|_| CgroupError::NoHierarchy)?;
        Ok(Self { mount, directory, paths: HashMap::default() })
    }

    /// Path of cgroup `id` below the mount point; `None` if the cgroup no longer exists, or is outside of the mount.
    pub fn path(&mut self, id: u64) -> Option<String> {
        if let Some(path) = self.paths.get(&id) {
            return path.clone();
        }
        let path = self.resolve(id).ok();
        if self.paths.len() == MAX_PATHS {
            self.paths.clear();
        }
        self.paths.insert(id, path.clone());
        path
    }

    /// The cgroup at `path` (relative to the mount point, or with it) and all cgroups below.
    ///
    /// # Errors
    /// There is no such cgroup.
    pub fn tree(&self, path: &str) -> Result<CgroupTree, CgroupError> {
        self.find_tree(path, false)
    }

    /// Like [`Self::tree`], for a cgroup that may be created later.
    ///
    /// # Errors
    /// The path cannot be that of a cgroup.
    pub fn tree_or_future(&self, path: &str) -> Result<CgroupTree, CgroupError> {
        self.find_tree(path, true)
    }

    fn find_tree(&self, path: &str, may_come: bool) -> Result<CgroupTree, CgroupError> {
        let below = Path::new(path)
            .strip_prefix(&self.mount)
            .unwrap_or_else(|_| Path::new(path.trim_start_matches('/')));
        let found = fs::metadata(self.mount.join(below)).and_then(|metadata| {
            if metadata.is_dir() { Ok(metadata.ino()) } else { Err(io::ErrorKind::NotADirectory.into()) }
        });
        // The path of a cgroup has neither `.` nor `..`.
        let has_names = below.components().all(|part| matches!(part, Component::Normal(_)));
        let id = match found {
            Err(error) if may_come && has_names && error.kind() == io::ErrorKind::NotFound => Ok(0),
            found => found,
        };
        let id = id.map_err(|source| CgroupError::NotFound {
            path: path.to_owned(),
            mount: self.mount.display().to_string(),
            source,
        })?;
        let names: Vec<_> = below.components().map(|name| name.as_os_str().to_string_lossy()).collect();
        Ok(CgroupTree { id, path: format!("/{}", names.join("/")) })
    }

    fn resolve(&self, id: u64) -> io::Result<String> {
        let mut handle = Handle { bytes: 8, kind: 0xfe, id };
        // SAFETY: the descriptor is open and `handle` has the layout and size that its first field says.
        let fd = unsafe {
            libc::open_by_handle_at(
                self.directory.as_raw_fd(),
                (&raw mut handle).cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        // In a private cgroup namespace, other cgroups are outside of the mount and have no path here.
        let below = path.strip_prefix(&self.mount).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(format!("/{}", below.display()))
    }
}
