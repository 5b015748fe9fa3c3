//! Reads /proc/PID, and checks that it is still the same process.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{container::CgroupNames, stat::Stat, timens::TimeOffsets};
use crate::model::{Task, bounds};

/// Details of a process; `None` for what could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) exe: Option<String>,
    pub(super) cmdline: Option<Rc<str>>,
}

/// The executable of `task`, and with `cmdline` its command line.
pub(super) fn details(root: &Path, task: &Task, cmdline: bool) -> Details {
    let directory = directory(root, task);
    let found = Details {
        exe: read_path(&directory.join("exe")),
        cmdline: cmdline.then(|| read_cmdline(&directory)).flatten(),
    };
    // Checked last: if the pid was reused during the reads, they are from another process.
    if is_same(&directory, task) { found } else { Details::default() }
}

/// Container, pod and unit by the cgroups of `task` in all hierarchies.
pub(super) fn cgroup_names(root: &Path, task: &Task) -> CgroupNames {
    let directory = directory(root, task);
    // A line for each hierarchy, which the kernel limits to 4,096 bytes.
    let Ok(text) = fs::read_to_string(directory.join("cgroup")) else { return CgroupNames::default() };
    let names = names_of(&text);
    if is_same(&directory, task) { names } else { CgroupNames::default() }
}

/// Parses `/proc/PID/cgroup`. In a private cgroup namespace the paths of other processes begin with `/..`, and the names after
/// that are right.
pub(super) fn names_of(text: &str) -> CgroupNames {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.map(CgroupNames::of).fold(CgroupNames::default(), CgroupNames::or)
}

fn directory(root: &Path, task: &Task) -> PathBuf {
    root.join("proc").join(task.pid.to_string())
}

/// The target of a symbolic link.
pub(super) fn read_path(link: &Path) -> Option<String> {
    let path = fs::read_link(link).ok()?;
    Some(bounds::keep(path.to_string_lossy().into(), bounds::PATH))
}

/// Reads the beginning of the command line, because a process may have megabytes of arguments.
fn read_cmdline(directory: &Path) -> Option<Rc<str>> {
    /// Room for one more character, and for another one that may be cut.
    const LIMIT: u64 = bounds::COMMAND_LINE as u64 + 8;
    let mut bytes = Vec::new();
    File::open(directory.join("cmdline")).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let line = String::from_utf8_lossy(words).replace('\0', " ");
    (!line.is_empty()).then(|| bounds::kept(&line, bounds::COMMAND_LINE).into())
}

/// Whether the process with this /proc directory is still `task`: by its start time if that is known, otherwise by its name.
#[must_use]
pub fn is_same(directory: &Path, task: &Task) -> bool {
    let Some(stat) = Stat::read(directory) else { return false };
    if task.start_ns == 0 {
        return stat.comm == task.comm();
    }
    TimeOffsets::own().began_with(&stat, task)
}

/// Whether `task` still has running threads.
pub(super) fn lives(root: &Path, task: &Task) -> bool {
    let Some(stat) = Stat::read(&directory(root, task)) else { return false };
    let is_same = task.start_ns == 0 || TimeOffsets::own().began_with(&stat, task);
    let has_threads = stat.number(20).is_some_and(|threads| threads > 1);
    is_same && (has_threads || !matches!(stat.field(3), Some("Z" | "X")))
}

/// Whether `pid` is one of the kernel's own threads: `PF_KTHREAD` (include/linux/sched.h).
pub(super) fn is_kernel_thread(root: &Path, pid: u32) -> bool {
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let stat = Stat::read(&root.join("proc").join(pid.to_string()));
    stat.and_then(|stat| stat.number(9)).is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// Whether /proc is of the initial pid namespace, whose process ids the kernel programs report.
pub(super) fn shows_all(root: &Path) -> bool {
    /// `PROC_PID_INIT_INO` (include/linux/proc_ns.h).
    const INITIAL: &str = "pid:[4026531836]";
    fs::read_link(root.join("proc/self/ns/pid")).is_ok_and(|path| path.as_os_str() == INITIAL)
}

/// Fuzz target: parses `stat`.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    let Some(stat) = Stat::parse(bytes) else { return };
    assert!(stat.comm.len() < bytes.len());
    TimeOffsets::own().began_with(&stat, &Task { pid: 1, exec_id: 0, start_ns: 1, comm: [0; 16] });
    stat.number(9);
    stat.parent();
    TimeOffsets::own().age_ns(&stat);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::procfs::TICK_NS;

    fn task(start_ns: u64) -> Task {
        Task { pid: 42, exec_id: 1, start_ns, comm: *b"we) (ird\0\0\0\0\0\0\0\0" }
    }

    fn fixture(test: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("sockstate-{test}-{}", std::process::id()));
        let process = root.join("proc/42");
        fs::create_dir_all(&process).expect("directory");
        let rest = "S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 5000 0 0";
        fs::write(process.join("stat"), format!("42 (we) (ird) {rest}\n")).expect("stat");
        fs::write(process.join("cmdline"), b"srv\0--token\0s3cret\0").expect("cmdline");
        let cgroup = "4:memory:/\n1:name=systemd:/system.slice/srv.service\n0::/\n";
        fs::write(process.join("cgroup"), cgroup).expect("cgroup");
        symlink("/usr/bin/srv", process.join("exe")).expect("exe");
        root
    }

    #[test]
    fn the_same_process_is_read_and_another_one_is_not() {
        let root = fixture("process");
        let same = task(5000 * TICK_NS + 1234);
        let found = details(&root, &same, false);
        assert_eq!(found, Details { exe: Some("/usr/bin/srv".into()), cmdline: None });
        assert_eq!(details(&root, &same, true).cmdline.as_deref(), Some("srv --token s3cret"));
        assert_eq!(cgroup_names(&root, &same).unit.as_deref(), Some("srv.service"));
        assert_eq!(details(&root, &task(4999 * TICK_NS), true), Details::default());
        assert_eq!(cgroup_names(&root, &task(4999 * TICK_NS)), CgroupNames::default());
        // Without a start time the name must do.
        assert!(details(&root, &task(0), false).exe.is_some());
        let renamed = Task { comm: *b"other\0\0\0\0\0\0\0\0\0\0\0", ..task(0) };
        assert!(details(&root, &renamed, false).exe.is_none());
        // From a private cgroup namespace.
        for (path, unit) in
            [("/../../system.slice/srv.service", Some("srv.service")), ("/../..", None), ("/", None)]
        {
            fs::write(root.join("proc/42/cgroup"), format!("0::{path}\n")).expect("cgroup");
            let found = cgroup_names(&root, &same);
            assert_eq!((found.unit.as_deref(), found.container), (unit, None), "{path}");
        }
        fs::remove_dir_all(root).expect("clean up");
    }

    #[test]
    fn a_process_that_is_gone_has_no_details() {
        assert_eq!(details(Path::new("/nonexistent"), &task(1), true), Details::default());
    }
}
