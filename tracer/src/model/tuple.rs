//! The two ends of a connection: addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses and ports, local side first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Local address.
    pub local: Address,
    /// Remote address.
    pub remote: Address,
    /// Local port; 0 if it is not bound yet.
    pub local_port: u16,
    /// Remote port; 0 if there is none.
    pub remote_port: u16,
    /// The socket's family is AF_INET6.
    pub v6_socket: bool,
    /// Index of the interface that the socket is bound to; 0 for none. Equal ends may exist on several interfaces: link-local
    /// addresses, VRFs.
    pub interface: u32,
}

impl Tuple {
    /// Whether the traffic is IPv4: an AF_INET socket, or an AF_INET6 one with v4-mapped addresses.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        !self.v6_socket || self.remote.is_v4() || self.local.is_v4()
    }

    /// The tuple without the socket's family, for comparison: the kernel lists a v4-mapped socket with IPv6 addresses.
    #[must_use]
    pub fn of_any_socket(self) -> Self {
        Self { v6_socket: !self.is_v4(), ..self }
    }

    /// The tuple without the socket's family and interface, for comparison with /proc/net/tcp, which shows neither.
    #[must_use]
    pub fn of_any_interface(self) -> Self {
        Self { interface: 0, ..self.of_any_socket() }
    }

    /// The tuple from the other end's view, without the interface: the other end may be bound to a different one.
    #[must_use]
    pub fn mirrored(self) -> Self {
        let Self { local, remote, local_port, remote_port, .. } = self;
        Self { local: remote, remote: local, local_port: remote_port, remote_port: local_port, ..self }
            .of_any_interface()
    }

    /// Whether the connection is in a sample of one in `sample`. Both of its ends give the same answer, also on two hosts: a hash of
    /// both ends decides, the smaller one first.
    #[must_use]
    pub fn is_in_sample(&self, sample: u64) -> bool {
        let one = (self.local.0, self.local_port);
        let other = (self.remote.0, self.remote_port);
        let (first, second) = if one <= other { (one, other) } else { (other, one) };
        let ports = u64::from(first.1) << 16 | u64::from(second.1);
        let words = first.0.into_iter().chain(second.0).chain([ports]);
        // The result is part of the format: hosts have different versions.
        let hash = words.fold(0_u64, |hash, word| mixed((hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15)));
        sample <= 1 || hash.is_multiple_of(sample)
    }

    /// Any connection, for tests.
    #[cfg(test)]
    #[must_use]
    pub fn example() -> Self {
        let address = Address::from_v4([127, 0, 0, 1]);
        Self {
            local: address,
            remote: address,
            local_port: 1,
            remote_port: 2,
            v6_socket: false,
            interface: 0,
        }
    }

    /// Whether both ports are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.local_port != 0 && self.remote_port != 0
    }
}

/// An address as 16 bytes, IPv4 as v4-mapped. It is stored as two words because it is copied very often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address([u64; 2]);

impl Address {
    /// From 16 bytes in network order.
    #[must_use]
    pub fn from_v6(bytes: [u8; 16]) -> Self {
        let word = |at: usize| {
            let b = &bytes[at..at + 8];
            u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
        };
        Self([word(0), word(8)])
    }

    /// 16 bytes in network order.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        (u128::from(self.0[0]) << 64 | u128::from(self.0[1])).to_be_bytes()
    }

    /// From 4 bytes in network order.
    #[must_use]
    pub fn from_v4(bytes: [u8; 4]) -> Self {
        Self([0, 0xffff_0000_0000 | u64::from(u32::from_be_bytes(bytes))])
    }

    #[must_use]
    pub fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] >> 32 == 0xffff
    }

    /// Whether the address is `0.0.0.0` or `::`.
    #[must_use]
    pub fn is_unspecified(self) -> bool {
        self.0[0] == 0 && (self.0[1] == 0 || self.0[1] == 0xffff_0000_0000)
    }

    /// Whether packets with the address stay in their network namespace.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.canonical().is_loopback()
    }

    /// The usual form: v4-mapped becomes IPv4.
    #[must_use]
    pub fn canonical(self) -> IpAddr {
        if self.is_v4() {
            return IpAddr::V4(Ipv4Addr::from(self.0[1] as u32));
        }
        IpAddr::V6(Ipv6Addr::from(u128::from(self.0[0]) << 64 | u128::from(self.0[1])))
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

/// The finalizer of SplitMix64: neighbouring numbers fall far apart.
#[must_use]
pub fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_both_ends() {
        let mut tuple = Tuple::example();
        let mut count = 0;
        for port in 1..=60_000 {
            tuple.remote_port = port;
            let is_in = tuple.is_in_sample(10);
            assert_eq!(is_in, tuple.mirrored().is_in_sample(10), "{port}");
            assert!(tuple.is_in_sample(1));
            count += u32::from(is_in);
        }
        assert!((5_700..6_300).contains(&count), "{count}");
        // Hosts with another version choose the same connections.
        let chosen: Vec<u16> =
            (1..100).filter(|port| Tuple { remote_port: *port, ..tuple }.is_in_sample(10)).collect();
        assert_eq!(chosen, [4, 7, 13, 44, 47, 60, 66, 74, 84]);
    }

    #[test]
    fn both_families() {
        for text in ["127.0.0.1", "255.255.255.255", "::1", "2001:db8::ff00:42:8329", "::", "::fffe:1:2"] {
            let address: IpAddr = text.parse().expect("address");
            assert_eq!(Address::from(address).canonical(), address, "{text}");
            assert_eq!(Address::from(address).is_v4(), address.is_ipv4(), "{text}");
        }
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("address");
        assert_eq!(Address::from(mapped), Address::from_v4([10, 0, 0, 1]));
        assert!(Address::from_v4([0; 4]).is_unspecified() && Address::from_v6([0; 16]).is_unspecified());
    }
}
