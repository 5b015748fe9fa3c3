//! Records on disk that wait for a collector: segments of entries, each with its checksum, read in the order in which
//! they were written.
//!
//! A segment is [`MAGIC`] and entries ([`entry`]). A byte that a crash, a power loss or a bad disk left wrong costs
//! only the entry that it is in: the next entry is found by its magic number and its checksum. Beside each segment a
//! file has the number of its records ([`counts`]), and each entry says how many records its run had written before:
//! so the number of missing records is known, wherever the damage is.

mod counts;
mod entry;

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    fs::{self, DirEntry, File, OpenOptions},
    io::{self, Read as _, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use self::{
    counts::Count,
    entry::{Entry, encode, length, next_entry},
};
use super::Batch;
use crate::files::{self, Directory};

/// The file with the position up to which the oldest segment is delivered.
const POSITION_FILE: &str = "delivered";
const SUFFIX: &str = ".spool";
const MAGIC: &[u8; 8] = b"SOCKSPL1";
/// The number of the first segment. Lower numbers are for records that must be delivered first ([`Spool::push_front`]).
const FIRST: u64 = 1 << 32;
/// A segment is closed when it holds this much, or an eighth of the limit.
const SEGMENT: u64 = 8 << 20;

/// A longer file is no segment: the last entry of a segment begins before [`SEGMENT`] is exceeded, and
/// [`Spool::append`] refuses an entry that would exceed this limit.
const LONGEST: u64 = 1 << 30;

/// Why the spool cannot be used.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The directory cannot be used.
    #[error(
        "cannot use the spool {path}: {source}; it must be a directory that only root, or the user that runs sockstate, may write to"
    )]
    Directory { path: String, source: io::Error },
    /// Another process uses the spool.
    #[error("cannot use the spool {path}: another sockstate does")]
    Locked { path: String },
    /// The spool has reached the limit of the configuration.
    #[error("the spool {path} is full ({limit} bytes)")]
    Full {
        path: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk has failed.
    #[error("cannot write to the spool {path}: {source}")]
    Write { path: String, source: io::Error },
}

struct Segment {
    number: u64,
    len: u64,
    /// `None` if the file of the count is missing or damaged.
    count: Option<Count>,
}

/// A position in the oldest segment.
#[derive(Clone, Copy, Default)]
struct Position {
    /// Bytes before it.
    offset: u64,
    /// Records before it.
    records: u64,
    /// Records that are missing before it, by the numbers in the entries.
    gaps: u64,
}

/// The directory of one sink.
pub struct Spool {
    path: PathBuf,
    limit: u64,
    sync: bool,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The newest segment, if this run writes it.
    tail: Option<File>,
    /// The number and the bytes of the oldest segment while it is read.
    head: Option<(u64, Vec<u8>)>,
    /// The end of what is delivered.
    delivered: Position,
    /// The end of what was read last, which may not be delivered yet.
    read: Position,
    /// Identifies the entries of this run.
    run: u64,
    /// Records that this run has written.
    written: u64,
    /// The run that the next entry should have, and the number of records that it should have before it.
    expected: Option<(u64, u64)>,
    /// The same for the entry after what is delivered.
    expected_undelivered: Option<(u64, u64)>,
    /// The lock of the directory.
    _lock: File,
}

/// The result of [`Spool::read`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Records.
    pub batch: Batch,
    /// Records that are missing before them or between them.
    pub missing: u64,
}

impl Spool {
    /// Opens the directory with the records that an earlier run has left. It holds up to `limit` bytes. With `sync`,
    /// each entry is on the disk when [`Spool::append`] returns.
    ///
    /// # Errors
    /// The directory cannot be created, read or locked.
    pub fn open(path: &Path, limit: u64, sync: bool) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Directory { path: path.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let directory = Directory::open(path).map_err(|error| failed(error.into()))?;
        let lock = File::open(path).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(SpoolError::Locked { path: path.display().to_string() });
        }
        // If nothing can be written to the directory, the sink must not start.
        let probe = OsString::from(format!("probe-{}", std::process::id()));
        directory.create_new(&probe).map_err(|error| failed(error.into()))?;
        fs::remove_file(directory.join(&probe)).map_err(failed)?;
        let segments = find_segments(path).map_err(failed)?;
        let mut spool = Self {
            path: path.to_owned(),
            limit,
            sync,
            segments,
            tail: None,
            head: None,
            delivered: Position::default(),
            read: Position::default(),
            run: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
            written: 0,
            expected: None,
            expected_undelivered: None,
            _lock: lock,
        };
        spool.delivered = spool.saved_position();
        spool.read = spool.delivered;
        Ok(spool)
    }

    /// Bytes on disk that are not delivered.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum::<u64>().saturating_sub(self.delivered.offset)
    }

    /// Whether everything is delivered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Writes `batch` after all other records.
    ///
    /// # Errors
    /// The spool is full, or the disk fails; then no part of `batch` stays in the spool.
    pub fn append(&mut self, batch: &Batch) -> Result<(), SpoolError> {
        if length(batch) as u64 > LONGEST - SEGMENT {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, "too many records at once");
            return Err(SpoolError::Write { path: self.name(), source });
        }
        let entry = encode(self.run, self.written, batch);
        let used: u64 = self.segments.iter().map(|segment| segment.len).sum();
        if used + entry.len() as u64 > self.limit {
            return Err(SpoolError::Full { path: self.name(), limit: self.limit });
        }
        let result = self.write_tail(&entry, batch.len() as u64);
        result.map_err(|source| SpoolError::Write { path: self.name(), source })?;
        self.written += batch.len() as u64;
        Ok(())
    }

    /// Writes `batch` before all other records.
    ///
    /// # Errors
    /// The disk fails.
    pub fn push_front(&mut self, batch: &Batch) -> Result<(), SpoolError> {
        let failed = |source| SpoolError::Write { path: self.path.display().to_string(), source };
        let before = self.segments.front().map_or(FIRST, |segment| segment.number);
        let (number, mut file) = self.create((0..before).rev()).map_err(failed)?;
        let bytes = [&MAGIC[..], &encode(0, 0, batch)].concat();
        let count = Count { records: batch.len() as u64, reported: 0 };
        let written = file
            .write_all(&bytes)
            .and_then(|()| counts::write(&self.file_name(number), count, self.sync))
            .and_then(|()| if self.sync { file.sync_data() } else { Ok(()) });
        if let Err(source) = written {
            self.remove(number);
            return Err(failed(source));
        }
        self.segments.push_front(Segment { number, len: bytes.len() as u64, count: Some(count) });
        self.rewind();
        Ok(())
    }

    /// Reads about `most` bytes, starting after the last record that is delivered.
    ///
    /// # Errors
    /// A segment cannot be read. It stays, and can be tried again.
    pub fn read(&mut self, most: usize) -> io::Result<Read> {
        let mut read = Read::default();
        self.read = self.delivered;
        while let Some(front) = self.segments.front() {
            let (number, len, count) = (front.number, front.len, front.count);
            let is_read = self
                .head
                .as_ref()
                .is_some_and(|(known, bytes)| *known == number && bytes.len() as u64 >= len);
            if !is_read {
                let bytes = match files::read(&self.file_name(number), LONGEST) {
                    // The file with the count of this segment has the number of missing records.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                    bytes => bytes?,
                };
                self.head = Some((number, bytes));
            }
            let Some((_, bytes)) = &self.head else { break };
            let at = (self.read.offset as usize).max(MAGIC.len());
            match next_entry(bytes, at) {
                Some(Entry { run, before, batch, end }) => {
                    if !read.batch.is_empty() && read.batch.bytes.len() + batch.bytes.len() > most {
                        return Ok(read);
                    }
                    let expected = self.expected.filter(|(expected, _)| *expected == run);
                    let missing = expected.map_or(0, |(_, expected)| before.saturating_sub(expected));
                    if count.is_some() {
                        // The count of the segment shows at its end which of them were in this segment.
                        self.read.gaps += missing;
                    } else {
                        read.missing += missing;
                    }
                    self.expected = Some((run, before + batch.len() as u64));
                    self.read.records += batch.len() as u64;
                    read.batch.append(batch);
                    self.read.offset = end as u64;
                }
                None => {
                    read.missing += self.end_segment(count);
                    // The segment is removed when these records are delivered.
                    if !read.batch.is_empty() {
                        self.read.offset = len;
                        return Ok(read);
                    }
                    self.drop_front();
                }
            }
        }
        Ok(read)
    }

    /// The oldest segment is read to its end. Returns how many of its records are missing and were not reported before.
    fn end_segment(&mut self, count: Option<Count>) -> u64 {
        let Some(count) = count else { return 0 };
        let missing = count.records.saturating_sub(self.read.records);
        let gaps = std::mem::take(&mut self.read.gaps);
        // These were in whole segments before this one.
        let vanished = gaps.saturating_sub(missing);
        // The next segment's first entry counts what is missing at the end, too.
        let unexplained = missing.saturating_sub(gaps);
        if let Some((_, expected)) = &mut self.expected {
            *expected += unexplained;
        }
        if missing > count.reported {
            let count = Count { reported: missing, ..count };
            let name = self.segments.front().map(|front| self.file_name(front.number));
            // If this write fails, the next process reports them again.
            let _ = name.map(|name| counts::write(&name, count, self.sync));
            if let Some(front) = self.segments.front_mut() {
                front.count = Some(count);
            }
        }
        vanished + missing.saturating_sub(count.reported)
    }

    /// Gives up the oldest segment, which cannot be read, and renames its file. Returns how many records are lost;
    /// `None` if this is not known.
    pub fn give_up(&mut self) -> Option<u64> {
        let front = self.segments.front()?;
        let missing =
            front.count.map(|count| count.records.saturating_sub(self.delivered.records + count.reported));
        if let Some((run, written)) = self.expected_undelivered
            && let Some(count) = front.count
        {
            // The next segment's first entry counts them, too.
            self.expected = Some((run, written + count.records.saturating_sub(self.delivered.records)));
        }
        set_aside(&self.file_name(front.number));
        self.drop_front();
        missing
    }

    /// The records that were read last are delivered.
    pub fn delivered(&mut self) {
        self.delivered = self.read;
        self.expected_undelivered = self.expected;
        let Some(front) = self.segments.front() else { return };
        if self.delivered.offset >= front.len {
            return self.drop_front();
        }
        // If this write fails, the next process delivers the records again.
        let _ = counts::write_position(
            &self.path.join(POSITION_FILE),
            [front.number, self.delivered.offset, self.delivered.records],
        );
    }

    /// The saved position up to which the oldest segment is delivered.
    fn saved_position(&self) -> Position {
        match (counts::read_position(&self.path.join(POSITION_FILE)), self.segments.front()) {
            // A segment that is truncated or gone may end before it.
            (Some([number, offset, records]), Some(front)) if front.number == number => {
                Position { offset: offset.min(front.len), records, gaps: 0 }
            }
            _ => Position::default(),
        }
    }

    fn write_tail(&mut self, entry: &[u8], records: u64) -> io::Result<()> {
        let most = SEGMENT.min(self.limit / 8);
        let is_full = self.segments.back().is_none_or(|segment| segment.len > most);
        if is_full || self.tail.is_none() {
            let next = self.segments.back().map_or(FIRST, |segment| segment.number.saturating_add(1));
            let (number, mut file) = self.create(next..=u64::MAX)?;
            if let Err(error) = file.write_all(MAGIC) {
                self.remove(number);
                return Err(error);
            }
            self.segments.push_back(Segment {
                number,
                len: MAGIC.len() as u64,
                count: Some(Count::default()),
            });
            self.tail = Some(file);
        }
        let name = self.segments.back().map(|segment| self.file_name(segment.number)).unwrap_or_default();
        let (Some(file), Some(segment)) = (&mut self.tail, self.segments.back_mut()) else { return Ok(()) };
        let before = segment.count.unwrap_or_default();
        let count = Count { records: before.records + records, ..before };
        let written = file
            .write_all(entry)
            .and_then(|()| counts::write(&name, count, self.sync))
            .and_then(|()| if self.sync { file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // Remove the part of the entry that was written.
            let _ = file.set_len(segment.len);
            let _ = counts::write(&name, before, self.sync);
        } else {
            segment.len += entry.len() as u64;
            segment.count = Some(count);
        }
        written
    }

    /// Creates the first segment of `numbers` whose names are free, and its count. A file that has such a name
    /// already is another program's.
    fn create(&self, numbers: impl Iterator<Item = u64>) -> io::Result<(u64, File)> {
        for number in numbers {
            let name = self.file_name(number);
            match counts::create(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result?,
            }
            let created = OpenOptions::new().append(true).create_new(true).mode(0o600).open(name);
            match created {
                Ok(file) if self.sync => {
                    // The directory entry must be on the disk, too.
                    File::open(&self.path)?.sync_all()?;
                    return Ok((number, file));
                }
                Ok(file) => return Ok((number, file)),
                Err(error) => {
                    counts::remove(&self.file_name(number));
                    if error.kind() != io::ErrorKind::AlreadyExists {
                        return Err(error);
                    }
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "all names of segments are taken"))
    }

    fn drop_front(&mut self) {
        self.expected_undelivered = self.expected;
        if let Some(front) = self.segments.pop_front() {
            self.remove(front.number);
        }
        if self.segments.is_empty() {
            self.tail = None;
        }
        // Another segment may get the same number.
        counts::remove_position(&self.path.join(POSITION_FILE));
        self.rewind();
    }

    /// Moves both positions to the beginning of the oldest segment.
    fn rewind(&mut self) {
        self.head = None;
        (self.delivered, self.read) = (Position::default(), Position::default());
    }

    /// Removes a segment. Its count is removed first: a count without a segment would be reported as lost records. A
    /// segment that cannot be removed is delivered again.
    fn remove(&self, number: u64) {
        let name = self.file_name(number);
        counts::remove(&name);
        let _ = fs::remove_file(&name);
    }

    fn file_name(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016x}{SUFFIX}"))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// The segments in `directory`, oldest first. A count without a usable file gives an empty segment.
fn find_segments(directory: &Path) -> io::Result<VecDeque<Segment>> {
    let (mut segments, mut counts_of) = (BTreeMap::new(), BTreeMap::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if let Some(number) = number(&name, counts::SUFFIX) {
            if entry.file_type()?.is_file()
                && let Some(count) = counts::read(&path)
            {
                counts_of.insert(number, count);
            }
        } else if let Some(number) = number(&name, SUFFIX) {
            if is_own(&entry)? {
                segments.insert(number, Segment { number, len: entry.metadata()?.len(), count: None });
            } else {
                set_aside(&path);
            }
        }
    }
    for (number, count) in counts_of {
        let segment = segments.entry(number).or_insert(Segment { number, len: 0, count: None });
        segment.count = Some(count);
    }
    Ok(segments.into_values().collect())
}

/// The number of a segment, from the name of its file with `suffix`.
fn number(name: &OsStr, suffix: &str) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(suffix)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (digits == format!("{number:016x}")).then_some(number)
}

/// Whether a file with a segment's name is a segment: it begins with [`MAGIC`], or has a count, or has an entry after a
/// damaged beginning.
fn is_own(entry: &DirEntry) -> io::Result<bool> {
    if !entry.file_type()?.is_file() || entry.metadata()?.len() > LONGEST {
        return Ok(false);
    }
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(entry.path())?;
    let mut begin = Vec::new();
    (&mut file).take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    if MAGIC.starts_with(&begin) || counts::read(&entry.path()).is_some() {
        return Ok(true);
    }
    let mut rest = Vec::new();
    file.take(2 * SEGMENT).read_to_end(&mut rest)?;
    Ok(next_entry(&rest, 0).is_some())
}

fn set_aside(path: &Path) {
    let name = path.display();
    match files::set_aside(path) {
        Ok(aside) => {
            message!("{name} is not a segment that can be read: its name is {} now", aside.display())
        }
        Err(error) => message!("{name} is not a segment that can be read, and cannot be renamed: {error}"),
    }
}
