//! What a collector does not take, on disk: segments of entries, each with its checksum, read in the order they were written.
//!
//! A segment is [`MAGIC`] and entries; an entry is [`ENTRY`], the payload's length, its CRC-32, and the payload. Whatever byte
//! a crash, a power loss or a bad disk left wrong costs the entry it is in: the next one is found by its mark and its sum, and
//! says how many records its run had written before, so that it is known how many are missing.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use super::{Batch, Frame};

/// The file that says how far the oldest segment is delivered.
const MARK: &str = "delivered";
const MAGIC: &[u8; 8] = b"SOCKSPL1";
const ENTRY: &[u8; 4] = b"\xf5SPE";
/// Mark, length, sum.
const HEAD: usize = 12;
/// What a payload begins with, little-endian: its run and the records before it (u64), how many it has (u32).
const FIXED: usize = 20;
/// Then a frame for each: end (u32), seq, time, tells (u64); then their bytes.
const FRAME: usize = 28;
/// Numbers of segments begin here: there is room in front for what must go first.
const FIRST: u64 = 1 << 32;
/// A segment is closed when it holds this much, or an eighth of the limit.
const SEGMENT: u64 = 8 << 20;

/// Why the spool cannot be used.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The directory.
    #[error("cannot use the spool {path}: {source}; it must be a directory that root may write to")]
    Directory {
        /// Its name.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another one uses it.
    #[error("cannot use the spool {path}: another sockstate does")]
    Locked {
        /// Its name.
        path: String,
    },
    /// It holds as much as it may.
    #[error("the spool {path} is full ({limit} bytes)")]
    Full {
        /// Its name.
        path: String,
        /// How much it may hold.
        limit: u64,
    },
    /// The disk.
    #[error("cannot write to the spool {path}: {source}")]
    Write {
        /// Its name.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

struct Segment {
    number: u64,
    len: u64,
}

/// The directory of one sink.
pub struct Spool {
    path: PathBuf,
    limit: u64,
    sync: bool,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// Where the newest is written.
    tail: Option<File>,
    /// The oldest's bytes, once it is being read.
    head: Option<(u64, Vec<u8>)>,
    /// Where the next entry is in the oldest.
    offset: u64,
    /// Behind what was read last and may not be delivered yet.
    read_to: u64,
    /// Tells this run's entries from another's.
    run: u64,
    /// Records that this run has written.
    written: u64,
    /// What the next entry should say of itself: its run, and how many records came before.
    expected: Option<(u64, u64)>,
    /// Held as long as the spool is in use.
    _lock: File,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Records.
    pub batch: Batch,
    /// Records that are missing before them, by their numbers.
    pub missing: u64,
}

impl Spool {
    /// Opens the directory, with what an earlier run has left; holds up to `limit` bytes. `sync`: each entry is on the disk
    /// when [`Spool::append`] returns.
    ///
    /// # Errors
    /// It cannot be made, read or locked.
    pub fn open(path: &Path, limit: u64, sync: bool) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Directory { path: path.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock = File::open(path).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(SpoolError::Locked { path: path.display().to_string() });
        }
        // Whether it can be written is better known now than when it is needed.
        let probe = path.join("probe");
        File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(failed)?;
        let mut segments = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".spool"));
            if let Some(number) = number.and_then(|number| u64::from_str_radix(number, 16).ok()) {
                segments.push(Segment { number, len: entry.metadata().map_err(failed)?.len() });
            }
        }
        segments.sort_by_key(|segment| segment.number);
        let mut spool = Self {
            path: path.to_owned(),
            limit,
            sync,
            segments: segments.into(),
            tail: None,
            head: None,
            offset: 0,
            read_to: 0,
            run: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64),
            written: 0,
            expected: None,
            _lock: lock,
        };
        spool.offset = spool.saved_offset();
        spool.read_to = spool.offset;
        Ok(spool)
    }

    /// Bytes on disk that are not delivered.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum::<u64>().saturating_sub(self.offset)
    }

    /// Whether everything was delivered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Writes `batch` behind everything else.
    ///
    /// # Errors
    /// There is no room, or the disk fails; nothing is left of it then.
    pub fn append(&mut self, batch: &Batch) -> Result<(), SpoolError> {
        let entry = encode(self.run, self.written, batch);
        let used: u64 = self.segments.iter().map(|segment| segment.len).sum();
        if used + entry.len() as u64 > self.limit {
            return Err(SpoolError::Full { path: self.name(), limit: self.limit });
        }
        let result = self.write_tail(&entry);
        result.map_err(|source| SpoolError::Write { path: self.name(), source })?;
        self.written += batch.len() as u64;
        Ok(())
    }

    /// Writes `batch` in front of everything else.
    ///
    /// # Errors
    /// The disk fails.
    pub fn push_front(&mut self, batch: &Batch) -> Result<(), SpoolError> {
        let number = self.segments.front().map_or(FIRST, |segment| segment.number) - 1;
        let bytes = [&MAGIC[..], &encode(0, 0, batch)].concat();
        let result = self.create(number).and_then(|mut file| {
            file.write_all(&bytes)?;
            if self.sync { file.sync_data() } else { Ok(()) }
        });
        if let Err(source) = result {
            let _ = fs::remove_file(self.file_name(number));
            return Err(SpoolError::Write { path: self.name(), source });
        }
        self.segments.push_front(Segment { number, len: bytes.len() as u64 });
        (self.head, self.offset, self.read_to) = (None, 0, 0);
        Ok(())
    }

    /// Reads on, about `most` bytes; what was read before counts as read again unless it was delivered.
    ///
    /// # Errors
    /// A segment cannot be read; it is given up.
    pub fn read(&mut self, most: usize) -> io::Result<Read> {
        let mut read = Read::default();
        self.read_to = self.offset;
        while let Some(front) = self.segments.front() {
            let number = front.number;
            if self
                .head
                .as_ref()
                .is_none_or(|(known, bytes)| *known != number || (bytes.len() as u64) < front.len)
            {
                match fs::read(self.file_name(number)) {
                    Ok(bytes) => self.head = Some((number, bytes)),
                    Err(error) => {
                        self.drop_front();
                        return Err(error);
                    }
                }
            }
            let Some((_, bytes)) = &self.head else { break };
            let at = (self.read_to as usize).max(MAGIC.len());
            match next_entry(bytes, at) {
                Some(Entry { run, before, batch, end }) => {
                    if !read.batch.is_empty() && read.batch.bytes.len() + batch.bytes.len() > most {
                        return Ok(read);
                    }
                    if let Some((_, expected)) = self.expected.filter(|(expected, _)| *expected == run) {
                        read.missing += before.saturating_sub(expected);
                    }
                    self.expected = Some((run, before + batch.len() as u64));
                    read.batch.append(batch);
                    self.read_to = end as u64;
                }
                // Only what was delivered is deleted.
                None if !read.batch.is_empty() => return Ok(read),
                None => self.drop_front(),
            }
        }
        Ok(read)
    }

    /// What was read last is delivered.
    pub fn delivered(&mut self) {
        self.offset = self.read_to;
        let Some(front) = self.segments.front() else { return };
        if self.offset >= front.len {
            return self.drop_front();
        }
        // Lost, it would be delivered again.
        let mark = [front.number.to_le_bytes(), self.offset.to_le_bytes()].concat();
        let mark = [&mark[..], &crc32fast::hash(&mark).to_le_bytes()].concat();
        let _ = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(MARK))
            .and_then(|file| file.write_all_at(&mark, 0));
    }

    fn saved_offset(&self) -> u64 {
        let saved = || {
            let mark = fs::read(self.path.join(MARK)).ok()?;
            let (mark, sum) = mark.split_at_checked(16)?;
            let (number, offset) = mark.split_at_checked(8)?;
            let is_whole = sum == crc32fast::hash(mark).to_le_bytes();
            let number = u64::from_le_bytes(number.try_into().ok()?);
            let is_front = self.segments.front().is_some_and(|front| front.number == number);
            (is_whole && is_front).then_some(u64::from_le_bytes(offset.try_into().ok()?))
        };
        saved().unwrap_or(0)
    }

    fn write_tail(&mut self, entry: &[u8]) -> io::Result<()> {
        let most = SEGMENT.min(self.limit / 8);
        let is_full = self.segments.back().is_none_or(|segment| segment.len > most);
        if is_full || self.tail.is_none() {
            let number = self.segments.back().map_or(FIRST, |segment| segment.number + 1);
            let mut file = self.create(number)?;
            if let Err(error) = file.write_all(MAGIC) {
                let _ = fs::remove_file(self.file_name(number));
                return Err(error);
            }
            self.segments.push_back(Segment { number, len: MAGIC.len() as u64 });
            self.tail = Some(file);
        }
        let (Some(file), Some(segment)) = (&mut self.tail, self.segments.back_mut()) else { return Ok(()) };
        let written = file.write_all(entry).and_then(|()| if self.sync { file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // A part of it would only be in the way.
            let _ = file.set_len(segment.len);
        } else {
            segment.len += entry.len() as u64;
        }
        written
    }

    fn create(&self, number: u64) -> io::Result<File> {
        let name = self.file_name(number);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(name)?;
        if self.sync {
            // The name must be on the disk, too.
            File::open(&self.path)?.sync_all()?;
        }
        Ok(file)
    }

    fn drop_front(&mut self) {
        if let Some(front) = self.segments.pop_front() {
            // Left behind, it would be delivered again.
            let _ = fs::remove_file(self.file_name(front.number));
        }
        if self.segments.is_empty() {
            self.tail = None;
        }
        // Another segment may get the same number.
        let _ = fs::remove_file(self.path.join(MARK));
        (self.head, self.offset, self.read_to) = (None, 0, 0);
    }

    fn file_name(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016x}.spool"))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// An entry of a segment.
struct Entry {
    run: u64,
    before: u64,
    batch: Batch,
    /// Where it ends.
    end: usize,
}

fn encode(run: u64, before: u64, batch: &Batch) -> Vec<u8> {
    let len = FIXED + batch.len() * FRAME + batch.bytes.len();
    let mut entry = Vec::with_capacity(HEAD + len);
    entry.extend_from_slice(ENTRY);
    entry.extend_from_slice(&(len as u32).to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    entry.extend_from_slice(&run.to_le_bytes());
    entry.extend_from_slice(&before.to_le_bytes());
    entry.extend_from_slice(&(batch.len() as u32).to_le_bytes());
    for frame in &batch.frames {
        entry.extend_from_slice(&(frame.end as u32).to_le_bytes());
        entry.extend_from_slice(&frame.seq.to_le_bytes());
        entry.extend_from_slice(&frame.time_ns.to_le_bytes());
        entry.extend_from_slice(&frame.tells.to_le_bytes());
    }
    entry.extend_from_slice(&batch.bytes);
    let sum = crc32fast::hash(&entry[HEAD..]);
    entry[8..HEAD].copy_from_slice(&sum.to_le_bytes());
    entry
}

/// The first whole entry from `at` on.
fn next_entry(bytes: &[u8], at: usize) -> Option<Entry> {
    let mut at = at;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.windows(ENTRY.len()).position(|mark| mark == ENTRY)?;
        if let Some(entry) = decode(bytes, at) {
            return Some(entry);
        }
        at += 1;
    }
}

fn decode(bytes: &[u8], at: usize) -> Option<Entry> {
    let mut head = Reader(bytes.get(at..)?);
    let (_, len, sum) = (head.u32()?, head.u32()? as usize, head.u32()?);
    let payload = head.0.get(..len)?;
    if crc32fast::hash(payload) != sum {
        return None;
    }
    let mut payload = Reader(payload);
    let (run, before, count) = (payload.u64()?, payload.u64()?, payload.u32()? as usize);
    // What was written by us fits; a sum that is right by chance may say anything.
    let mut frames = Vec::with_capacity(count.min(payload.0.len() / FRAME));
    for _ in 0..count {
        let (end, seq) = (payload.u32()? as usize, payload.u64()?);
        frames.push(Frame { end, seq, time_ns: payload.u64()? as i64, tells: payload.u64()? });
    }
    let ends_fit = frames.is_sorted_by_key(|frame| frame.end)
        && frames.last().map_or(0, |frame| frame.end) == payload.0.len();
    let batch = Batch { bytes: payload.0.to_vec(), frames };
    ends_fit.then_some(Entry { run, before, batch, end: at + HEAD + len })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
