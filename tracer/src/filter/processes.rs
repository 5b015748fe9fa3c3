//! The filter by process.

use clap::Args;

use crate::values::{parse_comm, parse_pid};

/// The flags. Each has a line in both functions that compare processes.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Whole connections of the process with this id: it opened, holds or accepted them, or owns their listener.
    ///
    /// A trace shows such a connection from its first transition on. Which worker has accepted a connection is known when the worker
    /// closes it. `stuck` and `sockets` show the sockets that the process holds.
    #[arg(long, value_name = "PID", value_parser = parse_pid, value_delimiter = ',', help_heading = "Filter")]
    pub pid: Vec<u32>,
    /// Whole connections of processes with this name.
    ///
    /// The name is that of /proc/PID/comm, which has at most 15 bytes.
    #[arg(long, value_name = "NAME", value_parser = parse_comm, value_delimiter = ',', help_heading = "Filter")]
    pub comm: Vec<String>,
}

impl Processes {
    /// Whether no flag is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this process meets all conditions.
    #[must_use]
    pub fn names(&self, pid: u32, comm: impl AsRef<[u8]>) -> bool {
        self.has_pid(pid) && self.has_comm(comm.as_ref())
    }

    /// Whether each condition is met by one of these processes.
    pub fn are_met_by<'a, Found>(&self, processes: impl Fn() -> Found) -> bool
    where
        Found: Iterator<Item = (u32, &'a str)>,
    {
        (self.pid.is_empty() || processes().any(|(pid, _)| self.has_pid(pid)))
            && (self.comm.is_empty() || processes().any(|(_, comm)| self.has_comm(comm.as_bytes())))
    }

    fn has_pid(&self, pid: u32) -> bool {
        self.pid.is_empty() || self.pid.contains(&pid)
    }

    fn has_comm(&self, comm: &[u8]) -> bool {
        self.comm.is_empty() || self.comm.iter().any(|wanted| wanted.as_bytes() == comm)
    }
}
