//! A file, rotated by size or by age, or by another program; or a pipe or a device at the file's path.

mod rotated;
mod writer;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use thiserror::Error;

use self::writer::FileSink;
use super::{
    config::{BuildContext, SinkConfig},
    delivery::{OpenError, Sink, SinkBuilder},
    encoding::FormatArgs,
    problem::{ConfigError, Problem},
    transport::PipeSink,
};
use crate::{
    files::FileError,
    values::{parse_duration, parse_size},
};

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct FileArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// The file.
    #[arg(long, value_name = "FILE", required = true)]
    path: Option<PathBuf>,
    /// Rotate the file before it becomes larger than this.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    rotate_size: Option<u64>,
    /// Rotate the file when it is older than this.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    rotate_time: Option<Duration>,
    /// How many rotated files are kept [default: all].
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Compress rotated files with zstd.
    #[arg(long)]
    zstd: bool,
}

impl SinkConfig for FileArgs {
    fn builder(&self, _context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Ok(Arc::new(FileSettings {
            path: self.path.clone().ok_or(ConfigError::Incomplete)?,
            rotate_bytes: self.rotate_size,
            rotate_every: self.rotate_time,
            keep: self.keep,
            zstd: self.zstd,
        }))
    }

    fn format(&self) -> Option<&FormatArgs> {
        Some(&self.format)
    }

    fn file(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn output(&self) -> Option<&Path> {
        // No one reads /dev/null.
        let is_device = |path: &Path| fs::metadata(path).is_ok_and(|file| file.file_type().is_char_device());
        self.file().filter(|path| !is_device(path))
    }

    fn warning(&self) -> Option<Problem> {
        let pipe = self.path.as_deref()?;
        let metadata = fs::metadata(pipe).ok().filter(|metadata| metadata.file_type().is_fifo())?;
        let message = format!("no process that can be seen reads the pipe {}", pipe.display());
        (!has_reader((metadata.dev(), metadata.ino()))).then_some(Problem { key: "path", message })
    }
}

/// Whether a process has the pipe open for reading. The check does not open the pipe: its reader would see an end of
/// file.
fn has_reader(pipe: (u64, u64)) -> bool {
    let reads = |descriptor: &Path| {
        let is_pipe = fs::metadata(descriptor).is_ok_and(|file| (file.dev(), file.ino()) == pipe);
        // Only a reader's link has the right to read.
        is_pipe && fs::symlink_metadata(descriptor).is_ok_and(|link| link.mode() & 0o400 != 0)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let descriptors = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok());
    descriptors.flatten().flatten().any(|descriptor| reads(&descriptor.path()))
}

/// Where it is, and when it is rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The path of the file. The names of rotated files end with a time.
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

#[derive(Debug, Error)]
#[error("cannot open {} for writing: {source}", path.display())]
struct CannotOpen {
    path: PathBuf,
    source: FileError,
}

impl FileSettings {
    fn cannot_open(&self, source: FileError) -> CannotOpen {
        CannotOpen { path: self.path.clone(), source }
    }

    /// A sink for a path that only takes bytes; the path is opened later.
    fn pipe(&self, header: Vec<u8>) -> Result<PipeSink, FileError> {
        if self.rotate_bytes.is_some() || self.rotate_every.is_some() {
            return Err(FileError::Kind { path: self.path.clone() });
        }
        let pipe = PipeSink::new(&self.path, header);
        pipe.check()?;
        Ok(pipe)
    }

    fn verify(&self) -> Result<(), FileError> {
        if PipeSink::takes(&self.path) {
            self.pipe(Vec::new()).map(drop)
        } else {
            FileSink::new(self.clone(), Vec::new()).verify()
        }
    }
}

impl SinkBuilder for FileSettings {
    fn open(&self, header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        if PipeSink::takes(&self.path) {
            return Ok(Box::new(self.pipe(header).map_err(|error| self.cannot_open(error))?));
        }
        let mut file = FileSink::new(self.clone(), header);
        file.check().map_err(|error| self.cannot_open(error))?;
        Ok(Box::new(file))
    }

    fn problems(&self) -> Vec<(&'static str, OpenError)> {
        let error = self.verify().err().map(|error| self.cannot_open(error));
        error.map(|error| ("path", error.into())).into_iter().collect()
    }

    fn resource(&self) -> String {
        self.path.display().to_string()
    }
}
