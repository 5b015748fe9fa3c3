//! Community ID v1: the same id for a connection at both ends, and in Zeek and Suricata.
//! Specification: corelight/community-id-spec, version 1, seed 0.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha1::block_api::compress;

use crate::model::Tuple;

const IPPROTO_TCP: u8 = 6;

/// The state of SHA-1 before the first block (FIPS 180-4, 5.3.1).
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// Bytes of a block of SHA-1.
const BLOCK: usize = 64;

/// The community id of a complete tuple.
pub fn community_id(tuple: &Tuple) -> [u8; 30] {
    let (local, remote) = (tuple.local.canonical(), tuple.remote.canonical());
    let (local, remote) = ((local, tuple.local_port), (remote, tuple.remote_port));
    let (first, second) = if local <= remote { (local, remote) } else { (remote, local) };
    let mut message = Message::default();
    message.add([0, 0]);
    for (address, _) in [first, second] {
        match address {
            IpAddr::V4(v4) => message.add(v4.octets()),
            IpAddr::V6(v6) => message.add(v6.octets()),
        }
    }
    message.add([IPPROTO_TCP, 0]);
    message.add(first.1.to_be_bytes());
    message.add(second.1.to_be_bytes());
    let mut text = *b"1:............................";
    // 20 bytes in base64 are exactly these 28 characters.
    let _ = STANDARD.encode_slice(message.hash(), &mut text[2..]);
    text
}

/// A message of at most 55 bytes, which is one block with its padding: no buffer between blocks is needed.
struct Message {
    block: [u8; BLOCK],
    len: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self { block: [0; BLOCK], len: 0 }
    }
}

impl Message {
    fn add<const N: usize>(&mut self, bytes: [u8; N]) {
        self.block[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
    }

    /// The padding of SHA-1 is a bit and, at the end of the block, the length of the message in bits.
    fn hash(mut self) -> [u8; 20] {
        let bits = self.len as u16 * 8;
        self.add([0x80]);
        self.block[BLOCK - 2..].copy_from_slice(&bits.to_be_bytes());
        let mut state = INITIAL;
        compress(&mut state, &[self.block]);
        let mut hash = [0; 20];
        for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For IPv4, the vectors of the specification's own baseline for TCP, seed 0; for IPv6, what Python's hashlib gives.
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
        for (one, other, id) in [
            (("128.232.110.120", 34855), ("66.35.250.204", 80), b"1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            (("2001:db8::1", 443), ("fe80::ff00:42:8329", 51000), b"1:FIQOAB3XezqwCjT+e31QdhaPpaI="),
        ] {
            assert_eq!(&community_id(&tuple(one.0, one.1, other.0, other.1)), id);
            assert_eq!(&community_id(&tuple(other.0, other.1, one.0, one.1)), id);
        }
    }
}
