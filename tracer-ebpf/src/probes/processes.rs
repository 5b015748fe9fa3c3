//! Exec, change of name and exit of processes that called listen(). User space updates the owners of listeners from these
//! records.
//!
//! - `tp_btf/sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
//! - `tp_btf/sched_process_exit(struct task_struct *p)`: for each thread, before it closes its files.
//! - `tp_btf/task_rename(struct task_struct *task, const char *comm)`: before the name is changed.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use sockstate_abi::abi::{AF_INET, Head, Task, V4, flag, kind, process};

use super::emit;
use crate::{
    kernel::{self, Direct, Ptr},
    maps::{EVENTS, PROCESSES},
};

#[repr(C)]
struct Record {
    head: Head,
    addresses: V4,
    task: Task,
}

const _: () = assert!(size_of::<Record>() == 88);

/// A process runs another program.
#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn process_executes(context: BtfTracePointContext) -> i32 {
    let task: Ptr = context.arg(0);
    if is_watched(task) {
        report(process::RENEWED, kernel::task_of::<Direct>(task));
    }
    0
}

/// A thread changes its name.
#[btf_tracepoint(function = "task_rename")]
pub(crate) fn process_renamed(context: BtfTracePointContext) -> i32 {
    let (task, name): (Ptr, Ptr) = (context.arg(0), context.arg(1));
    if kernel::is_leader(task) && is_watched(task) {
        let mut renamed = kernel::task_of::<Direct>(task);
        renamed.comm = [0; 16];
        // SAFETY: writes at most the 16 bytes of the name, and ends it with a NUL.
        unsafe { generated::bpf_probe_read_kernel_str(renamed.comm.as_mut_ptr().cast(), 16, name) };
        report(process::RENEWED, renamed);
    }
    0
}

/// A thread ends.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn process_exits(context: BtfTracePointContext) -> i32 {
    let task: Ptr = context.arg(0);
    if is_watched(task) && kernel::is_last_thread(task) {
        report(process::ENDED, kernel::task_of::<Direct>(task));
        // The entry may be removed already.
        let _ = PROCESSES.remove(kernel::process_id(task));
    }
    0
}

/// Reports exec, change of name and exit of the current process from now on. If the map is full, user space finds the
/// process's exit when it compares its table with the kernel's.
#[inline(always)]
pub(crate) fn watch() {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let _ = PROCESSES.insert(pid, 1, 0);
}

#[inline(always)]
fn is_watched(task: Ptr) -> bool {
    // SAFETY: the value is not read.
    unsafe { PROCESSES.get(kernel::process_id(task)) }.is_some()
}

#[inline(always)]
fn report(what: u8, task: Task) {
    let Some(mut entry) = EVENTS.reserve::<Record>(0) else {
        if let Some(cpu) = emit::per_cpu() {
            cpu.lost_evidence += 1;
        }
        return;
    };
    // SAFETY: takes nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let head = Head {
        time_ns,
        kind: kind::PROCESS,
        flags: flag::TASK,
        new: what,
        family: AF_INET,
        ..Head::default()
    };
    entry.write(Record { head, addresses: V4::default(), task });
    entry.submit(0);
}
