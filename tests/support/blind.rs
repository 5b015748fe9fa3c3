//! Transitions that no BPF program of any tool can see: some kernels run none in the context of the init process
//! (sandboxes that protect their agent do), and a softirq may borrow that context. ftrace sees them.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// An ftrace instance that sees transitions in the context of process 1.
pub(crate) struct Blind {
    instance: PathBuf,
}

impl Blind {
    /// Counts those of two ports from now on.
    pub(crate) fn watch(port: u16) -> Self {
        let next = port + 1;
        Self::with_filter(&format!(
            "protocol == 6 && (sport == {port} || dport == {port} || sport == {next} || dport == {next})"
        ))
    }

    /// Sees all TCP from now on, and the timers that run out.
    pub(crate) fn watch_all() -> Self {
        let blind = Self::with_filter("protocol == 6");
        fs::write(blind.instance.join("events/timer/timer_expire_entry/enable"), "1").expect("timers");
        blind
    }

    /// Whether a mini-socket's time was over in that context.
    pub(crate) fn has_expired_minis(&self) -> bool {
        let text = fs::read_to_string(self.instance.join("trace")).expect("trace");
        text.contains("function=tw_timer_handler") || text.contains("function=reqsk_timer_handler")
    }

    fn with_filter(filter: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockstate-test-{}-{number}", std::process::id());
        let blind = Self { instance: PathBuf::from("/sys/kernel/tracing/instances").join(name) };
        fs::create_dir(&blind.instance).expect("ftrace instance");
        let write = |file: &str, text: &str| fs::write(blind.instance.join(file), text).expect(file);
        let tasks = fs::read_dir("/proc/1/task").expect("tasks").flatten();
        let tids: Vec<String> = tasks.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        write("set_event_pid", &tids.join(" "));
        write("events/sock/inet_sock_set_state/filter", filter);
        write("events/sock/inet_sock_set_state/enable", "1");
        blind
    }

    /// The ports on either side of each.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let text = fs::read_to_string(self.instance.join("trace")).expect("trace");
        let words = text.split_whitespace();
        words
            .filter_map(|word| word.strip_prefix("sport=").or(word.strip_prefix("dport=")))
            .filter_map(|port| port.parse().ok())
            .collect()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        let text = fs::read_to_string(self.instance.join("trace")).expect("trace");
        text.lines().filter(|line| line.contains("inet_sock_set_state:")).count() as u64
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        let _ = fs::write(self.instance.join("events/sock/inet_sock_set_state/enable"), "0");
        let _ = fs::write(self.instance.join("events/timer/timer_expire_entry/enable"), "0");
        let _ = fs::remove_dir(&self.instance);
    }
}
