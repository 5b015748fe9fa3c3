//! The mappings of a process, and the mapped files. A file is used only if it is proven to be the mapped one: after an upgrade
//! another file is at the path, with its functions at other addresses.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    files::{self, FileId},
    python::Memory,
};
use crate::model::Unnamed;

/// A line of /proc/PID/maps (proc_pid_maps(5)).
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) range: Range<u64>,
    /// Offset of the mapping in the file.
    pub(super) offset: u64,
    pub(super) is_executable: bool,
    device: u64,
    inode: u64,
    /// The kernel's name: a path, `[vdso]`, or an empty text.
    name: String,
}

/// A file that is proven to be the mapped one.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) id: FileId,
}

impl Mapping {
    /// The identity of the file in /proc/PID/maps.
    pub(super) fn device_and_inode(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The path as the process sees it; `None` for anonymous memory.
    pub(super) fn file(&self) -> Option<&str> {
        let name = self.name.strip_suffix(DELETED).unwrap_or(&self.name);
        name.starts_with('/').then_some(name)
    }
}

/// Limit of bytes that are read of /proc/PID/maps: about 600,000 mappings.
const MOST_BYTES: u64 = 64 << 20;
const DELETED: &str = " (deleted)";

/// The mappings of a process.
pub(super) struct Mappings {
    directory: PathBuf,
    list: Vec<Mapping>,
    /// `None` if this process may not read the memory.
    memory: Option<File>,
}

impl Mappings {
    /// Reads the mappings of the process with this /proc directory; `None` if the process no longer exists.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(directory.join("maps")).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
        let list: Vec<Mapping> = text.lines().filter_map(mapping).collect();
        let memory = File::open(directory.join("mem")).ok();
        (!list.is_empty()).then(|| Self { directory: directory.to_owned(), list, memory })
    }

    pub(super) fn executable(&self) -> impl Iterator<Item = &Mapping> {
        self.list.iter().filter(|mapping| mapping.is_executable)
    }

    /// The mapping at this address.
    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let behind = self.list.partition_point(|mapping| mapping.range.start <= address);
        let mapping = self.list.get(behind.checked_sub(1)?)?;
        mapping.range.contains(&address).then_some(mapping)
    }

    /// Whether the process's memory has these bytes at the address.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_bytes(&self, address: u64, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        self.read(address, &mut found) && found == bytes
    }

    /// Whether the same file is mapped at both addresses.
    pub(super) fn has_same_file(&self, one: u64, other: u64) -> bool {
        let file = |address| self.find(address).filter(|mapping| mapping.file().is_some());
        let (one, other) = (file(one), file(other));
        one.zip(other).is_some_and(|(one, other)| one.device_and_inode() == other.device_and_inode())
    }

    /// Opens the mapped file: by the mapping itself if capabilities allow it; otherwise by its path, if device and inode are equal, or
    /// if file and memory have the same build id (overlayfs and btrfs show another device than stat does).
    pub(super) fn open(&self, mapping: &Mapping) -> Result<Opened, Unnamed> {
        let Range { start, end } = mapping.range;
        let link = self.directory.join(format!("map_files/{start:x}-{end:x}"));
        if let Ok((file, metadata)) = files::open_regular(&link)
                        // After a write to a file in a lower layer of overlayfs, the mapping still has the old file.
            && self.is_same_build(mapping, &file) != Some(false)
        {
            return Ok(Opened { id: files::identity(&metadata), file });
        }
        let mut why = Unnamed::Removed;
        for name in [mapping.name.as_str(), mapping.file().unwrap_or_default()] {
            let path = Path::new(name.trim_start_matches('/'));
            match files::open_below(&self.directory.join("root"), path, OFlags::empty()) {
                Ok((file, metadata)) => {
                    let is_same_inode = (metadata.dev(), metadata.ino()) == (mapping.device, mapping.inode);
                    if self.is_same_build(mapping, &file).unwrap_or(is_same_inode) {
                        return Ok(Opened { id: files::identity(&metadata), file });
                    }
                    why = Unnamed::Replaced;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && mapping.name.ends_with(DELETED) => {}
                Err(_) => why = Unnamed::Unreadable,
            }
        }
        Err(why)
    }

    /// Whether file and memory have the same build id; `None` if one of them has no build id.
    fn is_same_build(&self, mapping: &Mapping, file: &File) -> Option<bool> {
        let is_first = |other: &&Mapping| {
            other.offset == 0
                && (other.device, other.inode) == (mapping.device, mapping.inode)
                && other.name == mapping.name
        };
        let before = self.list.iter().filter(|other| other.range.start <= mapping.range.start);
        let first = before.rev().find(is_first)?;
        let mapped = files::build_id(self.memory.as_ref()?, first.range.start)?;
        Some(files::build_id(file, 0)? == mapped)
    }
}

impl Memory for Mappings {
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.read_exact_at(bytes, address).is_ok())
    }
}

/// Why mappings cannot be opened directly, which is necessary after their files are replaced or removed.
pub fn cannot_open_mappings() -> Option<String> {
    let mappings = Mappings::read(Path::new("/proc/self"))?;
    let Range { start, end } = &mappings.executable().find(|mapping| mapping.file().is_some())?.range;
    let error = File::open(format!("/proc/self/map_files/{start:x}-{end:x}")).err()?;
    Some(format!(
        "functions of files that were replaced or removed after they had been mapped have no names (/proc/PID/map_files: {error}): it needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE"
    ))
}

pub(super) fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_executable = fields.next()?.contains('x');
    let offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    let device = libc::makedev(number(major)?, number(minor)?);
    let inode = fields.next()?.parse().ok()?;
    let name = fields.next().unwrap_or_default().trim_start().to_owned();
    Some(Mapping { range: hex(start)?..hex(end)?, offset, is_executable, device, inode, name })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_of_maps() {
        let code =
            mapping("55d0c0a01000-55d0c0a02000 r-xp 00001000 08:01 1234      /usr/bin/with space (deleted)");
        let code = code.expect("a mapping");
        assert_eq!(code.range, 0x55d0_c0a0_1000..0x55d0_c0a0_2000);
        assert_eq!(
            (code.offset, code.file(), code.is_executable),
            (0x1000, Some("/usr/bin/with space"), true)
        );
        assert_eq!((code.device, code.inode), (libc::makedev(8, 1), 1234));
        let data = mapping("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ").expect("a mapping");
        assert_eq!((data.is_executable, data.file()), (false, None));
        let jit = mapping("7f0000000000-7f0000001000 rwxp 00000000 00:00 0 ").expect("a mapping");
        assert_eq!((jit.is_executable, jit.file()), (true, None));
        let vdso = mapping("7ffd1000-7ffd2000 r-xp 00000000 00:00 0  [vdso]").expect("a mapping");
        assert_eq!(vdso.file(), None);
        for broken in ["", "-", "zz-zz r-xp 0 0 0 /x", "1-2", "1-2 r-xp 0 0 0"] {
            assert!(mapping(broken).is_none(), "{broken}");
        }
    }

    /// A process's own code: the file of the test is proven to be mapped, another one at its path is not.
    #[test]
    fn only_the_mapped_file_is_opened() {
        let mappings = Mappings::read(Path::new("/proc/self")).expect("mappings");
        let here = only_the_mapped_file_is_opened as fn() as usize as u64;
        let mapping = mappings.find(here).expect("this code");
        let own = fs::metadata("/proc/self/exe").expect("exe");
        let opened = mappings.open(mapping).expect("the file");
        assert_eq!((opened.id.0, opened.id.1), (own.dev(), own.ino()));
        let another = Mapping {
            range: 1..2,
            name: "/bin/sh".into(),
            device: mapping.device,
            inode: mapping.inode,
            ..*mapping
        };
        assert_eq!(mappings.open(&another).err(), Some(Unnamed::Replaced));
        let gone = Mapping { range: 1..2, name: "/no/such/file (deleted)".into(), ..another };
        assert_eq!(mappings.open(&gone).err(), Some(Unnamed::Removed));
        let hidden = Mapping { range: 1..2, name: "/no/such/file".into(), ..gone };
        assert_eq!(mappings.open(&hidden).err(), Some(Unnamed::Unreadable));
        let device = Mapping { range: 1..2, name: "/dev/zero".into(), ..hidden };
        assert_eq!(mappings.open(&device).err(), Some(Unnamed::Unreadable));
    }
}
