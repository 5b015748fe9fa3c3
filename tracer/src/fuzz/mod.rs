//! Every reader of foreign data as a function of bytes: for `cargo xtask fuzz`, and for tests with the committed corpus.
//! Builds for users do not contain this module.
//!
//! A target panics if an invariant does not hold. Its caller limits time and memory.

mod recording;
mod spool;
mod table;
#[cfg(test)]
mod tests;

use std::{fs::File, io::Write, os::fd::AsRawFd, path::PathBuf};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::{decode::decode, enrich, kernel, kubernetes, settings, sinks, source, unwind};

/// Passes bytes to one reader, and checks what must hold of the result.
pub type Target = fn(&[u8]);

/// All targets. The corpus of a target is the directory with its name in tests/fuzz/corpus.
pub const TARGETS: [(&str, Target); 20] = [
    ("btf", kernel::fuzz::btf),
    ("cgroup", enrich::fuzz::cgroup),
    ("configuration", configuration),
    ("conntrack", source::fuzz::conntrack),
    ("decode", one_event),
    ("elf", elf),
    ("maps", unwind::fuzz::maps),
    ("perf_map", unwind::fuzz::perf_map),
    ("process", enrich::fuzz::process),
    ("python", unwind::fuzz::python),
    ("recording", recording::read),
    ("sinks_messages", sinks::process::fuzz::messages),
    ("sock_diag", source::fuzz::diag),
    ("socket_tables", source::fuzz::tables),
    ("spool", spool::read),
    ("symbols", symbols),
    ("table", table::follow),
    ("tracepoint", kernel::fuzz::tracepoint),
    ("watch", kubernetes::fuzz::watch),
    ("workload_names", enrich::fuzz::workload_names),
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|(known, _)| *known == name).map(|(_, target)| target)
}

/// Decodes a record of the kernel programs. The padding that the ring adds after a record must not change the result.
fn one_event(bytes: &[u8]) {
    let decoded = decode(bytes);
    if decoded.is_ok() {
        assert_eq!(decode(&[bytes, &[0xff; 8]].concat()), decoded);
    }
}

/// Parses a configuration of `run`. Every problem has a line of the text. Without a problem there are settings.
fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = settings::parse("any", text);
    assert!(read.settings.is_some() || !read.problems.is_empty());
    let lines = text.matches('\n').count() + 1;
    for problem in &read.problems {
        assert!(problem.line <= lines && !problem.message.is_empty(), "{problem}");
    }
}

fn elf(bytes: &[u8]) {
    if let Some((file, _)) = file(bytes) {
        unwind::fuzz::elf(file, bytes.len() as u64);
    }
}

fn symbols(bytes: &[u8]) {
    if let Some((file, _)) = file(bytes) {
        unwind::fuzz::symbols(&file, bytes.len() as u64);
    }
}

/// A file in memory that has these bytes, and a path that leads to it.
fn file(bytes: &[u8]) -> Option<(File, PathBuf)> {
    let mut file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(bytes).ok()?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Some((file, path.into()))
}
