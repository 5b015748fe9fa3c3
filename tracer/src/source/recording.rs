//! Records that were written before, line by line: NDJSON, or the same in zstd.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use thiserror::Error;

/// How a zstd frame begins (RFC 8878, 3.1.1).
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
}

impl Recording {
    /// The file at `path`; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be opened.
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
        Ok(Self { name, input, line: 0 })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the line that was read last, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Reads the next line in place of `line`; false at the end. A last line that was cut, and a frame that was, are the end: whoever
    /// wrote them was stopped, or is writing.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, RecordingError> {
        line.clear();
        self.line += 1;
        match self.input.read_until(b'\n', line) {
            Ok(_) => Ok(line.last() == Some(&b'\n')),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(source) => Err(RecordingError { path: self.name.clone(), source }),
        }
    }
}
