//! Processes that give up rights, or change their namespaces, before they run sockstate.

use std::{
    ffi::CString,
    fs, io,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Output, Stdio, exit},
    ptr,
};

use crate::{lab::sockstate, roles::part};

/// Runs sockstate as the child of a process that is confined first.
pub(super) fn confined_run(confinement: &[&str], args: &[&str]) -> Output {
    let value = [confinement.join(";"), args.join("\n")].join("|");
    let program = std::env::current_exe().expect("this program");
    part(&program, "confined", value).stdin(Stdio::null()).output().expect("a confined process")
}

/// The role of a process that gives up what `value` says, then runs sockstate and ends with its exit code.
pub(crate) fn confined(value: &str) {
    let (steps, args) = value.split_once('|').expect("steps and arguments");
    let steps: Vec<String> =
        steps.split(';').filter(|step| !step.is_empty()).map(ToOwned::to_owned).collect();
    // A new /proc shows the pid namespace of the process that mounts it, which must be in it; after that no capability is needed.
    let late = |step: &str| step.starts_with("proc") || step.starts_with("drop");
    for step in steps.iter().filter(|step| !late(step)) {
        apply(step).unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    let steps: Vec<String> = steps.into_iter().filter(|step| late(step)).collect();
    let mut command = sockstate();
    command.args(args.split('\n'));
    // SAFETY: this process has one thread, so that the child may do what it may.
    unsafe { command.pre_exec(move || steps.iter().try_for_each(|step| apply(step))) };
    let status = command.status().expect("sockstate");
    exit(status.code().unwrap_or(99));
}

pub(super) fn apply(step: &str) -> io::Result<()> {
    let (step, argument) = step.split_once(' ').unwrap_or((step, ""));
    match (step, argument) {
        ("user", _) => {
            unshare(libc::CLONE_NEWUSER)?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", "0 0 1")?;
            fs::write("/proc/self/gid_map", "0 0 1")
        }
        ("net", _) => unshare(libc::CLONE_NEWNET),
        ("pid", _) => unshare(libc::CLONE_NEWPID),
        ("mount", _) => {
            unshare(libc::CLONE_NEWNS)?;
            mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")
        }
        ("proc", options) => mount("proc", "/proc", "proc", 0, options),
        ("drop", "all") => (0..64).try_for_each(|capability| match drop_capability(capability) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            _ => Ok(()),
        }),
        ("drop", capability) => drop_capability(capability.parse().expect("a number")),
        ("stale", _) => {
            mount("none", "/run", "tmpfs", 0, "")?;
            fs::create_dir("/run/netns")?;
            fs::write("/run/netns/stale", "")
        }
        ("covered", what) => {
            mount("none", "/run", "tmpfs", 0, "")?;
            fs::create_dir("/run/netns")?;
            fs::write("/run/netns/covered", "")?;
            let home = fs::File::open("/proc/self/ns/net")?;
            if !what.starts_with("own") {
                unshare(libc::CLONE_NEWNET)?;
            }
            mount("/proc/self/ns/net", "/run/netns/covered", "", libc::MS_BIND, "")?;
            // SAFETY: takes an open descriptor and a number.
            if unsafe { libc::setns(home.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            mount("none", "/run/netns", "tmpfs", 0, "")
        }
        (step, argument) => panic!("no step {step} {argument}"),
    }
}

fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: takes a number; this process has one thread.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Removes a capability from the bounding set. This takes effect at the next exec.
pub(crate) fn drop_capability(number: u64) -> io::Result<()> {
    // SAFETY: takes numbers.
    if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

pub(super) fn c_string(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

pub(crate) fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let [source, target, kind, options] = [source, target, kind, options].map(c_string);
    let kind = if kind.is_empty() { ptr::null() } else { kind.as_ptr() };
    // SAFETY: strings that live until it returns.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, options.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
