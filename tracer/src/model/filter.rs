//! What the user wants to see. The kernel programs and the router each use what they can decide.

use std::{ops::RangeInclusive, rc::Rc};

use ipnet::IpNet;

use super::{NamedNetns, StateSet};

/// A set of ports; empty takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<RangeInclusive<u16>>);

impl Ports {
    /// Whether it says anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `port` is in it.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

/// A cgroup and all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupTree {
    /// Id that its top had at the start; 0 where it was not there.
    pub id: u64,
    /// Path of its top below the mount, with a slash in front; `/` for the root.
    pub path: String,
}

impl CgroupTree {
    /// Whether the cgroup at `path` is in it.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// All that must hold. The default takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// 4 or 6; v4-mapped counts as 4.
    pub ip_version: Option<u8>,
    /// Either port.
    pub ports: Ports,
    /// The local port.
    pub local_ports: Ports,
    /// The remote port.
    pub remote_ports: Ports,
    /// The local address is in one of these.
    pub local: Vec<IpNet>,
    /// The remote address is in one of these.
    pub remote: Vec<IpNet>,
    /// The state before; empty for any.
    pub from: StateSet,
    /// The state after; empty for any.
    pub to: StateSet,
    /// The owner's process id is one of these.
    pub pids: Vec<u32>,
    /// The owner's name is one of these.
    pub comms: Vec<String>,
    /// Network namespace inode.
    pub netns: Option<u32>,
    /// Network namespace by its path, which is followed.
    pub named_netns: Option<Rc<NamedNetns>>,
    /// The socket's cgroup.
    pub cgroup: Option<CgroupTree>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_holds_its_top_and_what_is_below() {
        for (top, path, is_in) in [
            ("/", "/", true),
            ("/", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
        ] {
            let tree = CgroupTree { id: 1, path: top.into() };
            assert_eq!(tree.contains(path), is_in, "{path} in {top}");
        }
    }
}
