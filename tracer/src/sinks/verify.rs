//! What would keep a sink from starting, found without starting it: nothing is changed, and nothing is connected to.

use super::{
    Address, SinkSettings, SpoolError, TargetSettings, TlsSettings,
    file::FileSink,
    target::{Reason, cannot_open, pipe},
    transport::PipeSink,
};
use crate::files;

/// Something that keeps a sink from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The sink's key that it is about.
    pub key: &'static str,
    /// What [`start`](super::start) says of it.
    pub message: String,
}

/// All that would keep the sink from starting.
#[must_use]
pub fn verify(settings: &SinkSettings) -> Vec<Problem> {
    let mut reasons = of_target(&settings.target);
    if let Some(spool) = &settings.spool
        && let Err(error) = files::can_make(&spool.path)
    {
        let path = spool.path.display().to_string();
        reasons.push(("spool", SpoolError::Directory { path, source: error.into() }.into()));
    }
    let name = &settings.name;
    let problem = |(key, reason)| Problem { key, message: format!("sink {name}: {reason}") };
    reasons.into_iter().map(problem).collect()
}

fn of_target(target: &TargetSettings) -> Vec<(&'static str, Reason)> {
    match target {
        TargetSettings::Stdout | TargetSettings::Datagram(_) | TargetSettings::Journald(_) => Vec::new(),
        TargetSettings::File(settings) => {
            let checked = if PipeSink::takes(&settings.path) {
                pipe(settings, Vec::new()).map(drop)
            } else {
                let file = FileSink::new(settings.clone(), Vec::new());
                file.verify().map_err(cannot_open(&settings.path))
            };
            checked.err().map(|reason| ("path", reason)).into_iter().collect()
        }
        TargetSettings::Stream(Address::Tls(_), tls, _) => of_tls(tls),
        TargetSettings::Stream(..) => Vec::new(),
        TargetSettings::Http(settings, tls) => of_http(settings, tls),
        #[cfg(feature = "grpc")]
        TargetSettings::Grpc(settings, tls) => of_http(settings, tls),
        #[cfg(feature = "kafka")]
        TargetSettings::Kafka(_) => Vec::new(),
        #[cfg(feature = "nats")]
        TargetSettings::Nats(settings, tls) => {
            let is_used = settings.url.contains("tls://") || *tls != TlsSettings::default();
            if is_used { of_tls(tls) } else { Vec::new() }
        }
    }
}

fn of_http(settings: &super::HttpSettings, tls: &TlsSettings) -> Vec<(&'static str, Reason)> {
    let mut found: Vec<(&'static str, Reason)> =
        settings.problems().into_iter().map(|error| (error.key(), error.into())).collect();
    if settings.url.starts_with("https:") {
        found.extend(of_tls(tls));
    }
    found
}

fn of_tls(settings: &TlsSettings) -> Vec<(&'static str, Reason)> {
    settings.problems().into_iter().map(|error| (error.key(), error.into())).collect()
}
