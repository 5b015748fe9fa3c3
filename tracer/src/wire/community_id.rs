//! Community ID v1: the same id for a connection at both ends, and in Zeek and Suricata.
//! Specification: corelight/community-id-spec, version 1, seed 0.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

use crate::model::Tuple;

const IPPROTO_TCP: u8 = 6;

/// The community id of a complete tuple.
pub fn community_id(tuple: &Tuple) -> [u8; 30] {
    let (local, remote) = (tuple.local.canonical(), tuple.remote.canonical());
    let (local, remote) = ((local, tuple.local_port), (remote, tuple.remote_port));
    let (first, second) = if local <= remote { (local, remote) } else { (remote, local) };
    let mut hash = Sha1::new();
    hash.update([0, 0]);
    for (address, _) in [first, second] {
        match address {
            IpAddr::V4(v4) => hash.update(v4.octets()),
            IpAddr::V6(v6) => hash.update(v6.octets()),
        }
    }
    hash.update([IPPROTO_TCP, 0]);
    hash.update(first.1.to_be_bytes());
    hash.update(second.1.to_be_bytes());
    let mut text = *b"1:............................";
    // 20 bytes in base64 are exactly these 28 characters.
    let _ = STANDARD.encode_slice(hash.finalize(), &mut text[2..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the specification's own baseline for TCP, seed 0.
    #[test]
    fn both_ends_give_the_published_value() {
        let tuple = |local: &str, local_port, remote: &str, remote_port| {
            let address = |text: &str| text.parse::<IpAddr>().expect("address").into();
            Tuple {
                local: address(local),
                remote: address(remote),
                local_port,
                remote_port,
                v6_socket: local.contains(':'),
                interface: 0,
            }
        };
        let there = tuple("128.232.110.120", 34855, "66.35.250.204", 80);
        let back = tuple("66.35.250.204", 80, "128.232.110.120", 34855);
        for tuple in [there, back] {
            assert_eq!(&community_id(&tuple), b"1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        }
    }
}
