//! Whether /proc shows every process of the host. Only then a look through /proc is complete.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use caps::{CapSet, Capability};

use crate::{
    model::{Gap, GapKind},
    procfs::text,
};

/// `PROC_PID_INIT_INO` (linux/proc_ns.h): the inode of the pid namespace that the kernel begins with.
const INIT_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// `PROC_USER_INIT_INO`.
const INIT_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Why /proc does not show every process of the host; `None` where it does.
#[must_use]
pub fn hidden_processes() -> Option<Gap> {
    let inode = |path: &str| fs::metadata(path).ok().map(|metadata| metadata.ino());
    let of_proc = |line: &String| line.split(' ').nth(4) == Some("/proc");
    let mounts: Vec<String> = text::lines(Path::new("/proc/self/mountinfo")).filter(of_proc).collect();
    let mounts = mounts.join("\n");
    let is_mounted = fs::read_link("/proc/self").is_ok();
    let why = if !is_mounted {
        Some("/proc is not mounted, or is of a pid namespace that this process is not in".into())
    } else if is_of_first_pid_namespace(inode("/proc/1/ns/pid"), inode("/proc/self/ns/pid")) {
        let option = hiding_option(&mounts).filter(|_| !may_read_processes());
        option.map(|option| {
            let needed = needs(Capability::CAP_SYS_PTRACE);
            format!("processes are hidden, because /proc is mounted with hidepid={option}: {needed}")
        })
    } else {
        Some(
            "/proc shows only the processes of a pid namespace of its own, as in a container: run in the \
             host's pid namespace (Kubernetes: hostPID; docker and podman: --pid=host)"
                .into(),
        )
    };
    why.map(|why: String| Gap::new(GapKind::Processes, why))
}

/// Decides by the pid namespace of process 1 of /proc. If that cannot be read, decides by our own: a /proc that shows a process of
/// the first namespace belongs to the first namespace.
fn is_of_first_pid_namespace(of_first_process: Option<u64>, own: Option<u64>) -> bool {
    of_first_process.or(own) == Some(INIT_PID_NAMESPACE)
}

/// The value of `hidepid` that hides processes from the listing of /proc (proc(5)). `noaccess` only refuses reads, which are
/// noticed later; `subset=pid` hides no process.
fn hiding_option(mountinfo: &str) -> Option<&str> {
    // The last mount covers the others.
    let mount = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc"))?;
    let options = mount.split_once(" - ")?.1.split(' ').nth(2)?;
    let value = options.split(',').find_map(|option| option.strip_prefix("hidepid="))?;
    ["2", "4", "invisible", "ptraceable"].contains(&value).then_some(value)
}

/// Whether this process may read every process of /proc, unless a security module forbids it.
#[must_use]
pub fn may_read_processes() -> bool {
    has_everywhere(Capability::CAP_SYS_PTRACE)
}

/// Whether this process is in the initial pid namespace, in which the kernel's iterators list all processes.
pub(super) fn is_in_first_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|metadata| metadata.ino() == INIT_PID_NAMESPACE)
}

/// Whether this thread has the capability over processes of every user namespace.
pub(super) fn has_everywhere(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false) && !is_in_user_namespace()
}

fn is_in_user_namespace() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|metadata| metadata.ino() != INIT_USER_NAMESPACE)
}

/// What the user can do after the kernel has refused an operation that takes this capability.
#[must_use]
pub fn needs(capability: Capability) -> String {
    advice(capability, has_everywhere(capability), is_in_user_namespace())
}

fn advice(capability: Capability, is_held: bool, is_in_user_namespace: bool) -> String {
    if is_held {
        format!("this process has {capability}, so a security module (SELinux, AppArmor, Yama) may forbid it")
    } else if is_in_user_namespace {
        format!(
            "needs {capability} outside of this user namespace, whose root has no rights there: run as the host's root"
        )
    } else {
        format!("needs {capability}: run as root")
    }
}

/// Whether the process or descriptor no longer exists, which is not a gap.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Whether the kernel has refused access.
pub(super) fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_namespace_is_known_by_the_first_process_that_proc_shows() {
        for (of_first, own, is_first) in [
            (Some(INIT_PID_NAMESPACE), Some(INIT_PID_NAMESPACE), true),
            // A container with the host's /proc.
            (Some(INIT_PID_NAMESPACE), Some(4_026_532_200), true),
            (Some(4_026_532_200), Some(4_026_532_200), false),
            // Not permitted to read process 1.
            (None, Some(INIT_PID_NAMESPACE), true),
            (None, Some(4_026_532_200), false),
            (None, None, false),
        ] {
            assert_eq!(is_of_first_pid_namespace(of_first, own), is_first, "{of_first:?} {own:?}");
        }
    }

    #[test]
    fn advice_names_the_capability_only_where_it_is_missing() {
        for (is_held, is_in_user_namespace, start) in [
            (true, false, "this process has CAP_SYS_PTRACE, so a security module"),
            (false, false, "needs CAP_SYS_PTRACE: run as root"),
            (false, true, "needs CAP_SYS_PTRACE outside of this user namespace"),
        ] {
            let advice = advice(Capability::CAP_SYS_PTRACE, is_held, is_in_user_namespace);
            assert!(advice.starts_with(start), "{advice}");
        }
    }

    #[test]
    fn options_of_proc_that_hide_processes() {
        let proc = |options: &str| format!("22 1 0:20 / /proc rw,relatime shared:5 - proc proc {options}\n");
        for (options, hides) in [
            ("rw", None),
            ("rw,hidepid=0", None),
            ("rw,hidepid=noaccess", None),
            ("rw,gid=4,hidepid=1", None),
            ("rw,subset=pid", None),
            ("rw,hidepid=2", Some("2")),
            ("rw,hidepid=invisible,subset=pid", Some("invisible")),
            ("rw,hidepid=ptraceable", Some("ptraceable")),
        ] {
            assert_eq!(hiding_option(&proc(options)), hides, "{options}");
        }
        let elsewhere = "30 22 0:40 / /mnt/proc rw - proc proc rw,hidepid=2\n";
        assert_eq!(hiding_option(&(proc("rw") + elsewhere)), None);
        let covered = proc("rw,hidepid=2") + &proc("rw");
        assert_eq!(hiding_option(&covered), None, "what was mounted last counts");
        assert_eq!(hiding_option(""), None);
    }
}
