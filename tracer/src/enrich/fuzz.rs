//! Fuzz targets: the parsers of /proc, with any bytes.

use super::{CgroupNames, TimeOffsets, holders, names, process};

/// Files of a process: `stat`, `fdinfo`, `timens_offsets`.
pub(crate) fn process(bytes: &[u8]) {
    process::fuzz(bytes);
    holders::fuzz(bytes);
    let offsets = TimeOffsets::parse(&String::from_utf8_lossy(bytes));
    assert!(offsets == TimeOffsets::default() || !bytes.is_empty());
}

/// `/proc/PID/cgroup`. All names that are found must be in the text.
pub(crate) fn cgroup(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let CgroupNames { container, pod, unit, .. } = process::names_of(&text);
    assert!(unit.is_none_or(|unit| text.contains(&unit)));
    assert!(container.is_none_or(|container| container.id.len() <= 4 * text.len()));
    // systemd replaces the separator in a uid.
    assert!(pod.is_none_or(|pod| text.replace('_', "-").contains(&pod.uid)));
}

/// Names of the kubelet's directories, and state files of container runtimes.
pub(crate) fn workload_names(bytes: &[u8]) {
    names::fuzz(bytes);
}
