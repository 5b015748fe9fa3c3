//! The format of the classic tracepoint's record, which tracefs describes.

use std::{fs, io, path::PathBuf};

use sockstate_abi::abi::TracepointFormat;
use thiserror::Error;

/// The usual mount points of tracefs.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why tracefs cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TracefsError {
    #[error("tracefs is not mounted")]
    NotMounted,
    #[error("tracefs is mounted at {}, but this process may not read it", MOUNTS[0])]
    NotReadable,
}

/// The mount point of tracefs.
///
/// # Errors
/// It is not mounted, or this process may not read it.
pub(super) fn mount() -> Result<PathBuf, TracefsError> {
    let events = |path: &PathBuf| fs::metadata(path.join("events"));
    if let Some(path) = MOUNTS.iter().map(PathBuf::from).find(|path| events(path).is_ok()) {
        return Ok(path);
    }
    // Where nothing is mounted, the directory is one of sysfs, which everybody may read.
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let is_there = events(&PathBuf::from(MOUNTS[0])).is_err_and(is_refused);
    Err(if is_there { TracefsError::NotReadable } else { TracefsError::NotMounted })
}

/// The format of `sock:inet_sock_set_state` on this kernel.
///
/// # Errors
/// What is missing.
pub(super) fn format() -> Result<TracepointFormat, String> {
    let mount = mount().map_err(|error| error.to_string())?;
    let path = mount.join("events/sock/inet_sock_set_state/format");
    let text =
        fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse(&text).ok_or_else(|| format!("{} lacks a field", path.display()))
}

pub(super) fn parse(text: &str) -> Option<TracepointFormat> {
    Some(TracepointFormat {
        skaddr: field(text, "skaddr")?.0,
        oldstate: field(text, "oldstate")?.0,
        newstate: field(text, "newstate")?.0,
        sport: field(text, "sport")?.0,
        dport: field(text, "dport")?.0,
        family: field(text, "family")?.0,
        protocol: field(text, "protocol")?.0,
        protocol_size: field(text, "protocol")?.1,
        saddr: field(text, "saddr")?.0,
        daddr: field(text, "daddr")?.0,
        saddr_v6: field(text, "saddr_v6")?.0,
        daddr_v6: field(text, "daddr_v6")?.0,
    })
}

/// Offset and size of one field, from a line such as
/// `field:const void * skaddr;`, then `offset:8;`, `size:8;` and `signed:0;`, separated by tabs.
fn field(text: &str, name: &str) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';').map(str::trim);
        let declared = parts.next()?.rsplit([' ', '*']).next()?;
        if declared.split('[').next()? != name {
            return None;
        }
        let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse().ok();
        Some((number("offset:")?, number("size:")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EL9: &str = "
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:const void * skaddr;	offset:16;	size:8;	signed:0;
	field:int oldstate;	offset:24;	size:4;	signed:1;
	field:int newstate;	offset:28;	size:4;	signed:1;
	field:__u16 sport;	offset:32;	size:2;	signed:0;
	field:__u16 dport;	offset:34;	size:2;	signed:0;
	field:__u16 family;	offset:36;	size:2;	signed:0;
	field:__u8 protocol;	offset:38;	size:1;	signed:0;
	field:__u8 saddr[4];	offset:39;	size:4;	signed:0;
	field:__u8 daddr[4];	offset:43;	size:4;	signed:0;
	field:__u8 saddr_v6[16];	offset:47;	size:16;	signed:0;
	field:__u8 daddr_v6[16];	offset:63;	size:16;	signed:0;
";

    #[test]
    fn offsets_come_from_the_format_not_from_memory() {
        let format = parse(EL9).expect("complete");
        assert_eq!((format.skaddr, format.newstate, format.daddr_v6), (16, 28, 63));
        assert_eq!((format.protocol, format.protocol_size), (38, 1));
        assert!(parse(&EL9.replace("newstate", "other")).is_none());
    }
}
