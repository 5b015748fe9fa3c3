//! Reads a process that holds a socket from /proc.

use std::{fs, path::Path};

use crate::{
    enrich::{
        TimeOffsets,
        names::Catalog,
        process::{names_of, read_path},
        stat::Stat,
    },
    model::{Process, Watch, bounds},
};

/// Events of epoll (`linux/eventpoll.h`) that a program may wait for.
const EVENTS: [(u32, &str); 5] =
    [(1, "EPOLLIN"), (4, "EPOLLOUT"), (0x2000, "EPOLLRDHUP"), (8, "EPOLLERR"), (0x10, "EPOLLHUP")];

/// `None` if the process no longer exists.
pub(super) fn read(root: &Path, pid: u32, catalog: &mut Catalog) -> Option<Process> {
    let directory = root.join("proc").join(pid.to_string());
    // The kernel limits these files: a name of 64 bytes, a line of numbers, a path of 4,096 bytes for each hierarchy.
    let comm = fs::read(directory.join("comm")).ok()?;
    let stat = Stat::read(&directory);
    let parent = stat.as_ref().and_then(Stat::parent).unwrap_or_default();
    let cgroups = fs::read_to_string(directory.join("cgroup")).unwrap_or_default();
    let mut names = names_of(&cgroups);
    catalog.complete(&mut names);
    Some(Process {
        pid,
        comm: String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned(),
        exe: exe(&directory),
        parent,
        parent_exe: exe(&root.join("proc").join(parent.to_string())),
        age_ns: stat.as_ref().and_then(|stat| TimeOffsets::own().age_ns(stat)),
        cgroup: cgroups
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .map(|path| bounds::kept(path, bounds::PATH).to_owned()),
        container: names.container,
        pod: names.pod,
        unit: names.unit,
        serves: None,
    })
}

fn exe(process: &Path) -> Option<String> {
    read_path(&process.join("exe"))
}

/// The names of the events that the epoll instances wait for.
pub(super) fn watch(events: Option<&u32>) -> Watch {
    let names =
        |events: u32| EVENTS.iter().filter(|(bit, _)| events & bit != 0).map(|(_, name)| *name).collect();
    events.map_or(Watch::NoEpoll, |events| Watch::Epoll(names(*events)))
}
