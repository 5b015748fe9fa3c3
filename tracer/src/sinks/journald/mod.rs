//! The journal, by journald's native protocol.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use super::{
    config::{BuildContext, SinkConfig},
    delivery::{Convert, SinkBuilder},
    problem::{ConfigError, Problem},
    transport::{Address, DatagramSettings},
};
use crate::format::convert;

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct JournaldArgs {
    /// journald's socket.
    #[arg(long, value_name = "PATH", default_value = "/run/systemd/journal/socket")]
    socket: PathBuf,
}

impl SinkConfig for JournaldArgs {
    fn builder(&self, _context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Ok(Arc::new(DatagramSettings::journald(&self.socket)))
    }

    fn converter(&self, _host: &str) -> Option<Convert> {
        Some(Box::new(convert::journal))
    }

    fn warning(&self) -> Option<Problem> {
        let message = Address::Unix(self.socket.clone()).absent()?;
        Some(Problem { key: "socket", message })
    }
}
