//! Parses `/proc/PID/stat` (proc(5)).

use std::{fs, path::Path};

/// `/proc/PID/stat`.
pub(super) struct Stat {
    pub(super) comm: Vec<u8>,
    /// The fields after the name.
    rest: String,
}

impl Stat {
    /// Reads `stat` in a process's /proc directory.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        Self::parse(&fs::read(directory.join("stat")).ok()?)
    }

    pub(super) fn parse(stat: &[u8]) -> Option<Self> {
        // The name is in parentheses, and may contain any bytes, also parentheses.
        let close = stat.iter().rposition(|&byte| byte == b')')?;
        let open = stat.iter().position(|&byte| byte == b'(')?;
        let comm = stat.get(open + 1..close)?.to_vec();
        Some(Self { comm, rest: String::from_utf8_lossy(&stat[close + 1..]).into_owned() })
    }

    /// Field `number`, as proc(5) counts them; the first one after the name is 3.
    pub(super) fn field(&self, number: usize) -> Option<&str> {
        self.rest.split_ascii_whitespace().nth(number - 3)
    }

    /// Start time of the process, in `USER_HZ` ticks of the boot clock.
    pub(super) fn start_ticks(&self) -> Option<u64> {
        self.number(22)
    }

    pub(super) fn parent(&self) -> Option<u32> {
        self.field(4)?.parse().ok()
    }

    pub(super) fn number(&self, number: usize) -> Option<u64> {
        self.field(number)?.parse().ok()
    }
}
