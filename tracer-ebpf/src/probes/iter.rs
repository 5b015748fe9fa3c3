//! Iterators (5.8; `bpf_sock_from_file` 5.11), for sockets that are older than the tracer.
//!
//! - `iter/tcp`: every TCP socket of the reader's network namespace, mini-sockets included. A second program lists only the
//!   sockets that the kernel itself uses.
//! - `iter/task_file`: every open file of every process in the reader's pid namespace. The sockets among these files may be in
//!   any network namespace; each record has the process that holds the socket.

use core::{ffi::c_void, mem::size_of};

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated};
use sockstate_abi::abi::{Head, Listener, Task, V6, flag, kind, state};

use crate::{
    filter,
    kernel::{self, Direct, Probed, Ptr, context_word},
};

#[repr(C)]
struct SocketRecord {
    head: Head,
    addresses: V6,
    extra: Listener,
}

#[repr(C)]
struct BareRecord {
    head: Head,
    addresses: V6,
}

#[repr(C)]
struct FileRecord {
    head: Head,
    addresses: V6,
    task: Task,
}

/// `struct bpf_iter__tcp { meta, sk_common, uid }`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
#[expect(unreachable_pub, reason = "the loader finds it by name")]
pub extern "C" fn sockets(context: *mut c_void) -> i32 {
    let common = context_word::<1>(context) as Ptr;
    if common.is_null() {
        return 0;
    }
    match kernel::state::<Direct>(common) {
        state::TIME_WAIT => timewait(context, common),
        state::NEW_SYN_RECV => request(context, common),
        _ => full(context, common),
    }
    0
}

/// `struct bpf_iter__tcp { meta, sk_common, uid }`: only the sockets that the kernel itself uses.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
#[expect(unreachable_pub, reason = "the loader finds it by name")]
pub extern "C" fn of_kernel(context: *mut c_void) -> i32 {
    let common = context_word::<1>(context) as Ptr;
    if common.is_null() {
        return 0;
    }
    let tcp = kernel::tcp_sock(common);
    if tcp.is_null() {
        return 0;
    }
    let inode = kernel::inode_of_kernels::<Probed>(tcp);
    if inode == 0 {
        return 0;
    }
    let mut head = head(tcp, kind::OF_KERNEL, kernel::state::<Direct>(tcp));
    kernel::describe::<Direct>(&mut head, tcp);
    head.extra = inode as u32;
    write(context, &BareRecord { head, addresses: kernel::addresses_wide::<Direct>(tcp) });
    0
}

/// `struct bpf_iter__task_file { meta, task, fd, file }`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
#[expect(unreachable_pub, reason = "the loader finds it by name")]
pub extern "C" fn files(context: *mut c_void) -> i32 {
    let task = context_word::<1>(context) as Ptr;
    let file = context_word::<3>(context) as Ptr;
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: the verifier knows `file`; the helper returns a null pointer if the file is not a socket.
    let socket = unsafe { generated::bpf_sock_from_file(file.cast_mut().cast()) } as Ptr;
    if socket.is_null() {
        return 0;
    }
    let sk = kernel::socket_sk::<Direct>(socket);
    if sk.is_null() || !kernel::is_tcp::<Direct>(sk) || !filter::wants_netns::<Direct>(sk) {
        return 0;
    }
    let mut head = head(sk, kind::FILE, kernel::state::<Direct>(sk));
    // SAFETY: the third word of the context is a u32.
    head.extra = unsafe { core::ptr::read_volatile(context.cast::<u32>().add(4)) };
    head.flags |= flag::TASK;
    kernel::describe::<Direct>(&mut head, sk);
    let addresses = kernel::addresses_wide::<Direct>(sk);
    write(context, &FileRecord { head, addresses, task: kernel::task_of::<Direct>(task) });
    0
}

#[inline(always)]
fn full(context: *mut c_void, common: Ptr) {
    let tcp = kernel::tcp_sock(common);
    if tcp.is_null() || !filter::wants_netns::<Direct>(tcp) {
        return;
    }
    let mut head = head(tcp, kind::SOCKET, kernel::state::<Direct>(tcp));
    kernel::describe::<Direct>(&mut head, tcp);
    socket(context, head, tcp, 0);
}

#[inline(always)]
fn timewait(context: *mut c_void, common: Ptr) {
    // SAFETY: the verifier knows `common`; the helper returns a null pointer if it is not a timewait socket.
    let tw = unsafe { generated::bpf_skc_to_tcp_timewait_sock(common.cast_mut()) } as Ptr;
    if !tw.is_null() {
        let head = head(tw, kind::SOCKET, kernel::timewait_substate::<Direct>(tw));
        mini(context, head, tw, 0);
    }
}

#[inline(always)]
fn request(context: *mut c_void, common: Ptr) {
    // SAFETY: the verifier knows `common`; the helper returns a null pointer if it is not a request socket.
    let req = unsafe { generated::bpf_skc_to_tcp_request_sock(common.cast_mut()) } as Ptr;
    if !req.is_null() {
        let listener = kernel::request_listener::<Direct>(req);
        mini(context, head(req, kind::SOCKET, state::NEW_SYN_RECV), req, listener);
    }
}

/// Writes a mini-socket, which has no uid, no cgroup and no error.
#[inline(always)]
fn mini(context: *mut c_void, mut head: Head, sk: Ptr, listener: u64) {
    head.netns = kernel::netns::<Direct>(sk);
    head.sk = sk as u64;
    head.flags |= flag::MINI;
    socket(context, head, sk, listener);
}

#[inline(always)]
fn head(sk: Ptr, kind: u8, state: u8) -> Head {
    Head {
        // SAFETY: takes nothing.
        time_ns: unsafe { bpf_ktime_get_ns() },
        kind,
        flags: flag::V6,
        old: state,
        new: state,
        family: kernel::family::<Direct>(sk),
        local_port: kernel::local_port::<Direct>(sk),
        remote_port: kernel::remote_port::<Direct>(sk),
        extra: kernel::interface::<Direct>(sk),
        ..Head::default()
    }
}

#[inline(always)]
fn socket(context: *mut c_void, mut head: Head, sk: Ptr, listener: u64) {
    head.flags |= flag::LISTENER;
    let addresses = kernel::addresses_wide::<Direct>(sk);
    write(context, &SocketRecord { head, addresses, extra: Listener { sk: listener } });
}

#[inline(always)]
fn write<T>(context: *mut c_void, record: &T) {
    let meta = context_word::<0>(context) as Ptr;
    // SAFETY: the first word of `struct bpf_iter_meta` is its seq_file.
    let seq = unsafe { core::ptr::read_volatile(meta.cast::<u64>()) } as *mut c_void;
    // SAFETY: `record` is on the stack and has no padding. If the buffer is full, the kernel calls the program again with more
    // room.
    unsafe {
        generated::bpf_seq_write(seq.cast(), (&raw const *record).cast_mut().cast(), size_of::<T>() as u32)
    };
}
