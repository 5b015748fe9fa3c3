//! Tools for measurements: the CPU time and memory of a process, and the kernel's statistics of BPF programs.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::Pid;

use crate::{command, output};

/// A process that is killed when the value is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: takes numbers; the process is a child that has not been waited for.
        unsafe { libc::kill(self.0.id() as libc::pid_t, signal) };
    }

    /// Interrupts the process and waits for its end, up to a limit: bpftrace sometimes ignores the signal.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.signal(libc::SIGINT);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.0.kill()?;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The CPU time of the process's threads so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu(self.0.id())
    }

    /// Resident memory, in MB.
    pub(crate) fn rss(&self) -> Result<f64> {
        rss(self.0.id())
    }

    /// The process that its main thread has started, if there is one.
    pub(crate) fn child(&self) -> Result<Option<Pid>> {
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.split_whitespace().next().map(str::parse).transpose()?;
        Ok(child.and_then(Pid::from_raw))
    }
}

/// Resident memory of a process, in MB.
pub(crate) fn rss(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kb: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kb / 1024.0)
}

/// CPU time of a process's threads so far, in seconds.
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let mut ns = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat"))?;
        ns += text.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(ns / 1e9)
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const TRACEFS: &str = "/sys/kernel/tracing";

/// Mounts tracefs if it is not mounted yet.
pub(crate) fn mount_tracefs() -> Result<()> {
    if !Path::new(TRACEFS).join("events").exists() {
        command(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))?;
    }
    Ok(())
}

/// A BPF program and its statistics.
pub(crate) struct Program {
    pub(crate) name: String,
    /// How long the program ran, in ns.
    pub(crate) ns: f64,
    /// How often the program ran.
    pub(crate) runs: f64,
}

/// Enables the kernel's statistics of BPF programs, as long as the value exists.
pub(crate) struct Statistics;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Statistics {
    pub(crate) fn on() -> Result<Self> {
        fs::write(SWITCH, "1").context("cannot enable BPF statistics; run as root")?;
        Ok(Self)
    }

    /// The statistics of every program, by id.
    pub(crate) fn programs() -> Result<BTreeMap<u64, Program>> {
        let text = output(Command::new("bpftool").args(["--json", "prog", "show"]))?;
        let programs: serde_json::Value = serde_json::from_str(&text)?;
        // A program that never ran has no time.
        let program = |record: &serde_json::Value| {
            let number = |key: &str| record[key].as_f64().unwrap_or(0.0);
            let program = Program {
                name: record["name"].as_str().unwrap_or_default().to_owned(),
                ns: number("run_time_ns"),
                runs: number("run_cnt"),
            };
            Some((record["id"].as_u64()?, program))
        };
        Ok(programs.as_array().map(|all| all.iter().filter_map(program).collect()).unwrap_or_default())
    }

    /// What the programs have done since `before`.
    pub(crate) fn since(before: &BTreeMap<u64, Program>) -> Result<Vec<Program>> {
        let mut now = Self::programs()?;
        for (id, program) in &mut now {
            if let Some(old) = before.get(id) {
                program.ns -= old.ns;
                program.runs -= old.runs;
            }
        }
        Ok(now.into_values().collect())
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, "0");
    }
}
