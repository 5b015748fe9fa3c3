//! Locks and atomics of the queue and of the ledger's counts; in `model.rs`, loom's types replace them.

pub(super) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
