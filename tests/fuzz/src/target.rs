//! The target that `SOCKSTATE_FUZZ` names (tracer/src/fuzz), under libFuzzer.
#![no_main]

use std::sync::LazyLock;

use sockstate::{
    fuzz::{Target, target},
    unwind::abort_on_panic,
};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    // Behind libFuzzer's hook: panics that the program catches are no finding.
    abort_on_panic();
    let name = std::env::var("SOCKSTATE_FUZZ").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("SOCKSTATE_FUZZ={name:?} names no target"))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
