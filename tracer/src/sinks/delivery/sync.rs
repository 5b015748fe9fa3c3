//! What the queue and the ledger's counts are made of; their model replaces it (`model.rs`).

pub(super) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};
