//! An output for bytes: a file, a pipe, a terminal.

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

/// Why bytes were not written.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The reader has closed its end, which ends the output but is no failure.
    #[error("the reader of {0} has gone")]
    Closed(String),
    /// The output cannot be opened.
    #[error("cannot open {path} for writing: {source}")]
    Open { path: String, source: io::Error },
    /// Writing has failed.
    #[error("cannot write to {path}: {source}")]
    Write { path: String, source: io::Error },
}

/// Bytes that can be written without blocking to a pipe that poll(2) calls writable (PIPE_BUF, pipe(7)).
const CHUNK: usize = 4096;

/// The two kinds of outputs.
enum Target {
    /// A write does not wait for a reader, only for the disk.
    Blocking(File),
    /// The reader may never read, so epoll says when a write does not block.
    Polled(AsyncFd<File>),
}

/// An open output.
pub struct Output {
    name: String,
    /// The path by which it can be opened again.
    path: Option<PathBuf>,
    target: Target,
    written: usize,
    reserve: Reserve,
}

impl Output {
    /// Standard output.
    ///
    /// # Errors
    /// It is closed, or epoll does not accept it.
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
    /// epoll does not accept it.
    pub fn pipe(end: OwnedFd) -> Result<Self, OutputError> {
        Self::new("a pipe".to_owned(), end)
    }

    /// The descriptor `fd`, which was opened at `path`.
    pub(super) fn open(path: &Path, fd: OwnedFd) -> Result<Self, OutputError> {
        Self::new(path.display().to_string(), fd)
    }

    /// Creates or truncates the file at `path`.
    ///
    /// # Errors
    /// The file cannot be opened.
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

    /// Opens the file that is at the path now, and appends to it: the old file was probably renamed.
    ///
    /// # Errors
    /// The file cannot be opened; the old one stays open.
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
            // SAFETY: a `File` keeps its descriptor open, and does not change it, until it is dropped.
            match unsafe { AsyncFd::register_with_interest(file, interest) } {
                Ok(file) => Target::Polled(file),
                Err(error) => return Err(OutputError::Open { path: name, source: error.into() }),
            }
        } else {
            Target::Blocking(file)
        };
        Ok(Self { name, path: None, target, written: 0, reserve: Reserve::default() })
    }

    /// The number of bytes that were written, including those that were in the file before: the offset of the next one.
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Writes the first `most` of `bytes`, and removes from `bytes` what was written, also if it is cancelled.
    ///
    /// # Errors
    /// The reader has closed its end, or the write fails; what was written before is removed.
    pub async fn write(&mut self, bytes: &mut Vec<u8>, most: usize) -> Result<(), OutputError> {
        let end = bytes.len().min(most);
        let mut done = Taken { bytes, count: 0 };
        while done.count < end {
            done.count += self.write_some(&done.bytes[done.count..end]).await?;
        }
        Ok(())
    }

    /// The bytes that one write writes completely or not at all, at most.
    pub(super) fn chunk(&self) -> usize {
        match &self.target {
            Target::Blocking(_) => usize::MAX,
            Target::Polled(_) => CHUNK,
        }
    }

    /// Writes some of `bytes`, which are not empty, and returns how many. If it is cancelled, nothing was written.
    ///
    /// # Errors
    /// The reader has closed its end, or the write fails.
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

    /// Waits until the reader has closed its end; never returns for an output where this cannot be noticed.
    pub async fn closed(&self) {
        match &self.target {
            Target::Blocking(_) => std::future::pending().await,
            Target::Polled(file) => {
                // A pipe whose readers have all closed it reports only EPOLLERR.
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

/// Removes the written bytes when it is dropped, also if the write is cancelled.
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
        // Other processes may share the descriptor, so it cannot be set to non-blocking, and may have filled the pipe
        // since epoll's answer, which tokio keeps: ask again.
        if !can_write(file.as_raw_fd())? {
            guard.clear_ready();
            continue;
        }
        return file.get_ref().write(&rest[..rest.len().min(CHUNK)]);
    }
}

fn can_write(fd: std::os::fd::RawFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // SAFETY: the caller borrows the descriptor's owner, so the descriptor stays open.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(ready > 0)
}
