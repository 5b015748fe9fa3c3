//! The two ends of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses and ports, local side first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Local address, in its wide form (IPv4 as v4-mapped).
    pub local: Ipv6Addr,
    /// Remote address, in its wide form.
    pub remote: Ipv6Addr,
    /// Local port, 0 where not bound (yet).
    pub local_port: u16,
    /// Remote port, 0 where there is none.
    pub remote_port: u16,
    /// The socket's family is AF_INET6.
    pub v6_socket: bool,
}

impl Tuple {
    /// Whether the traffic is IPv4: an AF_INET socket, or an AF_INET6 one with v4-mapped addresses.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        !self.v6_socket || self.remote.to_ipv4_mapped().is_some() || self.local.to_ipv4_mapped().is_some()
    }

    /// Both ports are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.local_port != 0 && self.remote_port != 0
    }
}

/// An IPv4 address in its wide form.
#[must_use]
pub fn wide(v4: [u8; 4]) -> Ipv6Addr {
    Ipv4Addr::from(v4).to_ipv6_mapped()
}

/// The address as people write it: v4-mapped becomes IPv4.
#[must_use]
pub fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}
