//! `sockstate doctor --privileges`: the capabilities of each thread of a running sockstate, and what the thread is for.

use std::{collections::BTreeSet, fs, io};

use anyhow::Result;
use serde_json::{Value, json};

use super::super::{Failure, exit, lock};
use crate::{cli::DEFAULT_LOCK, display::paragraph, sinks::process::PROCESS_NAME};

/// The threads of sockstate (docs/architecture.md) and what each does, by the first 15 bytes of its name.
const PURPOSES: [(&str, &str); 19] = [
    ("namespaces", "lists network namespaces, to compare connections with the kernel's tables"),
    ("visit", "enters a network namespace, to read its sockets"),
    ("examiner", "finds out why a connection is stuck, and which process holds it"),
    ("holders", "finds the processes that hold a listener"),
    ("counters", "reads the counters of connections that go on"),
    ("nat", "asks conntrack how it translates connections"),
    ("unwinder", "reads mappings and executables of processes, for the names of functions"),
    ("names", "reads the names of pods and containers"),
    ("kubernetes", "asks the API server of Kubernetes about the pods of this node"),
    ("reload", "reads the configuration again"),
    ("sink-open", "opens the file, the certificates or the spool of a sink"),
    ("sink-prepare", "reads the configuration, and checks whether its sinks can start"),
    ("to-sinks", "sends records to the process of the sinks"),
    (FROM_SINKS, "receives what the process of the sinks reports"),
    ("signals", "ends the process when the service manager asks for it"),
    ("sink-zstd", "compresses a rotated file"),
    ("resolver", "asks DNS for a collector's address"),
    ("metrics", "answers scrapers"),
    ("messages", "writes standard error"),
];
const FROM_SINKS: &str = "from-sinks";
const MAIN: &str = "reads the ring and the maps of the kernel programs, and what /proc shows of processes";
const SINKS: &str = "receives records from the tracer's process, for the sinks";
const SINK: &str = "delivers records to a sink";
const UNKNOWN: &str = "not a thread that this version of sockstate knows";

/// The threads of a daemon.
pub(super) struct Privileges {
    tracer: Process,
    /// The process of the sinks (`sinks-user`, `sinks-socket`).
    sinks: Option<Process>,
}

struct Process {
    pid: u32,
    threads: Vec<Thread>,
}

struct Thread {
    tid: u32,
    name: String,
    uid: u32,
    /// The names of the permitted capabilities.
    capabilities: Vec<String>,
    no_new_privs: bool,
    seccomp: bool,
}

impl Privileges {
    /// Of the process `pid`, or else of the daemon that has the default lock.
    pub(super) fn find(pid: Option<u32>) -> Result<Self> {
        let pid = pid.or_else(lock::daemon).ok_or_else(|| Failure {
            code: exit::FAILURE,
            message: format!(
                "no sockstate daemon runs: no process has locked {}; start one, or name a process: sockstate doctor \
                 --privileges PID",
                DEFAULT_LOCK
            ),
        })?;
        let process = |pid| {
            let threads = threads(pid).map_err(|error| Failure {
                code: exit::FAILURE,
                message: format!("cannot read the threads of process {pid}: {error}"),
            })?;
            Ok::<_, Failure>(Process { pid, threads })
        };
        Ok(Self { tracer: process(pid)?, sinks: sinks_of(pid).map(process).transpose()? })
    }

    pub(super) fn text(&self, width: Option<usize>) -> String {
        let Some(sinks) = &self.sinks else { return self.tracer.text(width) };
        let (tracer, sinks) = ((&self.tracer, "the tracer"), (sinks, "the sinks"));
        let text = |(process, what): (&Process, &str)| {
            format!("process {} ({what})\n{}", process.pid, process.text(width))
        };
        [tracer, sinks].map(text).join("\n")
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "schema": "sockstate/1",
            "kind": "privileges",
            "pid": self.tracer.pid,
            "threads": self.tracer.json(),
            "sinks": self.sinks.as_ref().map(|sinks| json!({ "pid": sinks.pid, "threads": sinks.json() })),
        })
    }
}

impl Process {
    fn text(&self, width: Option<usize>) -> String {
        let mut out = String::new();
        for thread in &self.threads {
            let head = format!("thread {:>7} {:<15} ", thread.tid, thread.name);
            let held = if thread.capabilities.is_empty() {
                "no capability".to_owned()
            } else {
                thread.capabilities.join(", ")
            };
            out.push_str(&paragraph(&head, &format!("{held}: {}", self.purpose(thread)), width));
        }
        let users: BTreeSet<u32> = self.threads.iter().map(|thread| thread.uid).collect();
        let users: Vec<String> = users.iter().map(u32::to_string).collect();
        let all = |has: fn(&Thread) -> bool| if self.threads.iter().all(has) { "yes" } else { "NO" };
        for (key, value) in [
            ("user", users.join(", ").as_str()),
            ("no_new_privs", all(|thread| thread.no_new_privs)),
            ("seccomp", all(|thread| thread.seccomp)),
        ] {
            out.push_str(&paragraph(&format!("{key:<14} "), value, width));
        }
        out
    }

    fn json(&self) -> Vec<Value> {
        let threads = self.threads.iter().map(|thread| {
            json!({
                "tid": thread.tid,
                "name": thread.name,
                "uid": thread.uid,
                "capabilities": thread.capabilities,
                "no_new_privs": thread.no_new_privs,
                "seccomp": thread.seccomp,
                "purpose": self.purpose(thread),
            })
        });
        threads.collect()
    }

    fn purpose(&self, thread: &Thread) -> &'static str {
        let known = PURPOSES.iter().find(|(name, _)| *name == thread.name);
        match known {
            _ if thread.tid == self.pid && thread.name == PROCESS_NAME => SINKS,
            _ if thread.tid == self.pid => MAIN,
            Some((_, purpose)) => purpose,
            None if thread.name.starts_with("sink-") => SINK,
            None => UNKNOWN,
        }
    }
}

/// The process of the sinks that the process `pid` has started, or that the service manager has started for it.
fn sinks_of(pid: u32) -> Option<u32> {
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).ok()?.filter_map(Result::ok).collect();
    let of_tasks = |file: &str| -> Vec<String> {
        tasks.iter().filter_map(|task| fs::read_to_string(task.path().join(file)).ok()).collect()
    };
    let is_sinks = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == PROCESS_NAME)
    };
    let children = of_tasks("children");
    let child = children.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse().ok());
    child.into_iter().find(is_sinks).or_else(|| {
        // Only a tracer with such a process has this thread.
        of_tasks("comm").iter().find(|name| name.trim_end() == FROM_SINKS)?;
        let all = fs::read_dir("/proc").ok()?;
        let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| is_sinks(pid) && is_started_by_init(*pid)).min()
    })
}

fn is_started_by_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.split_whitespace().eq(["PPid:", "1"]))
}

fn threads(pid: u32) -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        // A thread may have ended meanwhile.
        let status = fs::read_to_string(entry.path().join("status"));
        threads.extend(status.ok().and_then(|status| parse(&status)));
    }
    threads.sort_by_key(|thread| thread.tid);
    Ok(threads)
}

/// Parses /proc/PID/task/TID/status.
fn parse(status: &str) -> Option<Thread> {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim)
    };
    let held = u64::from_str_radix(field("CapPrm")?, 16).ok()?;
    Some(Thread {
        tid: field("Pid")?.parse().ok()?,
        name: field("Name")?.to_owned(),
        uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        capabilities: names(held),
        no_new_privs: field("NoNewPrivs") == Some("1"),
        seccomp: field("Seccomp").is_some_and(|mode| mode != "0"),
    })
}

/// The names of the capabilities in a mask; the number of one that has no name yet.
fn names(held: u64) -> Vec<String> {
    let known = caps::all();
    let name = |bit: u8| {
        let found = known.iter().find(|capability| capability.index() == bit);
        found.map_or_else(|| format!("capability {bit}"), ToString::to_string)
    };
    (0..64).filter(|bit| held >> bit & 1 == 1).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\texaminer\nTgid:\t7\nPid:\t9\nUid:\t0\t65534\t0\t0\nCapInh:\t0000000000000000\n\
                          CapPrm:\t8000000000000004\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    #[test]
    fn a_status_has_the_permitted_capabilities() {
        let thread = parse(STATUS).expect("a thread");
        assert_eq!((thread.tid, thread.uid), (9, 65534));
        assert_eq!(thread.capabilities, ["CAP_DAC_READ_SEARCH", "capability 63"]);
        assert!(thread.no_new_privs && thread.seccomp);
        let status = STATUS.replace("NoNewPrivs:\t1\nSeccomp:\t2", "NoNewPrivs:\t0\nSeccomp:\t0");
        let thread = parse(&status).expect("a thread");
        assert!(!thread.no_new_privs && !thread.seccomp);
        assert!(parse("Name:\texaminer\n").is_none());
    }

    #[test]
    fn the_purpose_follows_from_the_name() {
        let purpose = |pid, name: &str| {
            let thread = Thread { name: name.to_owned(), ..parse(STATUS).expect("a thread") };
            Process { pid, threads: Vec::new() }.purpose(&thread)
        };
        assert_eq!(purpose(9, "sockstate"), MAIN);
        assert_eq!(purpose(9, "sockstate-sinks"), SINKS);
        assert_eq!(purpose(7, "sink-collector1"), SINK);
        assert_eq!(purpose(7, "sink-open"), "opens the file, the certificates or the spool of a sink");
        assert_eq!(purpose(7, "other"), UNKNOWN);
    }

    #[test]
    fn the_kernel_shows_the_whole_name() {
        assert!(PURPOSES.iter().all(|(name, _)| name.len() <= 15));
    }
}
