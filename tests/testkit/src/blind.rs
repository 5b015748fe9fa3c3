//! Transitions that no BPF program of any tool can see. Some kernels run no BPF program in the context of the init
//! process (kernels of sandboxes that protect their agent), and a softirq may run in that context. ftrace sees these
//! transitions.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// An ftrace instance that sees transitions in the context of process 1.
pub struct Blind {
    instance: PathBuf,
}

impl Blind {
    /// Counts the transitions of `port` and of the port after it, from now on.
    ///
    /// # Errors
    /// ftrace does not accept the instance, or the filter.
    pub fn watch(port: u16) -> io::Result<Self> {
        let next = port + 1;
        Self::with_filter(&format!(
            "protocol == 6 && (sport == {port} || dport == {port} || sport == {next} || dport == {next})"
        ))
    }

    /// Sees all TCP transitions from now on.
    ///
    /// # Errors
    /// As [`Blind::watch`].
    pub fn watch_tcp() -> io::Result<Self> {
        Self::with_filter("protocol == 6")
    }

    /// Sees all TCP transitions from now on, and the timers that expire.
    ///
    /// # Errors
    /// As [`Blind::watch`].
    pub fn watch_all() -> io::Result<Self> {
        let blind = Self::with_filter("protocol == 6")?;
        fs::write(blind.instance.join("events/timer/timer_expire_entry/enable"), "1")?;
        Ok(blind)
    }

    /// Whether the timer of a mini-socket expired in the context of process 1.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn has_expired_minis(&self) -> io::Result<bool> {
        Ok(self.expired_requests()? + self.expired("tw_timer_handler")? > 0)
    }

    /// How often the timer of a request expired in the context of process 1.
    ///
    /// # Errors
    /// The trace cannot be read.
    pub fn expired_requests(&self) -> io::Result<usize> {
        self.expired("reqsk_timer_handler")
    }

    fn expired(&self, handler: &str) -> io::Result<usize> {
        Ok(self.text()?.matches(&format!("function={handler}")).count())
    }

    fn text(&self) -> io::Result<String> {
        fs::read_to_string(self.instance.join("trace"))
    }

    fn with_filter(filter: &str) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockstate-test-{}-{number}", std::process::id());
        let blind = Self { instance: PathBuf::from("/sys/kernel/tracing/instances").join(name) };
        fs::create_dir(&blind.instance)?;
        let write = |file: &str, text: &str| fs::write(blind.instance.join(file), text);
        let tasks = fs::read_dir("/proc/1/task")?.flatten();
        let tids: Vec<String> = tasks.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        write("set_event_pid", &tids.join(" "))?;
        // Also the tasks that process 1 starts later.
        write("options/event-fork", "1")?;
        write("events/sock/inet_sock_set_state/filter", filter)?;
        write("events/sock/inet_sock_set_state/enable", "1")?;
        Ok(blind)
    }

    /// The local and remote ports of these transitions.
    pub fn ports(&self) -> io::Result<Vec<u16>> {
        let text = self.text()?;
        let ports = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("sport=").or(word.strip_prefix("dport=")));
        Ok(ports.filter_map(|port| port.parse().ok()).collect())
    }

    /// How many transitions ftrace saw.
    pub fn count(&self) -> io::Result<u64> {
        Ok(self.text()?.lines().filter(|line| line.contains("inet_sock_set_state:")).count() as u64)
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        let _ = fs::write(self.instance.join("events/sock/inet_sock_set_state/enable"), "0");
        let _ = fs::write(self.instance.join("events/timer/timer_expire_entry/enable"), "0");
        let _ = fs::remove_dir(&self.instance);
    }
}
