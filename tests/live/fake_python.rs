//! A role for another process. The part of its memory that a hunt reads looks like that of CPython 3.13, and is
//! correct, or wrong in one way.

use std::{
    hint::black_box,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    roles::{next_step, say},
    sockets::Kind,
};

/// `_PyRuntime`, which a hunt finds by its section. It contains the table, the list of interpreters, an interpreter,
/// and types.
#[unsafe(link_section = ".PyRuntime")]
#[used]
static RUNTIME: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

const WORDS: usize = 512;
const INTERPRETERS: usize = 81;
const INTERPRETER: usize = 100;
const CODE_TYPE: usize = 200;
const STR_TYPE: usize = 220;
const BYTES_TYPE: usize = 240;

/// The positions of the parts of the table, and their words: sizes and offsets of the structures below.
const TABLE: [(usize, &[u64]); 10] = [
    (0, &[u64::from_ne_bytes(*b"xdebugpy"), 0x30d_00f0, 0]),
    (3, &[8 * WORDS as u64, 0, 8 * INTERPRETERS as u64]),
    (6, &[64, 0, 8, 16]),
    (19, &[64, 0, 8, 0, 16, 0, 24]),
    (28, &[64, 8, 0, 16, 32, 24]),
    (34, &[128, 24, 32, 32, 40, 48, 0, 0, 0, 64]),
    (44, &[16, 8, 64, 24]),
    (50, &[32, 24, 16]),
    (64, &[40, 16, 32]),
    (67, &[64, 32, 16, 40]),
];

/// What is wrong with the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// 300 other threads precede the thread in the list.
    ManyThreads,
    /// The stack has 200 functions, more than the kernel programs copy.
    Deep,
    /// The stack has more functions than the kernel programs read.
    Endless,
    /// The frame of a function refers to itself as its caller.
    Cycle,
    /// A call of the loop contains itself.
    LoopCycle,
    /// The list of threads is a circle, which does not contain the running thread.
    ThreadCycle,
    /// The address of the frames is not mapped.
    Wild,
    /// The address of the frames is in the kernel.
    Kernel,
    /// The address of the frames is on no thread's stack.
    Elsewhere,
    /// A string has an extremely great length.
    LongName,
    /// By the table, a field is outside of its structure.
    Table,
    /// The code object of the first function was replaced by that of another function after the connect.
    Replaced,
    /// The code object of the first function was unmapped after the connect.
    Gone,
}

impl Fault {
    /// All faults.
    pub(crate) const ALL: [Self; 14] = [
        Self::None,
        Self::ManyThreads,
        Self::Deep,
        Self::Endless,
        Self::Cycle,
        Self::LoopCycle,
        Self::ThreadCycle,
        Self::Wild,
        Self::Kernel,
        Self::Elsewhere,
        Self::LongName,
        Self::Table,
        Self::Replaced,
        Self::Gone,
    ];

    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}") == name).expect("a fault")
    }
}

/// The role ("PORT FAULT"): connects when the test lets it go on, and prints its local port.
pub(crate) fn play(value: &str) {
    let (port, fault) = value.split_once(' ').expect("port and fault");
    let (port, fault) = (port.parse().expect("port"), Fault::named(fault));
    for (at, words) in TABLE {
        for (to, word) in RUNTIME[at..].iter().zip(words) {
            to.store(*word, Ordering::Relaxed);
        }
    }
    for (at, name) in
        [(CODE_TYPE, &b"code\0\0\0\0"[..]), (STR_TYPE, b"str\0\0\0\0\0"), (BYTES_TYPE, b"bytes\0\0\0")]
    {
        set(at + 3, address_of(at + 8));
        set(at + 8, u64::from_ne_bytes(name.try_into().expect("eight bytes")));
    }
    if fault == Fault::Table {
        set(33, 64);
    }
    set(INTERPRETERS, address_of(INTERPRETER));
    outer_call(port, fault);
}

/// A call of the loop, whose frame is on the stack.
#[inline(never)]
fn outer_call(port: u16, fault: Fault) {
    let own = [0, 0, 0, 3];
    inner_call(port, fault, black_box(&own));
    black_box(&own);
}

#[inline(never)]
fn inner_call(port: u16, fault: Fault, outer: &[u64; 4]) {
    let mut own = [0, 0, 0, 3];
    let (inner_code, outer_code) = (code(b"inner", 10), code(b"Outer.run", 20));
    let function = |code: *mut u64, previous: u64| keep(&[code as u64, previous, code as u64 + 64, 0]) as u64;
    let mut outermost = function(outer_code, ptr::from_ref(outer) as u64);
    for _ in 0..deep(fault) {
        outermost = function(outer_code, outermost);
    }
    own[1] = if fault == Fault::LoopCycle { ptr::from_ref(&own) as u64 } else { outermost };
    let elsewhere = keep(&own) as u64;
    let own = black_box(&mut own);
    let place = if fault == Fault::Elsewhere { elsewhere } else { ptr::from_mut(own) as u64 };
    let innermost = keep(&[inner_code as u64, place, inner_code as u64 + 64, 0]);
    // SAFETY: these are ours for ever, and at least as long.
    unsafe {
        match fault {
            Fault::Cycle => innermost.add(1).write(innermost as u64),
            Fault::LongName => (inner_code.add(4).read() as *mut u64).add(2).write(u64::MAX),
            _ => {}
        }
    }
    let current = match fault {
        Fault::Wild => 0x10,
        Fault::Kernel => 0xffff_8880_0000_1000,
        _ => innermost as u64,
    };
    // SAFETY: takes nothing.
    let number = unsafe { libc::gettid() } as u64;
    let mut threads = keep(&[0, 0, current, if fault == Fault::ThreadCycle { 0 } else { number }]);
    if fault == Fault::ThreadCycle {
        // SAFETY: as above.
        unsafe { threads.add(1).write(threads as u64) };
    }
    for _ in 0..if fault == Fault::ManyThreads { 300 } else { 1 } {
        threads = keep(&[0, threads as u64, current, 1]);
    }
    set(INTERPRETER + 2, threads as u64);
    say("ready");
    next_step();
    let socket = Kind::V4.connect(port).expect("connect");
    // SAFETY: as above; nothing reads it any more but the hunt.
    unsafe {
        match fault {
            Fault::Replaced => inner_code.add(4).write(outer_code.add(4).read()),
            Fault::Gone => assert_eq!(libc::munmap(inner_code.cast(), PAGE), 0),
            _ => {}
        }
    }
    say(socket.local_addr().expect("address").as_socket().expect("IPv4").port());
    while next_step() {}
    black_box(own);
}

/// Adds functions to the two that always exist.
fn deep(fault: Fault) -> usize {
    match fault {
        Fault::Deep => 200,
        Fault::Endless => 2000,
        _ => 0,
    }
}

const PAGE: usize = 4096;

/// A code object on a page of its own. It has eight code units, and all its instructions are five lines below `first`.
fn code(name: &[u8], first: u64) -> *mut u64 {
    // SAFETY: asks for new memory.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_ne!(page, libc::MAP_FAILED);
    // One entry for eight units, without columns, five lines further.
    let table = object(BYTES_TYPE, 2, 0, &[0xe8 | 7, 10]);
    let words = [0, address_of(CODE_TYPE), 8, text(b"fake.py"), text(name), table, first];
    // SAFETY: the page is ours, and long enough.
    unsafe { ptr::copy_nonoverlapping(words.as_ptr(), page.cast(), words.len()) };
    page.cast()
}

fn text(characters: &[u8]) -> u64 {
    // The state of the string: one byte for each character, compact, ASCII.
    let state = 1 << 2 | 0x20 | 0x40;
    object(STR_TYPE, characters.len() as u64, state, characters)
}

/// A `str` or `bytes` object.
fn object(kind: usize, len: u64, state: u64, bytes: &[u8]) -> u64 {
    let mut words = vec![0, address_of(kind), len, 0];
    if kind == STR_TYPE {
        words.push(state);
    }
    let mut padded = bytes.to_vec();
    padded.resize(32, 0);
    words.extend(padded.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)));
    keep(&words) as u64
}

fn set(word: usize, value: u64) {
    RUNTIME[word].store(value, Ordering::Relaxed);
}

fn address_of(word: usize) -> u64 {
    ptr::from_ref(&RUNTIME[word]) as u64
}

/// Memory that is never freed.
fn keep(words: &[u64]) -> *mut u64 {
    Box::leak(words.to_vec().into_boxed_slice()).as_mut_ptr()
}
