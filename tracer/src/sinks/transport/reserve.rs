//! Reserves disk blocks of a file in advance; otherwise the kernel reserves one block for each new page that is
//! written.

use std::fs::File;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};

/// Bytes that are reserved at once.
const STEP: u64 = 8 << 20;
/// Before shorter writes nothing is reserved: there is little traffic.
const LARGE: usize = 64 << 10;

/// The end of the reserved blocks.
#[derive(Default)]
pub(super) struct Reserve {
    end: u64,
    refused: bool,
}

impl Reserve {
    /// Must be called before `len` bytes are written at `at`. Reserves nothing if the file system cannot, or if the
    /// disk is nearly full.
    pub(super) fn before(&mut self, file: &File, at: u64, len: usize) {
        let behind = at + len as u64;
        if len < LARGE || behind <= self.end || self.refused {
            return;
        }
        let from = at.max(self.end);
        // The file's size stays, so that readers see only what was written.
        match fallocate(file, FallocateFlags::KEEP_SIZE, from, behind - from + STEP) {
            Ok(()) => self.end = behind + STEP,
            Err(_) => self.refused = true,
        }
    }

    /// Releases the blocks that were not needed.
    pub(super) fn give_back(&mut self, file: &File) {
        if std::mem::take(&mut self.end) > 0
            && let Ok(metadata) = file.metadata()
        {
            // If this fails, the file occupies some more megabytes until it is removed.
            let _ = ftruncate(file, metadata.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let mut file = tempfile::tempfile().expect("file");
        let taken = |file: &File| {
            let metadata = file.metadata().expect("metadata");
            (metadata.len(), metadata.blocks() * 512)
        };
        let mut reserve = Reserve::default();
        reserve.before(&file, 0, LARGE - 1);
        assert_eq!(taken(&file), (0, 0), "little needs none");
        let block = vec![b'x'; LARGE];
        for nth in 0..2 * STEP / LARGE as u64 {
            reserve.before(&file, nth * LARGE as u64, LARGE);
            file.write_all(&block).expect("write");
            assert!(taken(&file).1 >= (nth + 1) * LARGE as u64);
        }
        let (len, room) = taken(&file);
        assert_eq!(len, 2 * STEP);
        assert!(room > len, "{room}");
        reserve.give_back(&file);
        let (len, room) = taken(&file);
        assert_eq!(len, 2 * STEP);
        assert!(room < len + STEP / 8, "{room}");
    }
}
