//! Records in a file that is rotated: by size, by age, or by whoever sends SIGHUP.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use super::{Batch, rotated, worker::Trouble};

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
        self.open()?;
        // An earlier run may have been killed while it compressed.
        match rotated::interrupted(&self.settings.path) {
            Ok(files) if files.is_empty() => {}
            Ok(files) => self.tidy(files),
            Err(error) => {
                eprintln!(
                    "sockstate: cannot look for old files of {}: {error}",
                    self.settings.path.display()
                );
            }
        }
        Ok(())
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
        let old = rotated::rename(&self.settings.path)?;
        self.wait_for_compressor();
        self.tidy(if self.settings.zstd { vec![old] } else { Vec::new() });
        Ok(())
    }

    /// Compresses `finished`, and removes what is too old: minutes of records take seconds to compress, meanwhile the next ones are
    /// written.
    fn tidy(&mut self, finished: Vec<PathBuf>) {
        let (path, keep) = (self.settings.path.clone(), self.settings.keep);
        let work = move || {
            for file in &finished {
                if let Err(error) = rotated::compress(file) {
                    eprintln!("sockstate: cannot compress {}: {error}", file.display());
                }
            }
            if let Some(keep) = keep
                && let Err(error) = rotated::remove_old(&path, keep)
            {
                eprintln!("sockstate: cannot remove old files of {}: {error}", path.display());
            }
        };
        self.compressor = thread::Builder::new().name("sink-zstd".into()).spawn(work).ok();
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
