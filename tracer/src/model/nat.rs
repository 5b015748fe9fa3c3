//! What a connection is called beyond the address translation of a host.

use super::{Address, Tuple};

/// The addresses and ports that the packets of a connection have after all translations that conntrack makes, still with this
/// side first: the other end, or the next host, knows the connection by these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nat {
    pub local: Address,
    pub remote: Address,
    pub local_port: u16,
    pub remote_port: u16,
}

impl Nat {
    #[must_use]
    pub fn of(tuple: &Tuple) -> Self {
        let Tuple { local, remote, local_port, remote_port, .. } = *tuple;
        Self { local, remote, local_port, remote_port }
    }

    #[must_use]
    pub fn tuple(&self) -> Tuple {
        let Self { local, remote, local_port, remote_port } = *self;
        Tuple { local, remote, local_port, remote_port, v6_socket: true, interface: 0 }.of_any_interface()
    }
}
