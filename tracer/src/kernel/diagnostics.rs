//! The rare words of the kernel programs themselves (aya-log), on standard error. Never an event.

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

/// Shows them from now on. Without their ring there is nothing to show.
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
