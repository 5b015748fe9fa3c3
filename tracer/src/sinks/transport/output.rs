//! A file, a pipe, a terminal: whatever takes bytes.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, fstat};
use thiserror::Error;
use tokio::io::{Interest, unix::AsyncFd};

use super::reserve::Reserve;
use crate::files;

/// Why bytes did not go out.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The reader has gone: the end, and no failure.
    #[error("the reader of {0} has gone")]
    Closed(String),
    /// It cannot be opened.
    #[error("cannot open {path} for writing: {source}")]
    Open {
        /// Its name.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It does not take any more.
    #[error("cannot write to {path}: {source}")]
    Write {
        /// Its name.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A pipe that polls writable takes this much without blocking (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// The two kinds of files.
enum Target {
    /// Takes bytes at once, or for as long as the disk needs.
    Blocking(File),
    /// May have a reader that lets us wait for ever; epoll tells.
    Polled(AsyncFd<File>),
}

/// An open output.
pub struct Output {
    name: String,
    /// Where it can be opened again.
    path: Option<PathBuf>,
    target: Target,
    written: usize,
    reserve: Reserve,
}

impl Output {
    /// Standard output.
    ///
    /// # Errors
    /// There is none.
    pub fn stdout() -> Result<Self, OutputError> {
        let name = "standard output".to_owned();
        match io::stdout().as_fd().try_clone_to_owned() {
            Ok(fd) => Self::new(name, fd),
            Err(source) => Err(OutputError::Open { path: name, source }),
        }
    }

    /// The writing end of a pipe.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn pipe(end: OwnedFd) -> Result<Self, OutputError> {
        Self::new("a pipe".to_owned(), end)
    }

    /// What was opened at `path`.
    pub(super) fn open(path: &Path, fd: OwnedFd) -> Result<Self, OutputError> {
        Self::new(path.display().to_string(), fd)
    }

    /// The file at `path`, made, or emptied.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn file(path: &Path) -> Result<Self, OutputError> {
        let name = path.display().to_string();
        match files::create(path) {
            Ok(file) => {
                let mut output = Self::new(name, file.into())?;
                output.path = Some(path.to_owned());
                Ok(output)
            }
            Err(source) => Err(OutputError::Open { path: name, source }),
        }
    }

    /// Whether [`Output::reopen`] can do anything.
    #[must_use]
    pub fn can_reopen(&self) -> bool {
        self.path.is_some() && matches!(self.target, Target::Blocking(_))
    }

    /// Opens what is at the path now, to go on at its end: most likely the old file was renamed.
    ///
    /// # Errors
    /// It cannot be opened; the old one stays.
    pub fn reopen(&mut self) -> Result<(), OutputError> {
        let Some(path) = &self.path else { return Ok(()) };
        let failed = |source| OutputError::Open { path: self.name.clone(), source };
        let file = files::append(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        self.give_back();
        self.target = Target::Blocking(file);
        self.written = usize::try_from(len).unwrap_or(0);
        Ok(())
    }

    fn new(name: String, fd: OwnedFd) -> Result<Self, OutputError> {
        let file = File::from(fd);
        let polled = fstat(&file).is_ok_and(|stat| {
            matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket)
        });
        let target = if polled {
            let interest = Interest::WRITABLE | Interest::ERROR;
            // SAFETY: a File's descriptor stays open and the same as long as the File lives.
            match unsafe { AsyncFd::register_with_interest(file, interest) } {
                Ok(file) => Target::Polled(file),
                Err(error) => return Err(OutputError::Open { path: name, source: error.into() }),
            }
        } else {
            Target::Blocking(file)
        };
        Ok(Self { name, path: None, target, written: 0, reserve: Reserve::default() })
    }

    /// Where the next byte goes: the bytes that went out so far, or that were in the file before.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Writes the first `most` of `bytes` and takes away what went out. May be cancelled: then the rest is left.
    ///
    /// # Errors
    /// The reader has gone, or the write fails; what went out before is taken away.
    pub async fn write(&mut self, bytes: &mut Vec<u8>, most: usize) -> Result<(), OutputError> {
        let end = bytes.len().min(most);
        let mut done = Taken { bytes, count: 0 };
        while done.count < end {
            done.count += self.write_some(&done.bytes[done.count..end]).await?;
        }
        Ok(())
    }

    /// How many bytes one write may have to go out in whole or not at all.
    pub(super) fn chunk(&self) -> usize {
        match &self.target {
            Target::Blocking(_) => usize::MAX,
            Target::Polled(_) => CHUNK,
        }
    }

    /// Writes some of `bytes`, which are not empty, and returns how many. May be cancelled: then nothing was written.
    ///
    /// # Errors
    /// The reader has gone, or the write fails.
    pub(super) async fn write_some(&mut self, bytes: &[u8]) -> Result<usize, OutputError> {
        loop {
            let result = match &mut self.target {
                Target::Blocking(file) => {
                    if self.path.is_some() {
                        self.reserve.before(file, self.written as u64, bytes.len());
                    }
                    file.write(bytes)
                }
                Target::Polled(file) => write_polled(file, bytes).await,
            };
            match result {
                Ok(0) => return Err(self.error(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.written += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
    }

    /// Waits until the reader has gone; for ever where that cannot be noticed.
    pub async fn closed(&self) {
        match &self.target {
            Target::Blocking(_) => std::future::pending().await,
            Target::Polled(file) => {
                // EPOLLERR is all that a pipe without a reader says.
                let _ = file.ready(Interest::ERROR).await;
            }
        }
    }

    /// Whether it is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match &self.target {
            Target::Blocking(file) => io::IsTerminal::is_terminal(file),
            Target::Polled(_) => false,
        }
    }

    fn give_back(&mut self) {
        if let Target::Blocking(file) = &self.target {
            self.reserve.give_back(file);
        }
    }

    fn error(&self, source: io::Error) -> OutputError {
        if source.kind() == io::ErrorKind::BrokenPipe {
            OutputError::Closed(self.name.clone())
        } else {
            OutputError::Write { path: self.name.clone(), source }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Takes away what was written even if the write is cancelled.
struct Taken<'a> {
    bytes: &'a mut Vec<u8>,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.count == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..self.count);
        }
    }
}

async fn write_polled(file: &AsyncFd<File>, rest: &[u8]) -> io::Result<usize> {
    loop {
        let mut guard = file.writable().await?;
        // The descriptor may be shared and blocking: ask again, since tokio remembers old answers.
        if !can_write(file.as_raw_fd())? {
            guard.clear_ready();
            continue;
        }
        return file.get_ref().write(&rest[..rest.len().min(CHUNK)]);
    }
}

fn can_write(fd: std::os::fd::RawFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // SAFETY: the descriptor is open as long as the caller borrows its owner.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(ready > 0)
}
