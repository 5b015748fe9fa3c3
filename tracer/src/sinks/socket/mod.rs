//! A stream of lines to a collector: TCP, TLS or unix.

use std::sync::Arc;

use clap::Args;

use super::{
    config::{BuildContext, SectionCheck, SinkConfig},
    delivery::SinkBuilder,
    encoding::FormatArgs,
    problem::{ConfigError, Problem},
    transport::{Address, Framing, StreamSettings, TlsFiles, TlsSettings},
};

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct SocketArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// The collector: tcp://host:port, tls://host:port, unix:/path.
    #[arg(long, value_name = "ADDRESS", required = true)]
    address: Option<Address>,
    #[command(flatten)]
    tls: TlsSettings,
}

impl SinkConfig for SocketArgs {
    fn builder(&self, _context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        let address = self.address.clone().ok_or(ConfigError::Incomplete)?;
        Ok(Arc::new(StreamSettings { address, tls: self.tls.clone(), framing: Framing::Lines }))
    }

    fn problems(&self, _section: &SectionCheck<'_>) -> Vec<Problem> {
        let datagrams = matches!(self.address, Some(Address::Udp(_)))
            .then(|| Problem::of_section("'address' must be tcp, tls or unix; datagrams are syslog's"));
        datagrams.into_iter().collect()
    }

    fn format(&self) -> Option<&FormatArgs> {
        Some(&self.format)
    }

    fn tls(&self) -> Option<&TlsFiles> {
        Some(&self.tls.files)
    }

    fn warning(&self) -> Option<Problem> {
        let message = self.address.as_ref()?.absent()?;
        Some(Problem { key: "address", message })
    }
}
