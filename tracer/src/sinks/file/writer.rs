//! Records in a file that is rotated: by size, by age, or by another program that then sends SIGHUP.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::SystemTime,
};

use super::{FileSettings, rotated};
use crate::{
    files::{Directory, FileError, Identity},
    sinks::delivery::{Batch, DeliveryError, Pending, Sink},
};

/// The sink.
pub(super) struct FileSink {
    settings: FileSettings,
    /// The beginning of each file.
    header: Vec<u8>,
    open: Option<Open>,
    compressor: Option<thread::JoinHandle<()>>,
    /// Rotated files that wait for a compressor, since no thread could be started.
    uncompressed: Vec<PathBuf>,
    /// Files whose compression an earlier process did not finish have been handled.
    is_tidy: bool,
}

struct Open {
    file: File,
    directory: Directory,
    name: OsString,
    len: u64,
    since: SystemTime,
}

impl FileSink {
    pub(super) fn new(settings: FileSettings, header: Vec<u8>) -> Self {
        Self { settings, header, open: None, compressor: None, uncompressed: Vec::new(), is_tidy: false }
    }

    /// Opens the file, so that a problem with it is found at the start.
    pub(super) fn check(&mut self) -> Result<(), FileError> {
        self.open().map(drop)
    }

    /// The error of [`FileSink::check`], found without creating or changing anything.
    pub(super) fn verify(&self) -> Result<(), FileError> {
        let (directory, name) = Directory::of(&self.settings.path)?;
        directory.can_append(&name)
    }

    /// Delivers the records, and removes those that are delivered.
    fn write_all(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        while !batch.is_empty() {
            let result = self.write(batch);
            result.map_err(|error| {
                DeliveryError::retry(format!("cannot write to {}: {error}", self.settings.path.display()))
            })?;
        }
        Ok(())
    }

    /// Writes as many records as fit, but at least one, and removes them from `batch`; or rotates the file.
    fn write(&mut self, batch: &mut Batch) -> io::Result<()> {
        let (limit, every) = (self.settings.rotate_bytes.unwrap_or(u64::MAX), self.settings.rotate_every);
        let header = self.header.len() as u64;
        let open = self.open()?;
        let is_old = every.is_some_and(|every| open.since.elapsed().is_ok_and(|age| age >= every));
        let room = limit.saturating_sub(open.len);
        let fitting = batch.frames.partition_point(|frame| frame.end as u64 <= room);
        if open.len > header && (is_old || fitting == 0) {
            return self.rotate();
        }
        let fitting = fitting.max(1).min(batch.len());
        let end = batch.frames.get(fitting - 1).map_or(0, |frame| frame.end);
        let before = open.len;
        let result = open.file.write_all(&batch.bytes[..end]);
        if let Err(error) = result {
            // The records are written again: remove the part of them that was written.
            if open.file.set_len(before).is_err() {
                self.open = None;
            }
            return Err(error);
        }
        open.len += end as u64;
        batch.drop_first(fitting);
        Ok(())
    }

    fn open(&mut self) -> Result<&mut Open, FileError> {
        if self.open.is_none() {
            let open = self.open_again()?;
            self.tidy_once(&open);
            self.open = Some(open);
        }
        let path = self.settings.path.clone();
        self.open.as_mut().ok_or(FileError::Io { path, source: io::ErrorKind::NotFound.into() })
    }

    fn open_again(&self) -> Result<Open, FileError> {
        let path = &self.settings.path;
        let (directory, name) = Directory::of(path)?;
        let (file, _) = directory.append(&name)?;
        let begun = file.metadata().and_then(|metadata| {
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            let since = if metadata.len() == 0 { None } else { metadata.created().ok() };
            let len = self.begin(&file, &directory.join(&name), metadata.len())?;
            Ok((len, since.unwrap_or_else(SystemTime::now)))
        });
        let (len, since) = begun.map_err(|source| FileError::Io { path: path.clone(), source })?;
        Ok(Open { file, directory, name, len, since })
    }

    /// Writes the header to an empty file; ends or removes an unfinished last line of another one, so that the next
    /// record begins a line. Returns the file's new length.
    fn begin(&self, mut file: &File, path: &Path, len: u64) -> io::Result<u64> {
        if len == 0 {
            // If this fails, an unfinished last record will stay in the file as a line.
            let _ = Identity::of(file)?.remember(path);
            file.write_all(&self.header)?;
            return Ok(self.header.len() as u64);
        }
        let end = whole_lines(file, len)?;
        if end == len {
            return Ok(len);
        }
        if !Identity::of(file)?.is_remembered(path) {
            file.write_all(b"\n")?;
            return Ok(len + 1);
        }
        // sockstate wrote this file, and was killed while it wrote the last line.
        file.set_len(end)?;
        if end == 0 { self.begin(file, path, 0) } else { Ok(end) }
    }

    fn tidy_once(&mut self, open: &Open) {
        if std::mem::replace(&mut self.is_tidy, true) {
            return;
        }
        let path = open.directory.join(&open.name);
        match rotated::clean_up_interrupted(&path) {
            Ok(files) if files.is_empty() => {}
            Ok(files) => self.tidy(path, files),
            Err(error) => message!("cannot look for old files of {}: {error}", path.display()),
        }
    }

    /// Renames the file. A thread then compresses it and removes old files.
    fn rotate(&mut self) -> io::Result<()> {
        let Some(Open { file, directory, name, .. }) = self.open.take() else { return Ok(()) };
        let path = directory.join(&name);
        // Another program may have moved it already.
        if Identity::at(&path) != Some(Identity::of(&file)?) {
            return Ok(());
        }
        let old = rotated::name(&name);
        directory.rename(&name, &old)?;
        self.wait_for_compressor();
        self.tidy(path, if self.settings.zstd { vec![directory.join(&old)] } else { Vec::new() });
        Ok(())
    }

    /// Compresses `finished` and removes old files, in a thread: compression takes seconds, in which records are
    /// written.
    fn tidy(&mut self, path: PathBuf, finished: Vec<PathBuf>) {
        let keep = self.settings.keep;
        self.uncompressed.extend(finished);
        let (finished, shown) = (self.uncompressed.clone(), path.display().to_string());
        let work = move || {
            for file in &finished {
                if let Err(error) = rotated::compress(file) {
                    message!("cannot compress {}: {error}", file.display());
                }
            }
            if let Some(keep) = keep
                && let Err(error) = rotated::remove_old(&path, keep)
            {
                message!("cannot remove old files of {}: {error}", path.display());
            }
        };
        match thread::Builder::new().name("sink-zstd".into()).spawn(work) {
            Ok(compressor) => {
                self.compressor = Some(compressor);
                self.uncompressed.clear();
            }
            Err(error) => message!(
                "cannot start a thread to compress or remove old files of {shown}: {error}; the next rotation tries again"
            ),
        }
    }

    fn wait_for_compressor(&mut self) {
        if let Some(compressor) = self.compressor.take() {
            // The thread has reported its errors.
            let _ = compressor.join();
        }
    }
}

impl Sink for FileSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(async { self.write_all(batch) })
    }

    /// The next record goes to the file that has the path then.
    fn reopen(&mut self) {
        self.open = None;
    }

    fn close(&mut self) -> Pending<'_, ()> {
        Box::pin(async { self.wait_for_compressor() })
    }
}

/// The end of the last complete line.
fn whole_lines(file: &File, len: u64) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut end = len;
    while end > 0 {
        let begin = end.saturating_sub(STEP);
        let mut part = vec![0; (end - begin) as usize];
        file.read_exact_at(&mut part, begin)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}
