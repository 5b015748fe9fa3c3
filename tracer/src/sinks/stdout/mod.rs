//! Standard output.

use std::{path::Path, sync::Arc};

use clap::Args;

use super::{
    config::{BuildContext, SinkConfig},
    delivery::{OpenError, Sink, SinkBuilder},
    encoding::FormatArgs,
    problem::ConfigError,
    transport::PipeSink,
};

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct StdoutArgs {
    #[command(flatten)]
    format: FormatArgs,
}

impl SinkConfig for StdoutArgs {
    fn builder(&self, _context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Ok(Arc::new(Stdout))
    }

    fn format(&self) -> Option<&FormatArgs> {
        Some(&self.format)
    }

    fn output(&self) -> Option<&Path> {
        Some(Path::new("/dev/stdout"))
    }
}

struct Stdout;

impl SinkBuilder for Stdout {
    fn open(&self, _header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(PipeSink::stdout()))
    }
}
