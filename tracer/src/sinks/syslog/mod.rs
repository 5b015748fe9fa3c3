//! Syslog by RFC 5424: datagrams to /dev/log and over UDP, with octets counted over TCP and TLS.

use std::sync::Arc;

use clap::Args;

use super::{
    config::{BuildContext, SinkConfig},
    delivery::{Convert, SinkBuilder},
    problem::{ConfigError, Problem},
    transport::{Address, DatagramSettings, Framing, StreamSettings, TlsFiles, TlsSettings},
};
use crate::format::convert;

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct SyslogArgs {
    /// The collector: udp://host:port, tcp://host:port, tls://host:port, unix:/path.
    #[arg(long, value_name = "ADDRESS", required = true)]
    address: Option<Address>,
    /// Facility of the messages, as a number (RFC 5424, 6.2.1): 3 is daemon.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..24))]
    facility: u8,
    #[command(flatten)]
    tls: TlsSettings,
}

impl SinkConfig for SyslogArgs {
    fn builder(&self, _context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        Ok(match self.address.clone().ok_or(ConfigError::Incomplete)? {
            address @ (Address::Udp(_) | Address::Unix(_)) => Arc::new(DatagramSettings::syslog(address)),
            address => Arc::new(StreamSettings { address, tls: self.tls.clone(), framing: Framing::Octets }),
        })
    }

    fn converter(&self, host: &str) -> Option<Convert> {
        let header = convert::Syslog::new(self.facility, host, std::process::id());
        Some(Box::new(move |line, out| header.convert(line, out)))
    }

    fn tls(&self) -> Option<&TlsFiles> {
        Some(&self.tls.files)
    }

    fn warning(&self) -> Option<Problem> {
        let message = self.address.as_ref()?.absent()?;
        Some(Problem { key: "address", message })
    }
}
