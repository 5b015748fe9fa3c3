//! The ABI between sockstate's kernel programs and its user space: fixed-width records, no logic, no dependencies.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
