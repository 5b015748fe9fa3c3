//! The filter by network namespace and cgroup. The kernel programs decide about the inode of a network namespace. A cgroup
//! is left to user space, which knows its path: a cgroup that is created again, as at each start of a unit, has another
//! id.

use std::rc::Rc;

use clap::Args;

use crate::model::{Cgroup, CgroupTree, NamedNetns, SocketEntry, Subject};

/// The flags. `cmd` finds what they name.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceArgs {
    /// Network namespace: its inode number, a name of `ip netns`, or a path such as /proc/PID/ns/net.
    ///
    /// Commands that run for some time follow a name, or a path outside of /proc: the namespace may not exist yet, and may be deleted
    /// and created again.
    #[arg(long, value_name = "NETNS", help_heading = "Filter")]
    pub netns: Option<String>,
    /// Cgroup v2 of the socket, and all cgroups below it: /system.slice/nginx.service.
    #[arg(long, value_name = "PATH", help_heading = "Filter")]
    pub cgroup: Option<String>,
}

/// What the flags name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// Network namespace by its path, which is followed.
    pub named_netns: Option<Rc<NamedNetns>>,
    /// The socket's cgroup.
    pub cgroup: Option<CgroupTree>,
}

impl Place {
    /// Whether a subject is wanted that is seen at `time_ns`; `was_named` if its connection was in the named namespace
    /// before.
    #[must_use]
    pub fn wants(&self, subject: &Subject, time_ns: i64, was_named: bool) -> bool {
        (self.netns.is_none() || self.netns == subject.netns)
            && (self.named_netns.is_none() || was_named || self.is_named(subject, time_ns))
            && self.wants_cgroup(subject)
    }

    /// Whether the subject is in the named namespace.
    #[must_use]
    pub fn is_named(&self, subject: &Subject, time_ns: i64) -> bool {
        let name = self.named_netns.as_ref();
        name.is_some_and(|name| subject.netns.is_some_and(|inode| name.is(inode, time_ns)))
    }

    /// Whether the subject is in a wanted cgroup. The path decides, because a cgroup that is made again keeps it.
    fn wants_cgroup(&self, subject: &Subject) -> bool {
        let Some(tree) = &self.cgroup else { return true };
        // A cgroup without a path is gone, or its path cannot be read.
        let is_in = |cgroup: &Cgroup| {
            let is_same_id = tree.id != 0 && cgroup.id == tree.id;
            cgroup.path.as_deref().map_or(is_same_id, |path| tree.contains(path))
        };
        subject.cgroup.as_ref().is_some_and(is_in)
    }

    /// Whether a socket in a look was made in a wanted cgroup, or a process in one holds it.
    #[must_use]
    pub fn wants_entry(&self, entry: &SocketEntry) -> bool {
        let Some(tree) = &self.cgroup else { return true };
        let mut paths = entry.report.holders.iter().filter_map(|holder| holder.process.cgroup.as_deref());
        self.wants_cgroup(&entry.subject) || paths.any(|path| tree.contains(path))
    }
}
