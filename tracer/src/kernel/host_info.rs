//! Facts about the machine, for `doctor`.

use std::{fs, path::Path};

use rustix::{
    process::{Resource, getrlimit},
    system::uname,
};

use super::{
    btf::KERNEL_BTF,
    tracefs::{self, TracefsError},
};

/// A capability that tracing uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    pub name: &'static str,
    pub held: bool,
    pub purpose: &'static str,
    /// Whether tracing is impossible without it.
    pub required: bool,
}

/// The kernel, its settings, and the capabilities and limits of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// Size of the kernel's BTF in bytes; `None` if there is none.
    pub btf_bytes: Option<u64>,
    pub capabilities: Vec<Capability>,
    /// Soft limit on locked memory in bytes; `None` if unlimited.
    pub memlock_bytes: Option<u64>,
    /// Soft limit on open files; `None` if unlimited.
    pub open_files: Option<u64>,
    /// The mount point of tracefs.
    pub tracefs: Result<String, TracefsError>,
    /// `v2`, `hybrid`, `v1` or `none`.
    pub cgroup: &'static str,
}

const CAPABILITIES: [(&str, caps::Capability, &str, bool); 5] = [
    ("CAP_BPF", caps::Capability::CAP_BPF, "load programs, read maps", true),
    ("CAP_PERFMON", caps::Capability::CAP_PERFMON, "attach tracing programs", true),
    (
        "CAP_SYS_ADMIN",
        caps::Capability::CAP_SYS_ADMIN,
        "enter other network namespaces for the snapshot",
        false,
    ),
    (
        "CAP_SYS_PTRACE",
        caps::Capability::CAP_SYS_PTRACE,
        "read the executables and descriptors of other users' processes",
        false,
    ),
    (
        "CAP_DAC_READ_SEARCH",
        caps::Capability::CAP_DAC_READ_SEARCH,
        "read tracefs, turn cgroup ids into paths",
        false,
    ),
];

impl HostInfo {
    #[must_use]
    pub fn gather() -> Self {
        let name = uname();
        let limit = |resource| getrlimit(resource).current;
        let held = caps::read(None, caps::CapSet::Effective).unwrap_or_default();
        // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON (capabilities(7)).
        let admin = held.contains(&caps::Capability::CAP_SYS_ADMIN);
        Self {
            kernel: name.release().to_string_lossy().into_owned(),
            machine: name.machine().to_string_lossy().into_owned(),
            btf_bytes: fs::metadata(KERNEL_BTF).map(|metadata| metadata.len()).ok(),
            capabilities: CAPABILITIES
                .iter()
                .map(|&(name, capability, purpose, required)| Capability {
                    name,
                    held: held.contains(&capability) || (required && admin),
                    purpose,
                    required,
                })
                .collect(),
            memlock_bytes: limit(Resource::Memlock),
            open_files: limit(Resource::Nofile),
            tracefs: tracefs::mount().map(|path| path.display().to_string()),
            cgroup: cgroup_version(),
        }
    }
}

fn cgroup_version() -> &'static str {
    // The kernel limits the number of mounts (fs.mount-max).
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let kinds: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    match (kinds.contains(&"cgroup"), kinds.contains(&"cgroup2")) {
        (false, true) => "v2",
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, false) if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => "v2",
        (false, false) => "none",
    }
}
