//! Records to standard output, a pipe or a device. If the reader does not read, the sink waits, but its thread is never
//! blocked.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
};

use super::{Output, OutputError};
use crate::files::{self, Directory, FileError};
use crate::sinks::delivery::{Batch, DeliveryError, Pending, Sink};

/// The sink.
pub(crate) struct PipeSink {
    /// `None` is standard output.
    path: Option<PathBuf>,
    header: Vec<u8>,
    output: Option<Output>,
    /// Bytes of the next record that are written already.
    sent: usize,
}

impl PipeSink {
    pub(crate) fn stdout() -> Self {
        Self { path: None, header: Vec::new(), output: None, sent: 0 }
    }

    pub(crate) fn new(path: &Path, header: Vec<u8>) -> Self {
        Self { path: Some(path.to_owned()), header, output: None, sent: 0 }
    }

    /// Whether `path` is a pipe or a device instead of a file that can be renamed, truncated and rotated.
    pub(crate) fn takes(path: &Path) -> bool {
        use std::os::unix::fs::FileTypeExt;
        let kind = std::fs::symlink_metadata(path).map(|metadata| metadata.file_type());
        files::is_inherited(path) || kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device())
    }

    /// # Errors
    /// The path is in a directory that other users can write to, or cannot be written to.
    pub(crate) fn check(&self) -> Result<(), FileError> {
        match self.path.as_deref().filter(|path| !files::is_inherited(path)) {
            Some(path) => {
                let (directory, name) = Directory::of(path)?;
                directory.can_append(&name)
            }
            None => Ok(()),
        }
    }

    async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        while !batch.is_empty() {
            if let Err(error) = self.write(batch).await {
                // When the path is opened again, there may be another reader, which needs the header and whole records.
                self.output = None;
                return Err(DeliveryError::retry(error));
            }
        }
        Ok(())
    }

    async fn write(&mut self, batch: &mut Batch) -> Result<(), OutputError> {
        if self.output.is_none() {
            let mut output = self.open()?;
            self.sent = 0;
            let mut header = self.header.clone();
            output.write(&mut header, usize::MAX).await?;
            self.output = Some(output);
        }
        let Some(output) = &mut self.output else { return Ok(()) };
        let progress = Progress { batch, sent: &mut self.sent };
        while let Some(part) = progress.next(output.chunk()) {
            *progress.sent += output.write_some(part).await?;
        }
        Ok(())
    }

    fn open(&self) -> Result<Output, OutputError> {
        let Some(path) = &self.path else { return Output::stdout() };
        let failed = |source| OutputError::Open { path: path.display().to_string(), source };
        let file = if files::is_inherited(path) {
            OpenOptions::new().append(true).open(path).map_err(failed)?
        } else {
            let opened = Directory::of(path).and_then(|(directory, name)| directory.append(&name));
            opened.map_err(|error| failed(without_reader(error)))?.0
        };
        Output::open(path, file.into())
    }
}

impl Sink for PipeSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(self.send_batch(batch))
    }
}

/// Removes the written records when it is dropped, also if the attempt is cancelled.
struct Progress<'a> {
    batch: &'a mut Batch,
    sent: &'a mut usize,
}

impl Progress<'_> {
    /// The bytes to write next: whole records, so that none is incomplete if the sink ends while the reader does not
    /// read. Only a record that is longer than `chunk` may be incomplete then.
    fn next(&self, chunk: usize) -> Option<&[u8]> {
        let rest = self.batch.bytes.get(*self.sent..).filter(|rest| !rest.is_empty())?;
        let whole = self.batch.frames.partition_point(|frame| frame.end <= self.sent.saturating_add(chunk));
        let end = whole.checked_sub(1).and_then(|last| self.batch.frames.get(last)).map(|frame| frame.end);
        match end.filter(|end| end > self.sent) {
            Some(end) => self.batch.bytes.get(*self.sent..end),
            None => Some(rest),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let whole = self.batch.frames.partition_point(|frame| frame.end <= *self.sent);
        if let Some(last) = whole.checked_sub(1).and_then(|last| self.batch.frames.get(last)) {
            *self.sent -= last.end;
            self.batch.drop_first(whole);
        }
    }
}

/// Replaces the message "No such device or address" of a pipe that no process has opened for reading (fifo(7)).
fn without_reader(error: FileError) -> io::Error {
    match error {
        FileError::Io { source, .. } if source.raw_os_error() == Some(libc::ENXIO) => {
            io::Error::new(source.kind(), "nobody reads the pipe")
        }
        error => error.into(),
    }
}
