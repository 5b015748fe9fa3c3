//! The sockets of a network namespace that sockstate cannot enter, from the /proc/PID/net of a process that is in it. The
//! tables show the endpoints of every socket, but neither its address in the kernel nor its interface.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::Path,
};

use super::{namespaces::Namespace, requests};
use crate::model::Tuple;

/// The endpoints of all TCP sockets in the network namespace `inode`; `None` if no process leads to the namespace, or if a
/// table cannot be read to its end.
pub(super) fn endpoints(inode: u64, namespace: &Namespace) -> Option<HashSet<Tuple>> {
    let process = process(&namespace.path)?;
    let is_there = || fs::metadata(&namespace.path).is_ok_and(|metadata| metadata.ino() == inode);
    let mut found = HashSet::new();
    for table in ["tcp", "tcp6"] {
        match File::open(process.join("net").join(table)) {
            Ok(file) => read(BufReader::new(file), &mut found)?,
            // A kernel without IPv6.
            Err(error) if table == "tcp6" && error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    // The process may have ended, or moved to another namespace, and another process may have its id.
    is_there().then_some(found)
}

/// `/proc/PID` or `/proc/PID/task/TID` of the path of a namespace. Other paths belong to mounts, and lead to no tables.
fn process(path: &Path) -> Option<&Path> {
    let process = path.parent().filter(|_| path.ends_with("ns/net"))?.parent()?;
    let is_id =
        |name: &OsStr| name == "task" || name.to_str().is_some_and(|name| name.parse::<u32>().is_ok());
    process.strip_prefix("/proc").ok()?.iter().all(is_id).then_some(process)
}

/// Reads a table with its heading; `None` if a line cannot be read.
fn read(table: impl BufRead, found: &mut HashSet<Tuple>) -> Option<()> {
    let mut lines = table.lines();
    lines.next()?.ok()?;
    for line in lines {
        let line = line.ok()?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, _state) = (fields.next()?, fields.next()?, fields.next()?);
        found.insert(requests::tuple(local, remote)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;

    const HEADING: &str = "  sl  local_address rem_address   st\n";

    #[test]
    fn only_paths_of_processes_lead_to_tables() {
        for (path, expected) in [
            ("/proc/10/ns/net", Some("/proc/10")),
            ("/proc/10/task/11/ns/net", Some("/proc/10/task/11")),
            ("/proc/10/root/tmp/ns/net", None),
            ("/proc/10/root/run/netns/blue", None),
            ("/tmp/10/ns/net", None),
            ("/proc/self/ns/net", None),
        ] {
            assert_eq!(process(Path::new(path)), expected.map(Path::new), "{path}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_table_is_read_to_its_end_or_not_at_all() {
        let line = "   0: 0100007F:1BF2 0200007F:C350 06 00000000:00000000 03:00000064 00000000     0        0 0 3\n";
        let mut found = HashSet::new();
        assert_eq!(read(format!("{HEADING}{line}").as_bytes(), &mut found), Some(()));
        let tuple = found.into_iter().next().expect("one socket");
        assert_eq!((tuple.local, tuple.local_port), (Address::from_v4([127, 0, 0, 1]), 0x1bf2));
        assert_eq!((tuple.remote, tuple.remote_port), (Address::from_v4([127, 0, 0, 2]), 50000));
        for table in ["", &format!("{HEADING}{}", &line[..30]), &format!("{HEADING}\u{0}\n")] {
            assert_eq!(read(table.as_bytes(), &mut HashSet::new()), None, "{table}");
        }
        assert_eq!(read(HEADING.as_bytes(), &mut HashSet::new()), Some(()), "no socket");
    }
}
