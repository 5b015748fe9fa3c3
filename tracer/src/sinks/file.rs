//! Records in a file that is rotated: by size, by age, or by whoever sends SIGHUP.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use super::{Batch, worker::Trouble};

/// zstd's own default.
const LEVEL: i32 = 3;

/// Where it is, and when it is rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// Its name. Rotated ones have a time behind it.
    pub path: PathBuf,
    /// Rotated when it would be larger than this.
    pub rotate_bytes: Option<u64>,
    /// Rotated when it is older than this.
    pub rotate_every: Option<Duration>,
    /// How many rotated ones are kept; all without it.
    pub keep: Option<usize>,
    /// Rotated ones are compressed with zstd.
    pub zstd: bool,
}

/// The sink.
pub(super) struct FileSink {
    settings: FileSettings,
    /// What stands at the beginning of each file.
    header: Vec<u8>,
    open: Option<Open>,
    compressor: Option<thread::JoinHandle<()>>,
}

struct Open {
    file: File,
    len: u64,
    since: SystemTime,
}

impl FileSink {
    pub(super) fn new(settings: FileSettings, header: Vec<u8>) -> Self {
        Self { settings, header, open: None, compressor: None }
    }

    /// Opens it, so that what is wrong with it is known at the start.
    pub(super) fn check(&mut self) -> io::Result<()> {
        self.open().map(drop)
    }

    /// The next record goes into what has the name by then.
    pub(super) fn reopen(&mut self) {
        self.open = None;
    }

    /// Delivers `lot`, and takes away what was.
    pub(super) fn deliver(&mut self, lot: &mut Batch) -> Result<(), Trouble> {
        while !lot.is_empty() {
            let result = self.write(lot);
            result.map_err(|error| {
                Trouble::retry(format!("cannot write to {}: {error}", self.settings.path.display()))
            })?;
        }
        Ok(())
    }

    /// Writes as much as fits, one record at least, and takes it away.
    fn write(&mut self, lot: &mut Batch) -> io::Result<()> {
        let (limit, every) = (self.settings.rotate_bytes.unwrap_or(u64::MAX), self.settings.rotate_every);
        let header = self.header.len() as u64;
        let open = self.open()?;
        let is_old = every.is_some_and(|every| open.since.elapsed().is_ok_and(|age| age >= every));
        let room = limit.saturating_sub(open.len);
        let fitting = lot.frames.partition_point(|frame| frame.end as u64 <= room);
        if open.len > header && (is_old || fitting == 0) {
            return self.rotate();
        }
        let fitting = fitting.max(1).min(lot.len());
        let end = lot.frames.get(fitting - 1).map_or(0, |frame| frame.end);
        let before = open.len;
        let result = open.file.write_all(&lot.bytes[..end]);
        if let Err(error) = result {
            // A part of it comes again in whole; the file must not end with it.
            if open.file.set_len(before).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        open.len += end as u64;
        lot.drop_first(fitting);
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            let path = &self.settings.path;
            let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
            let metadata = file.metadata()?;
            let mut len = metadata.len();
            let mut since = SystemTime::now();
            if len == 0 {
                file.write_all(&self.header)?;
                len = self.header.len() as u64;
            } else {
                since = metadata.created().unwrap_or(since);
                if metadata.is_file() {
                    // An earlier run may have been killed within a record.
                    len = whole_lines(path, len)?;
                    file.set_len(len)?;
                }
            }
            self.open = Some(Open { file, len, since });
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Gives the file another name, and makes room.
    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let path = self.settings.path.clone();
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ").to_string();
        let rotated = with_suffix(&path, &format!(".{time}"));
        fs::rename(&path, &rotated)?;
        self.wait_for_compressor();
        let (keep, zstd) = (self.settings.keep, self.settings.zstd);
        // Minutes of records take seconds to compress; meanwhile the next ones are written.
        let tidy = move || {
            if zstd && let Err(error) = compress(&rotated) {
                eprintln!("sockstate: cannot compress {}: {error}", rotated.display());
            }
            if let Some(keep) = keep
                && let Err(error) = remove_old(&path, keep)
            {
                eprintln!("sockstate: cannot remove old files of {}: {error}", path.display());
            }
        };
        self.compressor = thread::Builder::new().name("sink-zstd".into()).spawn(tidy).ok();
        Ok(())
    }

    fn wait_for_compressor(&mut self) {
        if let Some(compressor) = self.compressor.take() {
            // What went wrong there it has said.
            let _ = compressor.join();
        }
    }

    pub(super) fn close(&mut self) {
        self.wait_for_compressor();
    }
}

/// Behind the last line's end, if that is near the file's.
fn whole_lines(path: &Path, len: u64) -> io::Result<u64> {
    const RECORD: u64 = 64 << 10;
    let begin = len.saturating_sub(RECORD);
    let mut tail = vec![0; (len - begin) as usize];
    File::open(path)?.read_exact_at(&mut tail, begin)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n').map(|at| begin + at as u64 + 1);
    Ok(end.unwrap_or(len))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// In place of the file, never beside it for longer than it takes.
fn compress(path: &Path) -> io::Result<()> {
    let (target, part) = (with_suffix(path, ".zst"), with_suffix(path, ".zst.part"));
    let compressed = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&part)?;
    zstd::stream::copy_encode(File::open(path)?, &compressed, LEVEL)?;
    compressed.sync_all()?;
    fs::rename(&part, target)?;
    fs::remove_file(path)
}

/// Their names sort by time.
fn remove_old(path: &Path, keep: usize) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let is_rotated = |file: &str| {
        let rest = name.to_str().and_then(|name| file.strip_prefix(name)?.strip_prefix('.'));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('Z'))
    };
    let mut rotated = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(is_rotated) {
            rotated.push(name);
        }
    }
    rotated.sort_unstable();
    let old = rotated.len().saturating_sub(keep);
    rotated.iter().take(old).try_for_each(|name| fs::remove_file(directory.join(name)))
}
