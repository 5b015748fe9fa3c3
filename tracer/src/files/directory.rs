//! A directory in which only root and the user that runs sockstate can put files.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, Mode, OFlags, RenameFlags, accessat, openat, renameat_with},
    io::Errno,
    process::{getegid, geteuid},
};

use super::{FileError, RECORDS_MODE};

/// The kernel's MAXSYMLINKS.
const MAX_LINKS: usize = 40;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;

/// An open directory. Names are resolved relative to it, because its path may change.
pub struct Directory {
    file: File,
    /// The path without symbolic links.
    path: PathBuf,
}

impl Directory {
    /// The directory of the file `path`, and the file's name.
    ///
    /// # Errors
    /// Another user can write to it, or can replace one of the directories above it.
    pub fn of(path: &Path) -> Result<(Self, OsString), FileError> {
        let name = path.file_name().ok_or_else(|| FileError::NoName { path: path.to_owned() })?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok((Self::open(parent)?, name.to_owned()))
    }

    /// # Errors
    /// Another user can write to it, or can replace one of the directories above it.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let path = resolve(path)?;
        let failed = |source| FileError::Io { path: path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(error.into()))?);
        if let Some(why) = shared(&file.metadata().map_err(failed)?) {
            return Err(FileError::Shared { path, why });
        }
        Ok(Self { file, path })
    }

    /// The path of the file `name`, without symbolic links.
    #[must_use]
    pub fn join(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// Opens `name` to append to it, or creates it. Returns whether it was created. A pipe without a reader is an error (ENXIO), and
    /// does not block.
    ///
    /// # Errors
    /// The file is a symbolic link or a directory, or the system refuses.
    pub fn append(&self, name: &OsStr) -> Result<(File, bool), FileError> {
        let flags = OFlags::RDWR | OFlags::APPEND;
        match self.open_at(name, flags | OFlags::CREATE | OFlags::EXCL) {
            Ok(file) => return Ok((file, true)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(self.failed(name, error)),
        }
        let is_pipe = fs::symlink_metadata(self.join(name))
            .is_ok_and(|metadata| std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type()));
        // The file is opened for writing only: a pipe that is also open for reading would be its own reader.
        let flags = if is_pipe { OFlags::WRONLY | OFlags::APPEND } else { flags };
        let file = self.open_at(name, flags).map_err(|error| self.failed(name, error))?;
        Ok((file, false))
    }

    /// Checks whether [`Directory::append`] would succeed, without creating the file. A pipe is not opened, because its reader would
    /// see the close.
    ///
    /// # Errors
    /// The file is a symbolic link or a directory, or the system refuses.
    pub fn can_append(&self, name: &OsStr) -> Result<(), FileError> {
        let path = self.join(name);
        let failed = |error| self.failed(name, error);
        match fs::symlink_metadata(&path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_file() => {
                self.open_at(name, OFlags::RDWR | OFlags::APPEND).map(drop).map_err(failed)
            }
            Ok(kind) if kind.is_symlink() => Err(failed(Errno::LOOP)),
            Ok(kind) if kind.is_dir() => Err(failed(Errno::ISDIR)),
            Ok(_) => accessat(&self.file, name, Access::WRITE_OK, AtFlags::EACCESS).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                accessat(&self.file, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                    .map_err(failed)
            }
            Err(source) => Err(FileError::Io { path, source }),
        }
    }

    /// Creates `name`, which must not exist, for writing.
    ///
    /// # Errors
    /// The file exists, or the system refuses.
    pub fn create_new(&self, name: &OsStr) -> Result<File, FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.open_at(name, flags).map_err(|error| self.failed(name, error))
    }

    /// Renames `from` to `to`, which must not exist.
    ///
    /// # Errors
    /// The file exists, or the system refuses.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        match renameat_with(&self.file, from, &self.file, to, RenameFlags::NOREPLACE) {
            // File systems without RENAME_NOREPLACE.
            Err(Errno::INVAL) if fs::symlink_metadata(self.join(to)).is_err() => {
                fs::rename(self.join(from), self.join(to))
            }
            result => Ok(result?),
        }
    }

    fn open_at(&self, name: &OsStr, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        openat(&self.file, name, flags, Mode::from_bits_truncate(RECORDS_MODE)).map(File::from)
    }

    fn failed(&self, name: &OsStr, error: Errno) -> FileError {
        let path = self.join(name);
        match error {
            Errno::LOOP => FileError::Link { path },
            Errno::ISDIR => FileError::Kind { path },
            error => FileError::Io { path, source: error.into() },
        }
    }
}

/// Whether the directory `path` is usable and writable, or can be created. Creates nothing.
///
/// # Errors
/// Another user can write to it, or can replace one of the directories above it, or the system refuses.
pub fn can_make(path: &Path) -> Result<(), FileError> {
    let failed = |path: &Path, error: Errno| FileError::Io { path: path.to_owned(), source: error.into() };
    let writable = |path: &Path| {
        accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|error| failed(path, error))
    };
    if fs::symlink_metadata(path).is_ok() {
        Directory::open(path)?;
        return writable(path);
    }
    let absolute =
        std::path::absolute(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    let existing = absolute.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok());
    let existing = resolve(existing.unwrap_or(Path::new("/")))?;
    let metadata =
        fs::metadata(&existing).map_err(|source| FileError::Io { path: existing.clone(), source })?;
    if !metadata.is_dir() {
        return Err(failed(&existing, Errno::NOTDIR));
    }
    if let Some(why) = replaceable(&metadata) {
        return Err(FileError::Shared { path: existing, why });
    }
    writable(&existing)
}

/// Whether only root and this process's user can create a file at `path`.
pub(super) fn is_private(path: &Path) -> bool {
    Directory::of(path).is_ok()
}

/// Whether no other user can replace the file `path` although other users can write to its directory: the directory has the sticky
/// bit, as the /run of some containers, and the file is missing or belongs to root or to this process's user.
pub fn is_kept_by_sticky_bit(path: &Path) -> bool {
    let parent =
        path.parent().and_then(|parent| resolve(parent).ok()).and_then(|parent| fs::metadata(parent).ok());
    let is_sticky = parent.is_some_and(|parent| parent.is_dir() && replaceable(&parent).is_none());
    is_sticky
        && match fs::symlink_metadata(path) {
            Ok(file) => file.is_file() && is_trusted(file.uid()),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
}

/// `path` without symbolic links. Each directory on the way belongs to root or to this process's user, and no other user can replace
/// what is in it.
fn resolve(path: &Path) -> Result<PathBuf, FileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError::Io { path, source }
    };
    let absolute = std::path::absolute(path).map_err(failed(path))?;
    let mut rest: VecDeque<OsString> = names(&absolute);
    let (mut now, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = rest.pop_front() {
        let metadata = fs::symlink_metadata(&now).map_err(failed(&now))?;
        if let Some(why) = replaceable(&metadata) {
            return Err(FileError::Shared { path: now, why });
        }
        if name == ".." {
            now.pop();
            continue;
        }
        let next = now.join(name);
        let metadata = fs::symlink_metadata(&next).map_err(failed(&next))?;
        if !metadata.is_symlink() {
            now = next;
            continue;
        }
        links += 1;
        if !is_trusted(metadata.uid()) || links > MAX_LINKS {
            return Err(FileError::Link { path: next });
        }
        let target = fs::read_link(&next).map_err(failed(&next))?;
        if target.is_absolute() {
            now = PathBuf::from("/");
        }
        names(&target).into_iter().rev().for_each(|name| rest.push_front(name));
    }
    Ok(now)
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

/// Why another user can replace an entry of this parent directory, if so. In a sticky directory only the entry's owner can. A group
/// with write permission is trusted (/var/log belongs to syslog on some systems).
fn replaceable(metadata: &Metadata) -> Option<String> {
    let mode = metadata.permissions().mode();
    match mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        true => Some(format!("mode {:04o}", mode & 0o7777)),
        false => foreign_owner(metadata),
    }
}

/// Why another user can write to the directory itself, if so.
fn shared(metadata: &Metadata) -> Option<String> {
    let mode = metadata.permissions().mode();
    let group = metadata.gid();
    if mode & OTHERS_WRITE != 0 {
        return Some(format!("mode {:04o}", mode & 0o7777));
    }
    if mode & GROUP_WRITES != 0 && group != 0 && group != getegid().as_raw() {
        return Some(format!("mode {:04o}, group {group}", mode & 0o7777));
    }
    foreign_owner(metadata)
}

fn foreign_owner(metadata: &Metadata) -> Option<String> {
    let owner = metadata.uid();
    (!is_trusted(owner)).then(|| format!("owner {owner}"))
}

/// Root, this process's user, and the owner of `/`, which is another number in a user namespace.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == geteuid().as_raw() || fs::metadata("/").is_ok_and(|root| root.uid() == owner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    #[test]
    fn a_sticky_directory_keeps_a_file_of_ones_own() {
        let root = tempfile::tempdir().expect("directory");
        let (shared, file) = (root.path().join("shared"), root.path().join("shared/file"));
        fs::create_dir(&shared).expect("mkdir");
        mode(&shared, 0o1777);
        assert!(is_kept_by_sticky_bit(&file), "missing");
        fs::write(&file, "").expect("file");
        assert!(is_kept_by_sticky_bit(&file), "own");
        mode(&shared, 0o777);
        assert!(!is_kept_by_sticky_bit(&file), "not sticky");
        mode(&shared, 0o1777);
        if geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(12_345), None).expect("chown");
            assert!(!is_kept_by_sticky_bit(&file), "another's");
        }
        fs::remove_file(&file).expect("rm");
        symlink("/etc/passwd", &file).expect("link");
        assert!(!is_kept_by_sticky_bit(&file), "link");
    }

    #[test]
    fn only_a_directory_of_ones_own_is_used() {
        let root = tempfile::tempdir().expect("directory");
        let own = root.path().join("own");
        fs::create_dir(&own).expect("mkdir");
        mode(&own, 0o755);
        assert!(Directory::open(&own).is_ok());
        for bad in [0o757, 0o1777, 0o777] {
            mode(&own, bad);
            let shared = Directory::open(&own);
            assert!(matches!(shared, Err(FileError::Shared { .. })), "{bad:o}");
            let below = own.join("below");
            fs::create_dir(&below).expect("mkdir");
            // In a sticky directory, only the owner of an entry can replace it.
            assert_eq!(Directory::open(&below).is_ok(), bad == 0o1777, "{bad:o}");
            fs::remove_dir(below).expect("rmdir");
        }
        mode(&own, 0o755);
        if geteuid().is_root() {
            std::os::unix::fs::chown(&own, Some(12_345), None).expect("chown");
            assert!(matches!(Directory::open(&own), Err(FileError::Shared { .. })), "another's");
            std::os::unix::fs::chown(&own, Some(0), Some(12_345)).expect("chown");
            assert!(Directory::open(&own).is_ok(), "a group that cannot write");
            mode(&own, 0o775);
            assert!(matches!(Directory::open(&own), Err(FileError::Shared { .. })), "a group that can write");
        }
    }

    #[test]
    fn links_on_the_way_are_followed_and_the_last_one_is_not() {
        let root = tempfile::tempdir().expect("directory");
        let (own, link) = (root.path().join("own"), root.path().join("link"));
        fs::create_dir(&own).expect("mkdir");
        symlink("own/../own", &link).expect("symlink");
        let (directory, name) = Directory::of(&link.join("file")).expect("directory");
        assert_eq!(directory.join(&name), fs::canonicalize(&own).expect("path").join("file"));
        let (_, created) = directory.append(&name).expect("file");
        assert!(created && !directory.append(&name).expect("file").1);
        assert!(matches!(directory.create_new(&name), Err(FileError::Io { .. })));
        symlink("file", own.join("alias")).expect("symlink");
        symlink("loop", own.join("loop")).expect("symlink");
        assert!(matches!(directory.append("alias".as_ref()), Err(FileError::Link { .. })));
        assert!(Directory::open(&own.join("loop")).is_err());
        assert!(directory.rename("file".as_ref(), "alias".as_ref()).is_err());
        assert!(directory.rename("file".as_ref(), "other".as_ref()).is_ok());
    }

    #[test]
    fn what_could_be_written_is_known_without_making_it() {
        let root = tempfile::tempdir().expect("directory");
        let directory = Directory::open(root.path()).expect("directory");
        fs::write(root.path().join("file"), "records").expect("file");
        fs::create_dir(root.path().join("below")).expect("mkdir");
        symlink("file", root.path().join("link")).expect("symlink");
        assert!(directory.can_append("file".as_ref()).is_ok());
        assert!(directory.can_append("new".as_ref()).is_ok());
        assert!(matches!(directory.can_append("link".as_ref()), Err(FileError::Link { .. })));
        assert!(matches!(directory.can_append("below".as_ref()), Err(FileError::Kind { .. })));
        for (path, is_usable) in
            [("below", true), ("new", true), ("new/er", true), ("file", false), ("file/new", false)]
        {
            assert_eq!(can_make(&root.path().join(path)).is_ok(), is_usable, "{path}");
        }
        mode(&root.path().join("below"), 0o777);
        assert!(matches!(can_make(&root.path().join("below")), Err(FileError::Shared { .. })));
        assert!(matches!(can_make(&root.path().join("below/new")), Err(FileError::Shared { .. })));
        // A new entry of a sticky directory belongs to the user that creates it.
        mode(&root.path().join("below"), 0o1777);
        assert!(can_make(&root.path().join("below/new")).is_ok());
        assert_eq!(fs::read_dir(root.path()).expect("directory").count(), 3);
        assert_eq!(fs::read(root.path().join("file")).expect("file"), b"records");
    }

    #[test]
    fn a_pipe_without_a_reader_does_not_block() {
        let root = tempfile::tempdir().expect("directory");
        let directory = Directory::open(root.path()).expect("directory");
        rustix::fs::mknodat(
            &directory.file,
            "pipe",
            rustix::fs::FileType::Fifo,
            Mode::from_bits_truncate(0o600),
            0,
        )
        .expect("mkfifo");
        let error = io::Error::from(directory.append("pipe".as_ref()).expect_err("nobody reads"));
        assert!(error.to_string().contains("No such device or address"), "{error}");
    }
}
