//! What the pipeline reports to the service manager, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use crate::service::Notifier;

/// The shortest time between two statuses.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The service manager, and what it knows.
pub struct ServiceReports {
    /// `None` if no service manager asks for reports.
    notifier: Option<Notifier>,
    /// Why the trace sees less than it could.
    degraded: Vec<String>,
    status: String,
    status_at: Instant,
    /// The number of transitions of that status.
    transitions: u64,
}

impl ServiceReports {
    /// Reports to `notifier`, if there is one.
    #[must_use]
    pub fn new(notifier: Option<Notifier>, degraded: Vec<String>) -> Self {
        Self { notifier, degraded, status: String::new(), status_at: Instant::now(), transitions: 0 }
    }

    /// When something is to be reported. A status that would be the same is not.
    pub(super) fn due(&self, transitions: u64) -> Option<Instant> {
        let notifier = self.notifier.as_ref()?;
        let status_at = Some(self.status_at).filter(|_| transitions != self.transitions);
        notifier.next().into_iter().chain(status_at).min()
    }

    /// A reload has begun.
    pub(super) fn reloading(&mut self) {
        if let Some(notifier) = &mut self.notifier {
            notifier.reloading();
        }
    }

    /// The end has begun.
    pub(super) fn stopping(&mut self) {
        if let Some(notifier) = &mut self.notifier {
            notifier.stopping();
        }
    }

    fn degraded(&self) -> Option<String> {
        let first = self.degraded.first()?;
        Some(match self.degraded.len() - 1 {
            0 => format!("degraded: {first}"),
            more => format!("degraded: {first}, and {more} more: see `sockstate doctor`"),
        })
    }
}

impl Pipeline {
    /// The trace goes on as configured: at its start, or after a reload.
    pub(super) fn report_ready(&mut self) {
        if self.service.notifier.is_some() {
            let status = self.status();
            let service = &mut self.service;
            if let Some(notifier) = &mut service.notifier {
                notifier.ready(&status);
            }
            service.noted(status, self.streams.summary.transitions);
        }
    }

    /// The loop goes on. Costs nothing without a service manager.
    pub(super) fn report_alive(&mut self) {
        let Some(notifier) = &mut self.service.notifier else { return };
        let now = Instant::now();
        notifier.keep_alive(now);
        if self.service.status_at <= now {
            self.report_status();
        }
    }

    fn report_status(&mut self) {
        let status = self.status();
        let service = &mut self.service;
        let is_known = status == service.status;
        if let Some(notifier) = &mut service.notifier
            && (is_known || notifier.status(&status))
        {
            service.noted(status, self.streams.summary.transitions);
        }
    }

    /// What the tracer does and has lost, as one line.
    fn status(&self) -> String {
        let summary = self.streams.summary_now();
        let numbers = self.streams.numbers();
        let failing =
            numbers.iter().filter(|sink| sink.failing).map(|sink| format!("sink {} fails", sink.name));
        let mut parts = vec![
            format!("tracing with {}, mini-sockets: {}", self.source.hook(), self.source.tier()),
            summary.to_string(),
        ];
        parts.extend(failing);
        parts.extend(self.service.degraded());
        parts.join("; ")
    }
}

impl ServiceReports {
    fn noted(&mut self, status: String, transitions: u64) {
        (self.status, self.transitions) = (status, transitions);
        self.status_at = Instant::now() + STATUS_EVERY;
    }
}
