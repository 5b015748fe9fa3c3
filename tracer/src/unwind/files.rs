//! Opens files that other users control: only regular files, and without blocking.

use std::{
    cell::Cell,
    fs::{File, Metadata, OpenOptions},
    io,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use object::{
    Endianness, ReadCache, ReadRef,
    elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID},
    read::elf::{FileHeader, ProgramHeader},
};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// The size limit of an executable, with its debug information.
const MOST_BYTES: u64 = 4 << 30;

/// Device, inode and time of change: the identity of a file version.
pub(super) type FileId = (u64, u64, i64, i64);

/// Opens a regular file. A FIFO or a device is not opened, because that may block or have an effect.
pub(super) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    reopen(&OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?)
}

/// Opens a regular file below another process's root directory; symbolic links do not leave it. With `O_NOFOLLOW` in `more` the
/// file itself must not be a symbolic link.
pub(super) fn open_below(root: &Path, path: &Path, more: OFlags) -> io::Result<(File, Metadata)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = openat2(&root, path, flags | more, Mode::empty(), resolve)?;
    reopen(&File::from(place))
}

/// Opens for reading the file that `place` was opened for with `O_PATH`, if it is a regular file.
fn reopen(place: &File) -> io::Result<(File, Metadata)> {
    let metadata = place.metadata()?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // O_NONBLOCK also avoids waiting for another process's lease on the file.
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Ok((file, metadata))
}

/// The identity of this version of the file.
pub(super) fn identity(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// Limit of bytes that are read from one executable: its headers may refer to the same bytes repeatedly.
const MOST_READ: u64 = 256 << 20;

/// A reader of an executable, with a cache and a limit.
pub(super) struct CachedFile {
    cache: ReadCache<File>,
    left: Cell<u64>,
}

impl CachedFile {
    /// A reader of `file`.
    pub(super) fn of(file: File) -> Self {
        Self { cache: ReadCache::new(file), left: Cell::new(MOST_READ) }
    }

    fn allow(&self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl<'a> ReadRef<'a> for &'a CachedFile {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        self.allow(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let found = self.cache.read_bytes_at_until(range, delimiter)?;
        self.allow(found.len() as u64 + 1)?;
        Ok(found)
    }
}

/// How many bytes at the beginning of an executable are searched for notes.
const BEGINNING: usize = 16 << 10;

/// The GNU build id of the executable that begins at `offset`.
pub(super) fn build_id(file: &File, offset: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; BEGINNING];
    let mut len = 0;
    // Reads until the end of the file, or of the mapping if `file` is the memory of a process.
    while let Ok(more @ 1..) = file.read_at(bytes.get_mut(len..)?, offset + len as u64) {
        len += more;
    }
    bytes.truncate(len);
    let bytes = &*bytes;
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, bytes).ok()? {
        // The notes of a segment may be beyond the bytes that were read.
        let Ok(Some(mut notes)) = segment.notes(endian, bytes) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use object::{Object, read::File as ElfFile};

    use super::*;

    fn fifo(path: &Path) {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    }

    #[test]
    fn only_regular_files_of_a_reasonable_size() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("good"), "x").expect("a file");
        fifo(&at("fifo"));
        symlink("/dev/zero", at("device")).expect("a link");
        symlink("good", at("link")).expect("a link");
        fs::create_dir(at("directory")).expect("a directory");
        File::create(at("huge")).expect("a file").set_len(MOST_BYTES + 1).expect("a hole");
        assert!(open_regular(&at("good")).is_ok() && open_regular(&at("link")).is_ok());
        for name in ["fifo", "device", "directory", "huge", "nothing"] {
            assert!(open_regular(&at(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn links_do_not_lead_out_of_a_root() {
        let directory = tempfile::tempdir().expect("directory");
        let root = directory.path().join("root");
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("private/tmp")).expect("a directory");
        fs::write(directory.path().join("secret"), "x").expect("a file");
        fs::write(at("private/tmp/good"), "x").expect("a file");
        fs::set_permissions(at("private/tmp/good"), fs::Permissions::from_mode(0o600)).expect("mode");
        symlink("/private/tmp", at("tmp")).expect("a link");
        symlink("/private/tmp/good", at("private/tmp/link")).expect("a link");
        symlink("../../../secret", at("private/tmp/relative")).expect("a link");
        symlink(directory.path(), at("private/absolute")).expect("a link");
        fifo(&at("private/tmp/fifo"));
        let opens = |name: &str| open_below(&root, Path::new(name), OFlags::NOFOLLOW).is_ok();
        assert!(opens("tmp/good"));
        assert!(open_below(&root, Path::new("tmp/link"), OFlags::empty()).is_ok());
        for name in
            ["tmp/link", "tmp/relative", "tmp/fifo", "private/absolute/secret", "../secret", "nothing"]
        {
            assert!(!opens(name), "{name}");
        }
    }

    /// The header declares 60 million sections. The file has a hole, so it seems to have room for them.
    #[test]
    fn an_executable_is_not_read_without_end() {
        let mut header = vec![0; 64];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        header[0x10] = 3;
        header[0x12] = 0x3e;
        header[0x14] = 1;
        // e_shoff, e_ehsize, e_shentsize, e_shstrndx. e_shnum is 0: then the first section has the number of sections.
        header[0x28] = 64;
        header[0x34] = 64;
        header[0x3a] = 64;
        header[0x3e] = 1;
        let mut first = vec![0; 64];
        first[0x20..0x28].copy_from_slice(&60_000_000u64.to_le_bytes());
        header.extend(first);
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(&header, 0).expect("write");
        file.set_len(MOST_BYTES).expect("a hole");
        let reader = CachedFile::of(file);
        assert!(ElfFile::parse(&reader).is_err());
        assert_eq!(reader.left.get() / (1 << 20), 255, "nothing large was read");
        let own = CachedFile::of(File::open("/proc/self/exe").expect("this program"));
        assert!(ElfFile::parse(&own).is_ok_and(|elf| elf.section_by_name(".text").is_some()));
    }
}
