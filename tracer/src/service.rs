//! The service manager, by the protocol of sd_notify(3): readiness, reloads, the end, the status, and the watchdog.
//!
//! The main loop sends these messages itself, so that the watchdog notices if the loop hangs. It must not wait for the
//! service manager, and the libraries for this protocol do: a message that finds no room is kept here, and sent later.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::model::printable;

/// When a message that was not sent is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Limit of the status in characters; the service manager refuses messages above 4096 bytes.
const MAX_STATUS: usize = 1000;

/// Sends messages to the service manager.
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// The newest state that the service manager has not got, and when it is tried again. It stands for earlier states.
    unsent: Option<(String, Instant)>,
    watchdog: Option<Watchdog>,
    is_failing: bool,
}

/// When the service manager must hear that the loop goes on.
struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Notifier {
    /// For the service manager that has started this process; `None` if that is none, or not one with this protocol.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        let pid = env::var("WATCHDOG_PID").ok();
        let every = watchdog_interval(env::var("WATCHDOG_USEC").ok().as_deref(), pid.as_deref());
        match Self::new(&name, every) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                message!("cannot report to the service manager at {}: {error}", name.display());
                None
            }
        }
    }

    fn new(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let manager = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let watchdog = watchdog.map(|every| Watchdog { every, next: Instant::now() });
        Ok(Self { socket, manager, unsent: None, watchdog, is_failing: false })
    }

    /// The service is ready: for the first time, or after a reload.
    pub fn ready(&mut self, status: &str) {
        self.announce(format!("READY=1\n{}", status_line(status)));
    }

    /// A reload has begun.
    pub fn reloading(&mut self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        let status = status_line("reading the configuration again");
        self.announce(format!("RELOADING=1\nMONOTONIC_USEC={micros}\n{status}"));
    }

    /// The end has begun. It may take as long as the sinks have for their remaining records.
    pub fn stopping(&mut self) {
        let status = status_line("stopping: delivering the remaining records");
        let watchdog = if self.watchdog.is_some() { "WATCHDOG=1\n" } else { "" };
        self.announce(format!("STOPPING=1\n{watchdog}{status}"));
    }

    /// Describes what the service does. Returns whether the service manager has got it.
    pub fn status(&mut self, text: &str) -> bool {
        self.unsent.is_none() && self.send(&status_line(text))
    }

    /// The loop goes on: tells the service manager if that is due, and sends what could not be sent before.
    pub fn keep_alive(&mut self, now: Instant) {
        if self.unsent.as_ref().is_some_and(|(_, retry_at)| *retry_at <= now)
            && let Some((state, _)) = self.unsent.take()
        {
            self.announce(state);
        }
        let due =
            self.watchdog.as_ref().filter(|watchdog| watchdog.next <= now).map(|watchdog| watchdog.every);
        if let Some(every) = due {
            let wait = if self.send("WATCHDOG=1\n") { every } else { RETRY.min(every) };
            self.watchdog = Some(Watchdog { every, next: now + wait });
        }
    }

    /// When [`Notifier::keep_alive`] has something to do.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        let retry_at = self.unsent.as_ref().map(|(_, retry_at)| *retry_at);
        retry_at.into_iter().chain(self.watchdog.as_ref().map(|watchdog| watchdog.next)).min()
    }

    fn announce(&mut self, state: String) {
        self.unsent = (!self.send(&state)).then(|| (state, Instant::now() + RETRY));
    }

    fn send(&mut self, text: &str) -> bool {
        let result = self.socket.send_to_addr(text.as_bytes(), &self.manager);
        match &result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if !self.is_failing => {
                message!("cannot report to the service manager: {error}; trying again");
                self.is_failing = true;
            }
            Err(_) => {}
            Ok(_) => self.is_failing = false,
        }
        result.is_ok()
    }
}

/// Half of the time after which the service manager takes this process for hung; `None` if it does not watch this process.
fn watchdog_interval(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return None;
    }
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec) / 2)
}

/// One line, of limited length.
fn status_line(text: &str) -> String {
    let text: String = text.chars().take(MAX_STATUS).collect();
    format!("STATUS={}\n", printable(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager's socket, and a notifier for it.
    fn manager(watchdog: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("socket");
        socket.set_nonblocking(true).expect("non-blocking");
        let notifier = Notifier::new(path.as_os_str(), watchdog).expect("notifier");
        (directory, socket, notifier)
    }

    fn received(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn the_watchdog_is_for_this_process_only() {
        let own = std::process::id().to_string();
        let half = Some(Duration::from_secs(15));
        assert_eq!(watchdog_interval(Some("30000000"), Some(&own)), half);
        assert_eq!(watchdog_interval(Some("30000000"), None), half);
        assert_eq!(watchdog_interval(Some("30000000"), Some("1")), None);
        assert_eq!(watchdog_interval(Some("0"), None), None);
        assert_eq!(watchdog_interval(Some("soon"), None), None);
        assert_eq!(watchdog_interval(None, Some(&own)), None);
    }

    #[test]
    fn the_loop_is_alive_only_when_it_says_so() {
        let every = Duration::from_secs(10);
        let (_directory, socket, mut notifier) = manager(Some(every));
        let begin = Instant::now();
        notifier.keep_alive(begin);
        assert_eq!(received(&socket).as_deref(), Some("WATCHDOG=1\n"));
        assert_eq!(notifier.next(), Some(begin + every));
        notifier.keep_alive(begin + every / 2);
        assert_eq!(received(&socket), None, "not due");
        notifier.keep_alive(begin + every);
        assert_eq!(received(&socket).as_deref(), Some("WATCHDOG=1\n"));
    }

    #[test]
    fn without_a_watchdog_nothing_is_due() {
        let (_directory, socket, mut notifier) = manager(None);
        notifier.keep_alive(Instant::now());
        assert_eq!(received(&socket), None);
        assert_eq!(notifier.next(), None);
    }

    #[test]
    fn a_full_socket_delays_the_state_and_nothing_else() {
        let (_directory, socket, mut notifier) = manager(Some(Duration::from_secs(60)));
        while notifier.status("filling") {}
        notifier.ready("first");
        notifier.reloading();
        notifier.ready("traces");
        assert!(!notifier.status("later"), "the state comes first");
        while received(&socket).is_some() {}
        notifier.keep_alive(Instant::now() + RETRY);
        assert_eq!(received(&socket).as_deref(), Some("READY=1\nSTATUS=traces\n"), "the newest state");
        assert_eq!(received(&socket).as_deref(), Some("WATCHDOG=1\n"));
        assert!(notifier.status("later"));
    }

    #[test]
    fn a_service_manager_that_comes_back_gets_the_state() {
        let (directory, socket, mut notifier) = manager(None);
        let path = directory.path().join("notify");
        drop(socket);
        std::fs::remove_file(&path).expect("removed");
        notifier.ready("traces");
        let socket = UnixDatagram::bind(&path).expect("socket");
        let retry_at = notifier.next().expect("another attempt");
        notifier.keep_alive(retry_at);
        assert_eq!(received(&socket).as_deref(), Some("READY=1\nSTATUS=traces\n"));
    }

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(status_line("a\nREADY=1"), "STATUS=a\u{fffd}READY=1\n");
        assert_eq!(status_line(&"x".repeat(5000)).len(), "STATUS=\n".len() + MAX_STATUS);
    }

    #[test]
    fn an_abstract_socket_is_found_by_its_name() {
        let name = format!("sockstate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let socket = UnixDatagram::bind_addr(&address).expect("socket");
        let mut notifier = Notifier::new(OsStr::new(&format!("@{name}")), None).expect("notifier");
        notifier.stopping();
        assert!(received(&socket).is_some_and(|text| text.starts_with("STOPPING=1\nSTATUS=")));
    }
}
