//! Transitions that no BPF program of any tool can see. Some kernels run no BPF program in the context of the init
//! process (kernels of sandboxes that protect their agent), and a softirq may run in that context. ftrace sees these
//! transitions.

use std::{
    collections::HashSet,
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// What ftrace sees in the context of process 1.
pub struct Blind {
    first: Instance,
    /// The timers of mini-sockets that are set in any context: a `timer_cancel` names no function.
    timers: Option<Instance>,
}

/// An instance of ftrace. It ends with this value.
struct Instance(PathBuf);

/// The functions of the timers of mini-sockets.
const REQUEST: &str = "reqsk_timer_handler";
const TIMEWAIT: &str = "tw_timer_handler";

impl Blind {
    /// Counts the transitions of `port` and of the port after it, from now on.
    ///
    /// # Errors
    /// ftrace does not accept the instance, or the filter.
    pub fn watch(port: u16) -> io::Result<Self> {
        let next = port + 1;
        Self::with_filter(
            1,
            &format!(
                "protocol == 6 && (sport == {port} || dport == {port} || sport == {next} || dport == {next})"
            ),
        )
    }

    /// Sees all TCP transitions from now on.
    ///
    /// # Errors
    /// As [`Blind::watch`].
    pub fn watch_tcp() -> io::Result<Self> {
        Self::with_filter(1, "protocol == 6")
    }

    /// Sees all TCP transitions and the timers of mini-sockets from now on.
    ///
    /// # Errors
    /// As [`Blind::watch`]; /proc/kallsyms names no timer of mini-sockets.
    pub fn watch_all() -> io::Result<Self> {
        Self::watch_all_of(1)
    }

    /// As [`Blind::watch_all`], in the context of another process.
    ///
    /// # Errors
    /// As [`Blind::watch_all`].
    pub fn watch_all_of(pid: u32) -> io::Result<Self> {
        let mut blind = Self::with_filter(pid, "protocol == 6")?;
        let functions: Vec<String> = addresses(&[REQUEST, TIMEWAIT])?
            .iter()
            .map(|address| format!("function == 0x{address}"))
            .collect();
        let functions = functions.join(" || ");
        for event in ["timer_start", "timer_expire_entry"] {
            blind.first.enable(&format!("timer/{event}"), Some(&functions))?;
        }
        blind.first.enable("timer/timer_cancel", None)?;
        let timers = Instance::new()?;
        timers.enable("timer/timer_start", Some(&functions))?;
        blind.timers = Some(timers);
        Ok(blind)
    }

    /// How many events of the timers of mini-sockets occurred in the context of process 1: each may have hidden the
    /// begin or the end of one mini-socket.
    ///
    /// # Errors
    /// A trace cannot be read.
    pub fn mini_timers(&self) -> io::Result<usize> {
        self.timers_of(&[REQUEST, TIMEWAIT])
    }

    /// As [`Blind::mini_timers`], of requests.
    ///
    /// # Errors
    /// A trace cannot be read.
    pub fn request_timers(&self) -> io::Result<usize> {
        self.timers_of(&[REQUEST])
    }

    fn timers_of(&self, functions: &[&str]) -> io::Result<usize> {
        let names_one = |line: &&str| {
            let function = line.split_whitespace().find_map(|word| word.strip_prefix("function="));
            function.is_some_and(|function| functions.contains(&function))
        };
        let set = self.timers.as_ref().map(Instance::text).transpose()?.unwrap_or_default();
        let set: HashSet<&str> = set.lines().filter(names_one).filter_map(timer).collect();
        let text = self.first.text()?;
        let is_of = |line: &&str| {
            names_one(line)
                || line.contains("timer_cancel:") && timer(line).is_some_and(|timer| set.contains(timer))
        };
        Ok(text.lines().filter(is_of).count())
    }

    fn with_filter(pid: u32, filter: &str) -> io::Result<Self> {
        let first = Instance::new()?;
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let tids: Vec<String> = tasks.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        first.write("set_event_pid", &tids.join(" "))?;
        // Also the tasks that the process starts later.
        first.write("options/event-fork", "1")?;
        first.enable(SET_STATE, Some(filter))?;
        Ok(Self { first, timers: None })
    }

    /// The local and remote ports of these transitions.
    pub fn ports(&self) -> io::Result<Vec<u16>> {
        let text = self.first.text()?;
        let ports = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("sport=").or(word.strip_prefix("dport=")));
        Ok(ports.filter_map(|port| port.parse().ok()).collect())
    }

    /// How many transitions ftrace saw.
    pub fn count(&self) -> io::Result<u64> {
        Ok(self.first.text()?.lines().filter(|line| line.contains("inet_sock_set_state:")).count() as u64)
    }
}

const SET_STATE: &str = "sock/inet_sock_set_state";

impl Instance {
    fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockstate-test-{}-{number}", std::process::id());
        let instance = Self(PathBuf::from("/sys/kernel/tracing/instances").join(name));
        fs::create_dir(&instance.0)?;
        Ok(instance)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }

    fn enable(&self, event: &str, filter: Option<&str>) -> io::Result<()> {
        if let Some(filter) = filter {
            self.write(&format!("events/{event}/filter"), filter)?;
        }
        self.write(&format!("events/{event}/enable"), "1")
    }

    fn text(&self) -> io::Result<String> {
        fs::read_to_string(self.0.join("trace"))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // An instance with enabled events cannot be removed.
        let _ = self.write("events/enable", "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// The addresses of kernel functions.
fn addresses(functions: &[&str]) -> io::Result<Vec<String>> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let lines = symbols.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let found = lines.filter(|words| words.get(2).is_some_and(|name| functions.contains(name)));
    let found: Vec<String> = found.map(|words| words[0].to_owned()).collect();
    if found.is_empty() {
        Err(io::Error::other(format!("/proc/kallsyms has none of {functions:?}")))
    } else {
        Ok(found)
    }
}

/// The timer that a line of a trace names.
fn timer(line: &str) -> Option<&str> {
    line.split_whitespace().find_map(|word| word.strip_prefix("timer="))
}
