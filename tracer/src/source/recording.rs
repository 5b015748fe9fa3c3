//! Reads a recording line by line: NDJSON, plain or compressed with zstd.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use thiserror::Error;

/// Longer lines are skipped. No record is as long, but a compressed file of a few kilobytes may expand to gigabytes.
pub const LONGEST_LINE: usize = 1 << 20;

/// The magic number of a zstd frame (RFC 8878, 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why a recording cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {path}: {source}")]
pub struct RecordingError {
    path: String,
    source: io::Error,
}

/// An open recording.
pub struct Recording {
    name: String,
    input: Box<dyn BufRead + Send>,
    line: usize,
    skipped: Arc<AtomicU64>,
}

impl Recording {
    /// The file at `path`; `-` is standard input.
    ///
    /// # Errors
    /// The recording cannot be opened.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let name = path.display().to_string();
        let failed = |source| RecordingError { path: name.clone(), source };
        let plain: Box<dyn Read + Send> = match path.to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(File::open(path).map_err(failed)?),
        };
        let mut plain = BufReader::with_capacity(1 << 16, plain);
        let is_zstd = plain.fill_buf().map_err(failed)?.starts_with(&ZSTD);
        let input: Box<dyn BufRead + Send> = if is_zstd {
            Box::new(BufReader::with_capacity(1 << 16, zstd::Decoder::with_buffer(plain).map_err(failed)?))
        } else {
            Box::new(plain)
        };
        Ok(Self { name, input, line: 0, skipped: Arc::default() })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the line that was read last, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// How many lines were skipped because they are longer than [`LONGEST_LINE`]; counts on while the recording is read.
    #[must_use]
    pub fn skipped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.skipped)
    }

    /// Reads the next line that is not too long into `line`; false at the end. An incomplete last line or zstd frame is also the
    /// end: the recorder was stopped, or is still writing.
    ///
    /// # Errors
    /// The recording cannot be read.
    pub fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, RecordingError> {
        let failed = |path: &str, source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => Ok(false),
            _ => Err(RecordingError { path: path.to_owned(), source }),
        };
        loop {
            line.clear();
            self.line += 1;
            let read = (&mut self.input).take(LONGEST_LINE as u64).read_until(b'\n', line);
            match read {
                Ok(_) if line.last() == Some(&b'\n') => return Ok(true),
                Ok(LONGEST_LINE) => {}
                Ok(_) => return Ok(false),
                Err(error) => return failed(&self.name, error),
            }
            self.skipped.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.input.skip_until(b'\n') {
                return failed(&self.name, error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_that_are_too_long_are_skipped() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let long = "x".repeat(LONGEST_LINE);
        let fits = &long[1..];
        write!(file, "a\n{long}\nb\n{fits}\n{long}{long}").expect("write");
        let mut recording = Recording::open(file.path()).expect("a recording");
        let (mut line, mut found) = (Vec::new(), Vec::new());
        while recording.next(&mut line).expect("readable") {
            found.push((line.len(), recording.line()));
        }
        assert_eq!(found, [(2, 1), (2, 3), (LONGEST_LINE, 4)]);
        assert_eq!(recording.skipped().load(Ordering::Relaxed), 2);
    }
}
