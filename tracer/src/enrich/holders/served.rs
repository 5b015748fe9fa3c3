//! Network stacks in user space (pasta, slirp4netns): finds the network namespace that such a process serves, and the
//! container in the namespace.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    super::{names::Catalog, netns::netns_at},
    process,
};
use crate::model::{Process, Served};

/// Programs that hold sockets of the host for another network namespace. pasta is another name of passt; on some processors it
/// executes a special build, and the process then has that build's name.
const STACKS: [&str; 5] = ["pasta", "pasta.avx2", "passt", "passt.avx2", SLIRP];
const SLIRP: &str = "slirp4netns";
/// A limit that no slirp4netns reaches: any process may have that name, and long arguments.
const MAX_ARGUMENTS: u64 = 64 << 10;

/// The namespace that a process serves; `None` for other programs, and if neither descriptors nor command line show it.
pub(super) fn served(root: &Path, holder: &Process, catalog: &mut Catalog) -> Option<Served> {
    if !STACKS.contains(&holder.comm.as_str()) {
        return None;
    }
    let named = || by_command_line(root, holder.pid).filter(|_| holder.comm == SLIRP);
    let netns = by_descriptor(root, holder.pid).or_else(named)?;
    let inside = runs_in(root, netns, holder.pid, catalog);
    let Process { container, pod, unit, .. } = inside.unwrap_or_default();
    Some(Served { netns, container, pod, unit })
}

fn directory(root: &Path, pid: u32) -> PathBuf {
    root.join("proc").join(pid.to_string())
}

/// Inode of the network namespace that a link leads to.
fn netns_of(link: &Path) -> Option<u32> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("net:[")?.strip_suffix("]")?.parse().ok()
}

/// Finds the namespace by a descriptor: pasta keeps a descriptor of the namespace open.
fn by_descriptor(root: &Path, pid: u32) -> Option<u32> {
    let own = netns_of(&directory(root, pid).join("ns/net"));
    let entries = fs::read_dir(directory(root, pid).join("fd")).ok()?.flatten();
    // A namespace that was opened by the path of its mount has that path as its target.
    let leads_to = |path: &Path| netns_of(path).or_else(|| netns_at(path));
    let mut found: Vec<u32> = entries.filter_map(|entry| leads_to(&entry.path())).collect();
    found.retain(|netns| Some(*netns) != own);
    found.sort_unstable();
    found.dedup();
    if let [one] = found[..] { Some(one) } else { None }
}

/// Finds the namespace by the command line: `slirp4netns [OPTION]... PID TAP`. PID is a number in the pid namespace of
/// slirp4netns, or a path in its mount namespace (`--netns-type=path`).
fn by_command_line(root: &Path, pid: u32) -> Option<u32> {
    let same_pids = |one: &Path, other: &Path| {
        let namespace = |path: &Path| fs::read_link(path.join("ns/pid")).ok();
        namespace(one).is_some_and(|namespace_id| Some(namespace_id) == namespace(other))
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(directory(root, pid).join("cmdline")).ok()?;
    file.take(MAX_ARGUMENTS).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 == MAX_ARGUMENTS {
        return None;
    }
    let words: Vec<&[u8]> = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let target = words.len().checked_sub(2).and_then(|at| std::str::from_utf8(words[at]).ok());
    match target?.parse().ok() {
        Some(target) if same_pids(&directory(root, pid), &root.join("proc/self")) => {
            netns_of(&directory(root, target).join("ns/net"))
        }
        Some(_) => None,
        None => netns_at(&directory(root, pid).join("root").join(target?.strip_prefix('/')?)),
    }
}

/// A process in that namespace whose cgroups name a container or unit.
fn runs_in(root: &Path, netns: u32, stack: u32, catalog: &mut Catalog) -> Option<Process> {
    let entries = fs::read_dir(root.join("proc")).ok()?.flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter()
        .filter(|pid| *pid != stack && netns_of(&directory(root, *pid).join("ns/net")) == Some(netns))
        .filter_map(|pid| process::read(root, pid, catalog))
        .find(|process| process.container.is_some() || process.unit.is_some())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn add(root: &Path, pid: u32, comm: &str, netns: u32) -> PathBuf {
        let process = directory(root, pid);
        fs::create_dir_all(process.join("fd")).expect("fd");
        fs::create_dir_all(process.join("ns")).expect("ns");
        fs::write(process.join("comm"), format!("{comm}\n")).expect("comm");
        symlink(format!("net:[{netns}]"), process.join("ns/net")).expect("link");
        symlink("pid:[1]", process.join("ns/pid")).expect("link");
        process
    }

    #[test]
    fn the_container_behind_a_stack() {
        let directory = tempfile::tempdir().expect("directory");
        let root = directory.path();
        fs::create_dir_all(root.join("proc/self/ns")).expect("ns");
        symlink("pid:[1]", root.join("proc/self/ns/pid")).expect("link");
        let id = "0123456789abcdef".repeat(4);
        let inside = add(root, 30, "app", 77);
        fs::write(inside.join("cgroup"), format!("0::/system.slice/libpod-{id}.scope\n")).expect("cgroup");
        let pasta = add(root, 10, "pasta.avx2", 5);
        symlink("net:[5]", pasta.join("fd/3")).expect("link");
        symlink("net:[77]", pasta.join("fd/4")).expect("link");
        let slirp = add(root, 11, "slirp4netns", 5);
        fs::write(slirp.join("cmdline"), b"slirp4netns\0-c\x0030\0tap0\0").expect("cmdline");
        let runtime = add(root, 12, "dockerd", 5);
        symlink("net:[77]", runtime.join("fd/4")).expect("link");
        let elsewhere = add(root, 13, "slirp4netns", 5);
        fs::write(elsewhere.join("cmdline"), b"slirp4netns\x0030\0tap0\0").expect("cmdline");
        fs::remove_file(elsewhere.join("ns/pid")).expect("link");
        symlink("pid:[2]", elsewhere.join("ns/pid")).expect("link");
        let of = |pid: u32| {
            let mut catalog = Catalog::new(root);
            let process = process::read(root, pid, &mut catalog).expect("a process");
            served(root, &process, &mut catalog)
        };
        for pid in [10, 11] {
            let found = of(pid).expect("it serves one");
            assert_eq!(
                (found.netns, found.container.map(|container| container.id)),
                (77, Some(id.clone())),
                "{pid}"
            );
        }
        assert_eq!(of(12), None, "no network stack");
        assert_eq!(of(13), None, "its numbers mean other processes");
        symlink("net:[78]", pasta.join("fd/5")).expect("link");
        assert_eq!(of(10), None, "one of two");
        // A descriptor that was opened by the path of a mount; the process has the name of the build for this processor.
        let own = fs::metadata("/proc/self/ns/net").expect("namespace");
        let own = u32::try_from(std::os::unix::fs::MetadataExt::ino(&own)).expect("inode");
        let mounted = add(root, 14, "passt.avx2", 5);
        symlink("/proc/self/ns/net", mounted.join("fd/3")).expect("link");
        symlink("/proc/self/ns/uts", mounted.join("fd/4")).expect("link");
        assert_eq!(of(14).map(|found| found.netns), Some(own));
        let by_path = add(root, 15, SLIRP, 5);
        fs::write(by_path.join("cmdline"), b"slirp4netns\0--netns-type=path\0/run/name\0tap0\0")
            .expect("cmdline");
        assert_eq!(of(15), None, "nothing is there");
        fs::create_dir_all(by_path.join("root/run")).expect("root");
        symlink("/proc/self/ns/net", by_path.join("root/run/name")).expect("link");
        assert_eq!(of(15).map(|found| found.netns), Some(own));
        // passt itself serves a virtual machine.
        add(root, 16, "passt", 5);
        assert_eq!(of(16), None);
    }
}
