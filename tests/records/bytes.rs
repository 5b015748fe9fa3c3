//! From bytes to events: well-formed records and malformed ones.

use sockstate::{
    decode::{DecodeError, decode},
    model::{Address, EventKind, KernelSocket, State},
};
use sockstate_abi::abi::{AF_INET, AF_INET6, flag, kind};

/// Bytes of a head, as the kernel programs write it.
pub(crate) fn head(kind: u8, flags: u8, old: u8, new: u8, family: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(7_u64.to_ne_bytes()); // time
    bytes.extend(0xffff_8880_1234_5678_u64.to_ne_bytes()); // sk
    bytes.extend(42_u64.to_ne_bytes()); // cgroup
    bytes.extend(4_026_531_840_u32.to_ne_bytes()); // netns
    bytes.extend(1000_u32.to_ne_bytes()); // uid
    bytes.extend([kind, flags, old, new]);
    bytes.extend(family.to_ne_bytes());
    bytes.extend(104_u16.to_ne_bytes()); // error
    bytes.extend(8080_u16.to_ne_bytes());
    bytes.extend(40000_u16.to_ne_bytes());
    bytes.extend(9_u32.to_ne_bytes()); // extra
    bytes
}

pub(crate) fn v4(mut head: Vec<u8>) -> Vec<u8> {
    head.extend([127, 0, 0, 1, 10, 0, 0, 2]);
    head
}

pub(crate) fn with_task(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(77_u32.to_ne_bytes());
    bytes.extend(3_u32.to_ne_bytes());
    bytes.extend(5_000_000_000_u64.to_ne_bytes());
    bytes.extend(b"nginx\0garbage\0\0\0");
    bytes
}

#[test]
fn well_formed_records() {
    let event = decode(&v4(head(kind::TRANSITION, 0, 1, 8, AF_INET))).expect("plain");
    assert_eq!(event.tuple.local, Address::from_v4([127, 0, 0, 1]));
    assert_eq!((event.tuple.local_port, event.tuple.remote_port), (8080, 40000));
    assert_eq!(
        (event.cgroup, event.netns, event.uid, event.error),
        (Some(42), Some(4_026_531_840), Some(1000), 104)
    );
    let EventKind::Transition { from, to, task, listener, maybe_copy, .. } = event.kind else {
        panic!("kind")
    };
    assert_eq!(
        (from, to, task, listener, maybe_copy),
        (State::Established, State::CloseWait, None, None, false)
    );

    let event = decode(&with_task(v4(head(kind::TRANSITION, flag::TASK | flag::COMPANION, 7, 2, AF_INET))));
    let EventKind::Transition { task: Some(task), maybe_copy: true, .. } = event.expect("task").kind else {
        panic!("task")
    };
    assert_eq!((task.pid, task.exec_id, task.start_ns, task.comm()), (77, 3, 5_000_000_000, &b"nginx"[..]));

    let mut bytes = head(kind::TRANSITION, flag::V6 | flag::LISTENER, 10, 3, AF_INET6);
    bytes.extend([0; 32]);
    bytes.extend(99_u64.to_ne_bytes());
    // The ring pads records.
    bytes.extend([0; 8]);
    let event = decode(&bytes).expect("listener");
    assert!(matches!(event.kind, EventKind::Transition { listener: Some(KernelSocket(99)), .. }));

    let event = decode(&v4(head(kind::TRANSITION, flag::BARE, 1, 7, AF_INET))).expect("bare");
    assert_eq!((event.uid, event.error), (None, 0));

    // A state of a kernel to come.
    let event = decode(&v4(head(kind::TRANSITION, 0, 1, 200, AF_INET))).expect("unknown state");
    assert!(matches!(event.kind, EventKind::Transition { to: State::Unknown(200), .. }));
}

#[test]
fn malformed_records() {
    let good = with_task(v4(head(kind::TRANSITION, flag::TASK, 7, 2, AF_INET)));
    for len in 0..good.len() {
        let error = decode(&good[..len]).expect_err("cut short");
        let part = match len {
            0..48 => "head",
            48..56 => "addresses",
            _ => "task",
        };
        assert_eq!(error, DecodeError::Short { len, part });
    }
    // Addresses of IPv6 promised, those of IPv4 there.
    let error = decode(&v4(head(kind::TRANSITION, flag::V6, 1, 8, AF_INET6))).expect_err("short");
    assert_eq!(error, DecodeError::Short { len: 56, part: "addresses" });
    let error = decode(&v4(head(kind::TRANSITION, flag::LISTENER, 10, 3, AF_INET))).expect_err("short");
    assert_eq!(error, DecodeError::Short { len: 56, part: "listener" });
    assert_eq!(decode(&v4(head(0, 0, 1, 8, AF_INET))), Err(DecodeError::Kind(0)));
    assert_eq!(decode(&v4(head(255, 0, 1, 8, AF_INET))), Err(DecodeError::Kind(255)));
    assert_eq!(decode(&v4(head(kind::TRANSITION, 0, 1, 8, 1))), Err(DecodeError::Family(1)));
    assert_eq!(decode(&v4(head(kind::FILE, 0, 1, 1, AF_INET))), Err(DecodeError::NoTask(kind::FILE)));
    // Misaligned by the caller: nothing depends on alignment.
    let mut shifted = vec![0];
    shifted.extend(&good);
    assert_eq!(decode(&shifted[1..]), decode(&good));
}
