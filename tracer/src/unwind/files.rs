//! Opening files that other users may have put there: only regular ones, and nothing that blocks.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use object::{
    Endianness,
    elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID},
    read::elf::{FileHeader, ProgramHeader},
};

/// Executables with debug information are large; what is larger than this is none.
const MOST_BYTES: u64 = 4 << 30;

/// Device, inode and time of change: what is at a path may be another file tomorrow.
pub(super) type FileId = (u64, u64, i64, i64);

/// Opens a regular file. A FIFO or a device is not even opened: that might block, or do something.
pub(super) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
    let metadata = place.metadata()?;
    if !metadata.is_file() || metadata.len() > MOST_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A lease of another process on the file does not hold us up either.
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(again)?;
    Ok((file, metadata))
}

/// Names this version of the file.
pub(super) fn identity(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

/// Where the notes of an executable are, with room to spare.
const BEGINNING: usize = 16 << 10;

/// The GNU build id of the executable whose first bytes are found at `offset`, as far as they can be read.
pub(super) fn build_id(file: &File, offset: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; BEGINNING];
    let mut len = 0;
    // Memory ends at the mapping, a file at its end.
    while let Ok(more @ 1..) = file.read_at(bytes.get_mut(len..)?, offset + len as u64) {
        len += more;
    }
    bytes.truncate(len);
    let bytes = &*bytes;
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, bytes).ok()? {
        // Its notes may lie behind what was read.
        let Ok(Some(mut notes)) = segment.notes(endian, bytes) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                return Some(note.desc().to_vec());
            }
        }
    }
    None
}
