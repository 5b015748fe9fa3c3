//! The frames of CPython. `opened.rs` copies them at the moment of the event, because the thread changes them afterwards. User
//! space finds the offsets (`_Py_DebugOffsets`, 3.13), puts them into `PYTHONS`, and reads the names of the functions.
//!
//! A process's memory may hold any values: every loop has a bound, and an address that cannot be read gives 0.

use core::ffi::c_void;

use aya_ebpf::helpers::generated;
use sockstate_abi::abi::{PYTHON_FRAMES, Python, PythonFrame, PythonStack};

use crate::{
    kernel,
    maps::{PYTHONS, STEPS},
};

/// `cookie` of `_Py_DebugOffsets`.
const COOKIE: u64 = u64::from_ne_bytes(*b"xdebugpy");
/// Frames whose owner is this one or a greater one belong to the interpreter's loop itself (`FRAME_OWNED_BY_CSTACK` of 3.13,
/// `FRAME_OWNED_BY_INTERPRETER` of 3.14).
const LOOP: u8 = 3;
/// Bits of a `_PyStackRef` (3.14) that are no part of the pointer.
const TAGS: u64 = 3;

/// Copies the frames of the current thread, a thread of process `pid`.
///
/// # Safety
/// There must be room for a [`PythonStack`].
#[inline(never)]
pub(crate) unsafe fn copy_frames(to: *mut PythonStack, pid: u32) -> u32 {
    // SAFETY: the caller has room for it.
    unsafe {
        (&raw mut (*to).runtime).write(0);
        (&raw mut (*to).last_loop).write(0);
        (&raw mut (*to).count).write(0);
        (&raw mut (*to).complete).write(0);
    }
    // SAFETY: the value lives as long as this program runs.
    let Some(python) = PYTHONS.get_ptr(pid).and_then(|python| unsafe { python.as_ref() }) else { return 0 };
    // After an exec another program runs with this process id.
    if word(python.runtime) != COOKIE || word(python.runtime + 8) != python.version {
        return 0;
    }
    let [first, second] = current_frames(python);
    // SAFETY: as above.
    unsafe {
        (&raw mut (*to).runtime).write(python.runtime);
        copy(to, python, first, second)
    }
}

/// State of the search for the current thread, through all interpreters and their threads.
struct Search {
    python: *const Python,
    number: u64,
    interpreter: u64,
    thread: u64,
    /// The thread's newest frames: a thread may run several interpreters, one inside the other.
    found: [u64; 3],
}

/// The newest frames of the current thread, in up to two interpreters; zeros if the thread runs more of them.
#[inline(always)]
fn current_frames(python: &Python) -> [u64; 2] {
    let mut search = Search {
        python,
        number: kernel::thread_number().into(),
        interpreter: word(python.runtime + u64::from(python.interpreters)),
        thread: python.zero,
        found: [python.zero; 3],
    };
    repeat(search_step, &raw mut search);
    let [first, second, third] = search.found;
    if third == 0 { [first, second] } else { [python.zero; 2] }
}

unsafe extern "C" fn search_step(_: *mut c_void, _: *const u32, _: *mut u32, search: *mut Search) -> u64 {
    // SAFETY: `repeat` passes on what it was given; the map's value outlives the program.
    let (search, python) = unsafe { (&mut *search, &*(*search).python) };
    let thread = search.thread;
    if thread == 0 {
        let interpreter = search.interpreter;
        search.thread = word(interpreter + u64::from(python.threads));
        search.interpreter = word(interpreter + u64::from(python.next_interpreter));
        return u64::from(interpreter == 0);
    }
    let frame = word(thread + u64::from(python.current_frame));
    if frame != 0 && word(thread + u64::from(python.native_thread_id)) == search.number {
        let [first, second, _] = search.found;
        search.found = [frame, first, second];
    }
    search.thread = word(thread + u64::from(python.next_thread));
    0
}

/// State of the copy.
struct Copy {
    python: *const Python,
    to: *mut PythonFrame,
    frame: u64,
    /// The newest frame of the thread's other interpreter.
    other: u64,
    count: u64,
    last_loop: u64,
}

/// # Safety
/// There must be room for a [`PythonStack`].
#[inline(always)]
unsafe fn copy(to: *mut PythonStack, python: &Python, frame: u64, other: u64) -> u32 {
    // SAFETY: as the caller says.
    let frames = unsafe { &raw mut (*to).frames }.cast();
    let zero = python.zero;
    let mut copy = Copy { python, to: frames, frame, other, count: zero, last_loop: zero };
    repeat(copy_step, &raw mut copy);
    // SAFETY: as above.
    unsafe {
        (&raw mut (*to).last_loop).write(copy.last_loop);
        (&raw mut (*to).count).write(copy.count as u32);
        (&raw mut (*to).complete).write(u32::from(copy.frame | copy.other == 0));
    }
    copy.count as u32
}

unsafe extern "C" fn copy_step(_: *mut c_void, _: *const u32, _: *mut u32, copy: *mut Copy) -> u64 {
    // SAFETY: `repeat` passes on what it was given; the map's value outlives the program.
    let (copy, python) = unsafe { (&mut *copy, &*(*copy).python) };
    let (frame, count) = (copy.frame, copy.count);
    if frame | copy.other == 0 {
        return 1;
    }
    if count >= PYTHON_FRAMES as u64 {
        // There is room for no more frames. The frame of the loop that runs the last copied ones is still needed.
        if frame == 0 || byte(frame + u64::from(python.owner)) >= LOOP {
            copy.last_loop = frame;
            return 1;
        }
        copy.frame = word(frame + u64::from(python.previous));
        return 0;
    }
    let mut copied = PythonFrame { code: 0, instruction: frame, qualname: 0 };
    if frame == 0 {
        copy.frame = copy.other;
        copy.other = python.zero;
    } else {
        if byte(frame + u64::from(python.owner)) < LOOP {
            copied.code = word(frame + u64::from(python.executable)) & !TAGS;
            copied.instruction = word(frame + u64::from(python.instruction));
            copied.qualname = word(copied.code + u64::from(python.qualname));
        }
        copy.frame = word(frame + u64::from(python.previous));
    }
    // SAFETY: `to` has room for `PYTHON_FRAMES`, and `count` is below that.
    unsafe { copy.to.add(count as usize).write(copied) };
    copy.count = count + 1;
    0
}

/// Calls `step` until it returns 1, at most [`MOST_STEPS`](crate::maps::MOST_STEPS) times. The verifier walks a callback once, but a
/// loop as often as it turns.
#[inline(always)]
fn repeat<T>(step: unsafe extern "C" fn(*mut c_void, *const u32, *mut u32, *mut T) -> u64, state: *mut T) {
    // SAFETY: `step` has the signature of such a callback, and takes the state that it is given here.
    unsafe {
        generated::bpf_for_each_map_elem(
            (&raw const STEPS).cast_mut().cast(),
            step as *mut c_void,
            state.cast(),
            0,
        )
    };
}

#[inline(always)]
fn word(address: u64) -> u64 {
    let mut value = 0u64;
    // The helper clears a value that it cannot read.
    // SAFETY: the helper checks the address itself, and writes just the value.
    unsafe { generated::bpf_probe_read_user((&raw mut value).cast(), 8, address as *const _) };
    value
}

#[inline(always)]
fn byte(address: u64) -> u8 {
    let mut value = 0u8;
    // SAFETY: as above.
    unsafe { generated::bpf_probe_read_user((&raw mut value).cast(), 1, address as *const _) };
    value
}
