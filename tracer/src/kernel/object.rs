//! The committed object with the kernel programs.

use aya::include_bytes_aligned;

/// The programs; rebuilt by `cargo xtask build-ebpf`.
#[cfg(target_arch = "x86_64")]
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/sockstate-x86_64.bpf.o");
/// The programs; rebuilt by `cargo xtask build-ebpf`.
#[cfg(target_arch = "aarch64")]
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/sockstate-aarch64.bpf.o");
