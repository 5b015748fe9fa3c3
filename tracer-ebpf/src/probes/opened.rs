//! The user stack of the thread that opens a connection. Attached by `hunt` only.
//!
//! - `tp_btf/inet_sock_set_state`, CLOSE -> SYN_SENT: inside connect().
//! - `kretprobe/inet_csk_accept`, whose result is a `struct sock *`: inside accept().
//! - `tracepoint/syscalls/sys_exit_accept` and `sys_exit_accept4(int nr, long ret)`: where functions cannot be hooked.
//!   While these are attached, every system call of the host returns by the slow path.
//!
//! The programs copy stack and registers, and user space unwinds them with its tables. `bpf_task_pt_regs` (5.15) is needed.
//! CPython keeps its frames elsewhere and changes them a moment later: `python.rs` copies these.

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_ktime_get_ns, generated},
    macros::{btf_tracepoint, kretprobe, tracepoint},
    programs::{BtfTracePointContext, RetProbeContext, TracePointContext},
};
use sockstate_abi::abi::{
    Allowance, Head, PythonStack, Registers, STACK_BYTES, Task, V4, flag, kind, opened, state,
};

use super::{emit, python};
use crate::{
    filter::{self, Candidate},
    kernel::{self, Direct, Probed, Ptr, Read},
    maps::{ALLOWANCES, EVENTS, frozen},
};

const SECOND_NS: u64 = 1_000_000_000;
/// A read that would pass the end of the stack copies nothing. So the stack is copied in steps of this size, ...
const STEP: usize = 512;
/// ... and its last part in steps of this size.
const SMALL_STEP: usize = 64;
/// `long ret` of `syscalls:sys_exit_*`, behind the common fields and the number of the call.
const RESULT: usize = 16;

#[repr(C)]
struct Record {
    head: Head,
    addresses: V4,
    task: Task,
    registers: Registers,
    python: PythonStack,
    stack: [u8; STACK_BYTES],
}

/// A connect begins.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn opened_by_connect(context: BtfTracePointContext) -> i32 {
    let sk: Ptr = context.arg(0);
    let (old, new): (i32, i32) = (context.arg(1), context.arg(2));
    if old == i32::from(state::CLOSE)
        && new == i32::from(state::SYN_SENT)
        && kernel::protocol::<Direct>(sk) == kernel::IPPROTO_TCP
    {
        take_stack::<Direct>(sk, opened::CONNECT);
    }
    0
}

/// An accept returns a socket.
#[kretprobe]
pub(crate) fn opened_by_accept(context: RetProbeContext) -> u32 {
    let sk = context.ret::<u64>() as Ptr;
    if !sk.is_null() {
        take_stack::<Probed>(sk, opened::ACCEPT);
    }
    0
}

/// An accept returns a descriptor.
#[tracepoint]
pub(crate) fn opened_by_accept_call(context: TracePointContext) -> u32 {
    // SAFETY: every `sys_exit` tracepoint has the system call's result at this offset.
    let fd = unsafe { context.read_at::<i64>(RESULT) }.unwrap_or(-1);
    if fd >= 0 {
        // SAFETY: takes nothing, returns the address as a number.
        let task = unsafe { bpf_get_current_task() } as Ptr;
        let sk = kernel::descriptor_sk(task, fd as u32);
        if kernel::is_tcp::<Probed>(sk) {
            take_stack::<Probed>(sk, opened::ACCEPT);
        }
    }
    0
}

#[inline(always)]
fn take_stack<R: Read>(sk: Ptr, call: u8) {
    let ends = Candidate::of::<R>(sk, state::SYN_SENT);
    if !filter::wants_netns::<R>(sk) || !filter::wants_ends::<R>(sk, &ends) {
        return;
    }
    let task = kernel::current();
    if !is_hunted(&task) {
        return;
    }
    if (!is_allowed(task.pid) || !write(sk, call, ends, task))
        && let Some(cpu) = emit::per_cpu()
    {
        cpu.lost_stacks += 1;
    }
}

#[inline(always)]
fn is_hunted(task: &Task) -> bool {
    let pid = frozen!(HUNT.pid);
    let wanted = u128::from_ne_bytes(frozen!(HUNT.comm));
    (pid == 0 || pid == task.pid) && (wanted == 0 || wanted == u128::from_ne_bytes(task.comm))
}

/// Whether the process has opened no more than `HUNT.rate` connections in this second. Threads may race for the last ones.
#[inline(always)]
fn is_allowed(pid: u32) -> bool {
    // SAFETY: takes nothing.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the value lives as long as this program runs.
    let known = ALLOWANCES.get_ptr_mut(pid).and_then(|allowance| unsafe { allowance.as_mut() });
    match known {
        Some(allowance) if now_ns.wrapping_sub(allowance.began_ns) < SECOND_NS => {
            allowance.taken += 1;
            allowance.taken <= u64::from(frozen!(HUNT.rate))
        }
        _ => {
            let _ = ALLOWANCES.insert(pid, Allowance { began_ns: now_ns, taken: 1 }, 0);
            true
        }
    }
}

/// Writes the record; false if the ring is full.
#[inline(always)]
fn write(sk: Ptr, call: u8, ends: Candidate, task: Task) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Record>(0) else { return false };
    let record = entry.as_mut_ptr();
    let registers = kernel::user_registers();
    // SAFETY: the entry has the size of the record and is aligned to 8 bytes. Behind the copied part of the stack and behind the
    // last Python frame are old records of the same ring, which user space does not read.
    unsafe {
        python::copy_frames(&raw mut (*record).python, task.pid);
        let copied = copy_stack((&raw mut (*record).stack).cast(), registers.sp);
        (&raw mut (*record).head).write(Head {
            time_ns: bpf_ktime_get_ns(),
            sk: sk as u64,
            kind: kind::OPENED,
            flags: flag::TASK,
            new: call,
            family: ends.family,
            local_port: ends.local_port,
            remote_port: ends.remote_port,
            extra: copied,
            ..Head::default()
        });
        (*record).addresses = V4::default();
        (*record).task = task;
        (*record).registers = registers;
    }
    entry.submit(0);
    true
}

/// Copies the stack from the stack pointer up; returns the number of bytes.
///
/// # Safety
/// There must be room for [`STACK_BYTES`].
#[inline(never)]
unsafe fn copy_stack(to: *mut u8, sp: u64) -> u32 {
    let mut at = 0;
    while at < STACK_BYTES {
        // SAFETY: the bytes fit; the helper checks the address in user space.
        if unsafe { read_user::<STEP>(to.add(at), sp + at as u64) } {
            at += STEP;
            continue;
        }
        let mut small = 0;
        while small < STEP {
            let at = at + small;
            // SAFETY: as above.
            if !unsafe { read_user::<SMALL_STEP>(to.add(at), sp + at as u64) } {
                break;
            }
            small += SMALL_STEP;
        }
        return (at + small) as u32;
    }
    at as u32
}

#[inline(always)]
unsafe fn read_user<const N: usize>(to: *mut u8, from: u64) -> bool {
    // SAFETY: the caller has room for N bytes.
    unsafe { generated::bpf_probe_read_user(to.cast(), N as u32, from as *const _) == 0 }
}
