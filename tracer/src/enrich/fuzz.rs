//! What is read of /proc, from any bytes.

use super::{Place, TimeOffsets, holders, process};

/// Files of a process: `stat`, `fdinfo`, `timens_offsets`.
pub(crate) fn process(bytes: &[u8]) {
    process::fuzz(bytes);
    holders::fuzz(bytes);
    let offsets = TimeOffsets::parse(&String::from_utf8_lossy(bytes));
    assert!(offsets == TimeOffsets::default() || !bytes.is_empty());
}

/// `/proc/PID/cgroup`. What is found stands in the text.
pub(crate) fn cgroup(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Place { container, pod_uid, unit } = process::place_of(&text);
    assert!(unit.is_none_or(|unit| text.contains(&unit)));
    assert!(container.is_none_or(|container| container.id.len() <= 4 * text.len()));
    // systemd has it with another character between its parts.
    assert!(pod_uid.is_none_or(|uid| text.replace('_', "-").contains(&uid)));
}
