//! io_uring instances: their registered files and waiting requests, from `fdinfo`.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    thread,
    time::Duration,
};

use super::socket_inode;

/// How often `fdinfo` is read: the kernel leaves the files out while another task works on the ring.
const READS: usize = 5;
/// Time between two reads.
const PAUSE: Duration = Duration::from_millis(1);

/// The sockets of an io_uring instance.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Inodes of the sockets that are registered files.
    pub sockets: Vec<u64>,
    /// The instance may hold other sockets: files without an inode in `fdinfo`, waiting requests, or `fdinfo` is not readable.
    pub may_hold_more: bool,
}

/// Reads the io_uring instance with descriptor `fd` of process `pid`.
pub fn read(root: &Path, pid: u32, fd: u32) -> Ring {
    let path = root.join("proc").join(pid.to_string()).join("fdinfo").join(fd.to_string());
    for attempt in 0..READS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        match File::open(&path).ok().map(|file| parse(BufReader::new(file))) {
            Some(Some(ring)) => return ring,
            Some(None) => {}
            None => break,
        }
    }
    Ring { sockets: Vec::new(), may_hold_more: true }
}

/// Parses `fdinfo`, which may have a million lines; `None` if the kernel has left the files out.
pub fn parse(text: impl BufRead) -> Option<Ring> {
    let mut ring = Ring::default();
    let (mut registered, mut listed) = (None, 0);
    let mut section = "";
    for line in text.lines() {
        let line = line.ok()?;
        if let Some(count) = line.strip_prefix("UserFiles:") {
            registered = Some(count.trim().parse::<usize>().ok()?);
            section = "files";
        } else if !line.starts_with([' ', '\t']) {
            section = if line.starts_with("PollList:") { "polls" } else { "" };
        } else if section == "polls" {
            ring.may_hold_more = true;
        } else if section == "files" {
            listed += 1;
            let file = line.split_once(": ").map_or("", |(_, file)| file.trim());
            match socket_inode(file.as_bytes()) {
                Some(inode) => ring.sockets.push(inode),
                // Before Linux 6.13 the kernel shows a socket by the name of its protocol.
                None => ring.may_hold_more |= !file.contains('/') && file != "<none>",
            }
        }
    }
    if registered? > 0 && listed == 0 { None } else { Some(ring) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(sockets: &[u64], may_hold_more: bool) -> Option<Ring> {
        Some(Ring { sockets: sockets.to_vec(), may_hold_more })
    }

    #[test]
    fn registered_files_and_waiting_requests() {
        for (text, found) in [
            ("pos:\t0\nUserFiles:\t0\nUserBufs:\t0\nPollList:\n", ring(&[], false)),
            ("UserFiles:\t1\n    0: socket:[77]\nUserBufs:\t0\nPollList:\n", ring(&[77], false)),
            ("UserFiles:\t2\n    0: /etc/passwd\n    1: socket:[5]\nPollList:\n", ring(&[5], false)),
            ("UserFiles:\t0\nUserBufs:\t0\nPollList:\n  op=6, task_works=0\n", ring(&[], true)),
            // Without inodes, as Linux 5.10 shows them.
            ("UserFiles:\t2\n    0: TCP\n    1: <none>\nUserBufs:\t0\n", ring(&[], true)),
            // While the ring is locked.
            ("UserFiles:\t3\nUserBufs:\t0\n", None),
            ("pos:\t0\nflags:\t02000002\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()), found, "{text}");
        }
    }
}
