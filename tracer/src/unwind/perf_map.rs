//! Names of code that a program has generated at run time (perf map).

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::OFlags;

use super::files::{self, FileId};
use crate::enrich::TimeOffsets;

/// Limit of the size of a perf map.
const MOST_BYTES: u64 = 64 << 20;
/// Limit of the functions in a perf map.
const MOST_FUNCTIONS: usize = 2 << 20;
/// Tolerance between file times, which lag by a tick, and process start times, which count hundredths of a second.
const SLACK_NS: i128 = 50_000_000;

/// The functions in /tmp/perf-PID.map (`perf-report(1)`; JVMs with an agent, `jcmd PID Compiler.perfmap` or
/// `-XX:+DumpPerfMapAtExit`, Node with `--perf-basic-prof`, Python from 3.12 with `-X perf`).
#[derive(Default)]
pub(super) struct PerfMap {
    text: String,
    /// The functions in the order of their start addresses. Of several with the same start, the last one counts.
    functions: Vec<Function>,
    file: Option<FileId>,
}

struct Function {
    start: u64,
    bytes: u64,
    /// Range of the name in the text.
    name: (usize, usize),
}

impl PerfMap {
    /// Reads the perf map of the process with the /proc directory `directory`, which was started at `start_ns` of the kernel's boot clock.
    /// Returns `before`, an earlier result, if the file has not changed since.
    pub(super) fn read(directory: &Path, start_ns: u64, before: Self) -> Self {
        Self::try_read(directory, start_ns, before).unwrap_or_default()
    }

    fn try_read(directory: &Path, start_ns: u64, before: Self) -> Option<Self> {
        // The status may be long: a process may have 65,536 groups. The name of the process need not be UTF-8.
        let status = BufReader::new(File::open(directory.join("status")).ok()?);
        let lines = status.split(b'\n').map_while(Result::ok);
        let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
        let wanted: Vec<String> =
            lines.filter(|line| ["NSpid:", "Uid:"].iter().any(|key| line.starts_with(key))).collect();
        let values = |key: &str| {
            let line = wanted.iter().find_map(|line| line.strip_prefix(key))?;
            Some(line.split_ascii_whitespace().collect::<Vec<_>>())
        };
        // The last number is the pid in the process's own namespace.
        let pid = *values("NSpid:")?.last()?;
        let uids: Vec<u32> = values("Uid:")?.iter().filter_map(|uid| uid.parse().ok()).collect();
        let name = format!("tmp/perf-{pid}.map");
        let (file, metadata) =
            files::open_below(&directory.join("root"), Path::new(&name), OFlags::NOFOLLOW).ok()?;
        // Every user may write to /tmp, and pids are reused.
        let is_its_own = metadata.uid() == 0 || uids.contains(&metadata.uid());
        let written_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        let is_new = written_ns + SLACK_NS >= began_at(start_ns)?;
        if !is_its_own || !is_new || metadata.len() > MOST_BYTES {
            return None;
        }
        let id = files::identity(&metadata);
        if before.file == Some(id) {
            return Some(before);
        }
        drop(before);
        let mut text = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut text).ok()?;
        let text = String::from_utf8(text);
        let text = text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Self::parse(text).map(|map| Self { file: Some(id), ..map })
    }

    pub(super) fn parse(text: String) -> Option<Self> {
        let mut functions = Vec::new();
        for line in text.lines() {
            let Some((start, bytes, name)) = entry(line) else { continue };
            if functions.len() == MOST_FUNCTIONS {
                return None;
            }
            let at = name.as_ptr().addr() - text.as_ptr().addr();
            functions.push(Function { start, bytes, name: (at, at + name.len()) });
        }
        functions.sort_by_key(|function| function.start);
        Some(Self { text, functions, file: None })
    }

    /// The function at this address, and its start address.
    pub(super) fn find(&self, address: u64) -> Option<(u64, &str)> {
        let behind = self.functions.partition_point(|function| function.start <= address);
        let function = self.functions.get(behind.checked_sub(1)?)?;
        let name = self.text.get(function.name.0..function.name.1)?;
        (address - function.start < function.bytes).then_some((function.start, name))
    }

    /// Bytes of memory that the map takes.
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + self.functions.capacity() * size_of::<Function>()
    }
}

/// Converts a time of the kernel's boot clock to the clock of files, ns since the epoch.
fn began_at(start_ns: u64) -> Option<i128> {
    let boot_ns = i128::from(TimeOffsets::own().boot_clock_ns());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(i128::try_from(now).ok()? - (boot_ns - i128::from(start_ns)))
}

/// `START SIZE NAME`, hexadecimal, with 0x (JDK 17) or without.
fn entry(line: &str) -> Option<(u64, u64, &str)> {
    let mut fields = line.splitn(3, ' ');
    let mut number = || {
        let text = fields.next()?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (start, bytes) = (number()?, number()?);
    Some((start, bytes, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_maps_of_both_spellings() {
        let lines = "0x00007f00 0x0000000000000020 int Leak.open(int)\n9000 10 old\n8000 10 py::serve:/srv/app.py\nbroken\n9000 8 new\n";
        let map = PerfMap::parse(lines.into()).expect("a map");
        assert_eq!(map.find(0x7f1f), Some((0x7f00, "int Leak.open(int)")));
        assert_eq!(map.find(0x7f20), None);
        assert_eq!(map.find(0x8000), Some((0x8000, "py::serve:/srv/app.py")));
        assert_eq!(map.find(0x10), None);
        assert_eq!((map.find(0x9007), map.find(0x9008)), (Some((0x9000, "new")), None));
        assert!(map.bytes() > lines.len());
    }

    #[test]
    fn a_map_of_too_many_functions_is_none() {
        let line = "1 1 a\n";
        assert!(PerfMap::parse(line.repeat(MOST_FUNCTIONS)).is_some());
        assert!(PerfMap::parse(line.repeat(MOST_FUNCTIONS + 1)).is_none());
    }
}
