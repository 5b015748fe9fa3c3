//! The user's filter. The kernel programs apply the conditions that they can decide, and the router applies the others.

use std::{ops::RangeInclusive, rc::Rc};

use ipnet::IpNet;

use super::{Address, NamedNetns, StateSet, Tuple};

/// A set of ports. An empty set means no condition: callers test `is_empty` before `contains`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<RangeInclusive<u16>>);

impl Ports {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

/// A cgroup and all cgroups below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupTree {
    /// Id that the top cgroup had at the start; 0 where it did not exist.
    pub id: u64,
    /// Path of the top cgroup below the mount point, with a leading slash; `/` for the root.
    pub path: String,
}

impl CgroupTree {
    /// Whether the cgroup at `path` is in this tree.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Conditions that must all hold. The default has none.
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

impl Filter {
    /// Whether the kernel programs drop the events of a connection with these ends. Conditions that only user space decides,
    /// such as several prefixes, hide no event: the connection is tracked, and not reported.
    #[must_use]
    pub fn hides(&self, tuple: &Tuple) -> bool {
        let outside =
            |nets: &[IpNet], address: Address| matches!(nets, [net] if !net.contains(&address.canonical()));
        let misses = |ports: &Ports, port: u16| !ports.is_empty() && !ports.contains(port);
        tuple.is_complete()
            && (self.ip_version.is_some_and(|version| (version == 4) != tuple.is_v4())
                || outside(&self.local, tuple.local)
                || outside(&self.remote, tuple.remote)
                || misses(&self.local_ports, tuple.local_port)
                || misses(&self.remote_ports, tuple.remote_port)
                || (misses(&self.ports, tuple.local_port) && misses(&self.ports, tuple.remote_port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_hides() {
        // 127.0.0.1:1 and 127.0.0.1:2.
        let tuple = Tuple::example();
        let ports = |first: u16, last: u16| Ports(vec![first..=last]);
        let net = |text: &str| vec![text.parse::<IpNet>().expect("prefix")];
        let all = Filter::default();
        for (filter, hides) in [
            (all.clone(), false),
            (Filter { local_ports: ports(1, 1), ..all.clone() }, false),
            (Filter { local_ports: ports(2, 9), ..all.clone() }, true),
            (Filter { remote_ports: ports(2, 9), ..all.clone() }, false),
            (Filter { remote_ports: ports(1, 1), ..all.clone() }, true),
            (Filter { ports: ports(2, 2), ..all.clone() }, false),
            (Filter { ports: ports(3, 9), ..all.clone() }, true),
            (Filter { ip_version: Some(6), ..all.clone() }, true),
            (Filter { local: net("127.0.0.0/8"), ..all.clone() }, false),
            (Filter { remote: net("10.0.0.0/8"), ..all.clone() }, true),
            // User space decides.
            (Filter { remote: [net("10.0.0.0/8"), net("::1/128")].concat(), ..all.clone() }, false),
            (Filter { pids: vec![1], netns: Some(5), ..all }, false),
        ] {
            assert_eq!(filter.hides(&tuple), hides, "{filter:?}");
            let (unbound, listener) = (Tuple { local_port: 0, ..tuple }, Tuple { remote_port: 0, ..tuple });
            assert!(!filter.hides(&unbound) && !filter.hides(&listener), "{filter:?}");
        }
    }

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
