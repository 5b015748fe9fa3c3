//! Small files of numbers in a spool's directory, each with its checksum: the count of each segment's records, and the
//! position up to which the oldest segment is delivered.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::files;

const EXTENSION: &str = "count";
/// The extension of the files with counts.
pub(super) const SUFFIX: &str = ".count";
/// Bytes of such a file, at most.
const MOST: u64 = 64;
/// Magic number in the count's checksum: a file of zeros has no count.
const SALT: u32 = 0x5350_4c43;

/// The count of a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// Records that were written.
    pub(super) records: u64,
    /// Of these, records that are missing and were reported.
    pub(super) reported: u64,
}

/// Creates the file for the count of the segment at `segment`, which must not exist.
pub(super) fn create(segment: &Path) -> io::Result<()> {
    files::private().create_new(true).open(name(segment)).map(drop)
}

/// Writes the count of the segment at `segment`.
pub(super) fn write(segment: &Path, count: Count, sync: bool) -> io::Result<()> {
    let file = write_numbers(&name(segment), &[count.records, count.reported])?;
    if sync { file.sync_data() } else { Ok(()) }
}

/// The count of the segment at `segment`; `None` if it is missing or damaged.
pub(super) fn read(segment: &Path) -> Option<Count> {
    let [records, reported] = numbers(&files::read(&name(segment), MOST).ok()?)?;
    Some(Count { records, reported })
}

/// Removes the count of the segment at `segment`; a file of that name that is no count stays.
pub(super) fn remove(segment: &Path) {
    let name = name(segment);
    let is_empty =
        fs::symlink_metadata(&name).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
    if is_empty || read(segment).is_some() {
        let _ = fs::remove_file(name);
    }
}

/// Writes the position up to which a segment is delivered: the segment's number, bytes and records.
pub(super) fn write_position(path: &Path, place: [u64; 3]) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok() && read_position(path).is_none() {
        // The file is damaged, or another program's.
        files::set_aside(path)?;
    }
    write_numbers(path, &place).map(drop)
}

/// The saved position; 0 records in a file of an earlier version, which did not count them.
pub(super) fn read_position(path: &Path) -> Option<[u64; 3]> {
    let bytes = files::read(path, MOST).ok()?;
    if let Some(place) = numbers(&bytes) {
        return Some(place);
    }
    let (place, sum) = bytes.split_at_checked(16)?;
    let (number, offset) = place.split_at_checked(8)?;
    let is_whole = sum == crc32fast::hash(place).to_le_bytes();
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
    is_whole.then_some([word(number)?, word(offset)?, 0])
}

pub(super) fn remove_position(path: &Path) {
    if read_position(path).is_some() {
        // If this fails, the file has the number of a segment that is gone.
        let _ = fs::remove_file(path);
    }
}

fn name(segment: &Path) -> PathBuf {
    segment.with_extension(EXTENSION)
}

/// One write of a few bytes: a crash leaves the old numbers or the new ones, or a checksum that is wrong.
fn write_numbers(path: &Path, numbers: &[u64]) -> io::Result<File> {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    bytes.extend_from_slice(&sum(&bytes));
    let file = files::private().create(true).truncate(false).open(path)?;
    file.write_all_at(&bytes, 0)?;
    // A position of an earlier version is shorter, and no file is longer than this.
    file.set_len(bytes.len() as u64)?;
    Ok(file)
}

fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, found) = bytes.split_at_checked(N * 8)?;
    if found != sum(words) {
        return None;
    }
    let mut numbers = [0; N];
    for (number, word) in numbers.iter_mut().zip(words.as_chunks().0) {
        *number = u64::from_le_bytes(*word);
    }
    Some(numbers)
}

fn sum(bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial(SALT);
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}
