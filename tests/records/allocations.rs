//! Formats that `trace` writes at a high rate allocate nothing for a record, once they have seen records like it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use sockstate::{
    format::{FormatName, FormatOptions},
    model::Record,
};

use crate::corpus;

/// The system's allocator, which also counts what this thread asks for.
pub(crate) struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: each call is passed on as it is, and counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get().wrapping_add(1));
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises of `dealloc`, and the memory comes from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Allocations of one more round of `records`, after a first one.
fn allocations(name: &str, options: FormatOptions, records: &[Record]) -> u64 {
    let format = FormatName::ALL.iter().find(|format| format.name == name).expect("a format");
    let mut format = format.make(options);
    let mut out = Vec::with_capacity(1 << 20);
    let mut write =
        |out: &mut Vec<u8>| records.iter().zip(1..).for_each(|(record, seq)| format.record(seq, record, out));
    write(&mut out);
    assert!(!out.is_empty(), "{name} writes these records");
    out.clear();
    let before = ALLOCATIONS.get();
    write(&mut out);
    ALLOCATIONS.get() - before
}

#[test]
fn a_record_like_the_earlier_ones_allocates_nothing() {
    let connections = FormatOptions { connections: true, ..FormatOptions::default() };
    let of = |wanted: fn(&Record) -> bool| -> Vec<Record> {
        corpus::records().into_iter().filter(wanted).collect()
    };
    // serde writes `nat`.
    let transitions = of(|record| matches!(record, Record::Transition(one) if one.conn.nat.is_none()));
    let ended =
        of(|record| matches!(record, Record::Connection(one) if one.is_final && one.conn.nat.is_none()));
    assert!(transitions.len() > 2 && ended.len() > 1);
    for (name, options, records) in [
        ("json", FormatOptions::default(), &transitions),
        ("json", connections, &ended),
        ("csv", FormatOptions::default(), &transitions),
        ("csv", connections, &ended),
    ] {
        let mut all = Vec::new();
        for record in records {
            all.push(allocations(name, options, std::slice::from_ref(record)));
        }
        assert!(all.iter().all(|count| *count == 0), "{name}: {all:?}");
    }
}
