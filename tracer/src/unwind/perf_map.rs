//! Names of code that a program has made itself.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::files::open_regular;

/// A larger map is not read.
const MOST_BYTES: u64 = 64 << 20;
/// The clock of files lags by a tick, and that of processes counts in hundredths of a second.
const SLACK_NS: i128 = 50_000_000;

/// What it tells in /tmp/perf-PID.map (`perf-report(1)`; JVMs with an agent, `jcmd PID Compiler.perfmap` or
/// `-XX:+DumpPerfMapAtExit`, Node with `--perf-basic-prof`, Python from 3.12 with `-X perf`).
#[derive(Default)]
pub(super) struct PerfMap(BTreeMap<u64, (u64, String)>);

impl PerfMap {
    /// Of the process whose /proc directory this is, and that began at `start_ns` of the boot clock.
    pub(super) fn read(directory: &Path, start_ns: u64) -> Self {
        Self::try_read(directory, start_ns).unwrap_or_default()
    }

    fn try_read(directory: &Path, start_ns: u64) -> Option<Self> {
        let status = fs::read_to_string(directory.join("status")).ok()?;
        let values = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.split_ascii_whitespace().collect::<Vec<_>>())
        };
        // The last one is its number in its own namespace.
        let pid = *values("NSpid:")?.last()?;
        let uids: Vec<u32> = values("Uid:")?.iter().filter_map(|uid| uid.parse().ok()).collect();
        let (file, metadata) = open_regular(&directory.join(format!("root/tmp/perf-{pid}.map"))).ok()?;
        // Everybody may write to /tmp, and numbers of processes are used again.
        let is_its_own = metadata.uid() == 0 || uids.contains(&metadata.uid());
        let written_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        let is_new = written_ns + SLACK_NS >= began_at(start_ns)?;
        if !is_its_own || !is_new || metadata.len() > MOST_BYTES {
            return None;
        }
        let mut text = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut text).ok()?;
        Some(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(entry).collect())
    }

    /// The function at this address, and where it begins.
    pub(super) fn find(&self, address: u64) -> Option<(u64, &str)> {
        let (start, (len, name)) = self.0.range(..=address).next_back()?;
        (address - start < *len).then_some((*start, name))
    }
}

/// That moment by the clock of files, in ns since 1970.
fn began_at(start_ns: u64) -> Option<i128> {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let boot_ns = i128::from(boot.tv_sec) * 1_000_000_000 + i128::from(boot.tv_nsec);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(i128::try_from(now).ok()? - (boot_ns - i128::from(start_ns)))
}

/// `START SIZE NAME`, hexadecimal, with 0x (JDK 17) or without.
fn entry(line: &str) -> Option<(u64, (u64, String))> {
    let mut fields = line.splitn(3, ' ');
    let mut number = || {
        let text = fields.next()?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (start, len) = (number()?, number()?);
    Some((start, (len, fields.next()?.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_maps_of_both_spellings() {
        let lines =
            "0x00007f00 0x0000000000000020 int Leak.open(int)\n8000 10 py::serve:/srv/app.py\nbroken\n";
        let map = PerfMap::parse(lines);
        assert_eq!(map.find(0x7f1f), Some((0x7f00, "int Leak.open(int)")));
        assert_eq!(map.find(0x7f20), None);
        assert_eq!(map.find(0x8000), Some((0x8000, "py::serve:/srv/app.py")));
        assert_eq!(map.find(0x10), None);
    }
}
