//! Forwards log messages of the kernel programs (aya-log) to standard error.

use log::{Log, Metadata, Record};
use tokio::io::unix::AsyncFd;

use super::loaded::Loaded;

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        message!("kernel program: {}", record.args());
    }

    fn flush(&self) {}
}

/// Starts to forward log messages, if the object has the ring of aya-log.
pub fn show_diagnostics(loaded: &mut Loaded) {
    let Ok(logger) = aya_log::EbpfLogger::init_with_logger(&mut loaded.ebpf, Stderr) else { return };
    // SAFETY: the logger owns its ring's descriptor and keeps it open as long as it lives.
    let Ok(mut logger) = (unsafe { AsyncFd::register(logger) }) else { return };
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
}
