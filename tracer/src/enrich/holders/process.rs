//! What /proc says of a process that holds a socket.

use std::{fs, path::Path};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    enrich::process::{place_of, read_path},
    model::{Process, Watch, bounds},
};

/// Ticks a second in /proc (`USER_HZ`, 100 on every architecture that Linux supports).
const TICK_NS: u64 = 10_000_000;

/// Events of epoll (`linux/eventpoll.h`) that say what a program waits for.
const EVENTS: [(u32, &str); 5] =
    [(1, "EPOLLIN"), (4, "EPOLLOUT"), (0x2000, "EPOLLRDHUP"), (8, "EPOLLERR"), (0x10, "EPOLLHUP")];

/// `None` where it is gone.
pub(super) fn read(root: &Path, pid: u32) -> Option<Process> {
    let directory = root.join("proc").join(pid.to_string());
    let comm = fs::read(directory.join("comm")).ok()?;
    let stat = fs::read(directory.join("stat")).unwrap_or_default();
    let (parent, age_ns) = parent_and_age(&stat).unwrap_or_default();
    let cgroups = fs::read_to_string(directory.join("cgroup")).unwrap_or_default();
    let place = place_of(&cgroups);
    Some(Process {
        pid,
        comm: String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned(),
        exe: exe(&directory),
        parent,
        parent_exe: exe(&root.join("proc").join(parent.to_string())),
        age_ns,
        cgroup: cgroups
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .map(|path| bounds::kept(path, bounds::PATH).to_owned()),
        container: place.container,
        pod_uid: place.pod_uid,
        unit: place.unit,
        serves: None,
    })
}

fn exe(process: &Path) -> Option<String> {
    read_path(&process.join("exe"))
}

/// Of /proc/PID/stat.
pub(super) fn parent_and_age(stat: &[u8]) -> Option<(u32, Option<u64>)> {
    // The name stands in brackets and may hold anything, brackets too.
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[close + 1..]).ok()?.split_ascii_whitespace().collect();
    // Field 3 is the first behind the name (proc(5)).
    let field = |number: usize| fields.get(number - 3);
    let parent = field(4)?.parse().ok()?;
    let now = clock_gettime(ClockId::Boottime);
    let now_ns = u64::try_from(now.tv_sec).ok()? * 1_000_000_000 + u64::try_from(now.tv_nsec).ok()?;
    let start_ns =
        field(22).and_then(|ticks| ticks.parse::<u64>().ok()).and_then(|ticks| ticks.checked_mul(TICK_NS));
    Some((parent, start_ns.map(|start_ns| now_ns.saturating_sub(start_ns))))
}

/// What the epoll instances wait for, by name.
pub(super) fn watch(events: Option<&u32>) -> Watch {
    let names =
        |events: u32| EVENTS.iter().filter(|(bit, _)| events & bit != 0).map(|(_, name)| *name).collect();
    events.map_or(Watch::NoEpoll, |events| Watch::Epoll(names(*events)))
}
