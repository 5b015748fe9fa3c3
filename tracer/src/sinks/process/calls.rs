//! The system calls that the process of the sinks may make (seccomp). All others fail with ENOSYS, for which the C
//! library has other ways where a call is newer than some kernels.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use thiserror::Error;

/// Why a filter is not in force.
#[derive(Debug, Error)]
#[error("cannot restrict the system calls (seccomp): {0}")]
pub struct CallsError(String);

/// Calls that are allowed with any arguments: none of them reaches another process, or changes more than files,
/// sockets and memory of this one.
const ALLOWED: &[c_long] = &[
    // Files. Landlock and the user decide which.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets, whose families are restricted, and waiting.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Memory, threads and time.
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // What the process asks about itself. A thread gives up its capabilities, of which it has none.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older calls, which the C library of x86-64 still makes.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// Families of sockets: those of collectors, and netlink, by which the C library finds out which addresses to ask for.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Requests of ioctl: modes of a descriptor, and unsent bytes.
#[allow(clippy::unnecessary_cast, reason = "requests are int with musl, and unsigned long with glibc")]
const REQUESTS: [u64; 5] = [
    libc::FIOCLEX as u64,
    libc::FIONBIO as u64,
    libc::TCGETS as u64,
    libc::TIOCGWINSZ as u64,
    libc::TIOCOUTQ as u64,
];
/// Options of prctl: the names of threads and of their memory.
const OPTIONS: [i32; 3] = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];

/// Restricts the system calls of this thread, and of all that it starts.
///
/// # Errors
/// The kernel refuses.
pub fn restrict_calls() -> Result<(), CallsError> {
    let arch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let refused = SeccompAction::Errno(libc::ENOSYS as u32);
    let rules = rules().map_err(|error| failed(&error))?;
    let filter =
        SeccompFilter::new(rules, refused, SeccompAction::Allow, arch).map_err(|error| failed(&error))?;
    let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| failed(&error))?;
    apply_filter(&program).map_err(|error| failed(&error))
}

pub(super) fn failed(error: &dyn std::fmt::Display) -> CallsError {
    CallsError(error.to_string())
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    let one_of = |argument, values: &[u64]| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        values.iter().map(|value| rule(argument, SeccompCmpOp::Eq, *value)).collect()
    };
    let families = FAMILIES.map(|family| family as u64);
    rules.insert(libc::SYS_socket, one_of(0, &families)?);
    rules.insert(libc::SYS_socketpair, one_of(0, &[libc::AF_UNIX as u64])?);
    rules.insert(libc::SYS_ioctl, one_of(1, &REQUESTS)?);
    rules.insert(libc::SYS_prctl, one_of(0, &OPTIONS.map(|option| option as u64))?);
    // Threads, and no processes. clone3 has its flags in memory, which a filter cannot read.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    // Only signals to itself (abort), and only a look at its limits.
    rules.insert(libc::SYS_tgkill, one_of(0, &[u64::from(std::process::id())])?);
    rules.insert(libc::SYS_prlimit64, one_of(2, &[0])?);
    Ok(rules)
}

fn rule(argument: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let len = if argument == 2 { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
    SeccompRule::new(vec![SeccompCondition::new(argument, len, how, value)?])
}

#[cfg(test)]
mod tests {
    use std::{io, net::UdpSocket, thread};

    use super::*;

    /// Whether the filter refuses a call.
    fn is_refused(call: c_long, arguments: [c_long; 3]) -> bool {
        let [a, b, c] = arguments;
        // SAFETY: the filter refuses it; without the filter, null and wrong numbers are errors for all of them, except
        // for clone, whose child would end with the test.
        let result = unsafe { libc::syscall(call, a, b, c, 0, 0) };
        result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
    }

    #[test]
    fn what_is_not_listed_is_refused() {
        // A filter is for a thread, and those that it starts.
        let restricted = thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).expect("no new privileges");
            restrict_calls().expect("a filter");
            let refused = [
                (libc::SYS_bpf, [0; 3]),
                (libc::SYS_clone, [c_long::from(libc::SIGCHLD), 0, 0]),
                (libc::SYS_clone3, [0; 3]),
                (libc::SYS_delete_module, [0; 3]),
                (libc::SYS_execve, [0; 3]),
                (libc::SYS_io_uring_setup, [0; 3]),
                (libc::SYS_ioctl, [0, libc::TIOCSTI as c_long, 0]),
                (libc::SYS_keyctl, [-1, 0, 0]),
                (libc::SYS_kill, [1, 0, 0]),
                (libc::SYS_listen, [-1, 0, 0]),
                (libc::SYS_mount, [0; 3]),
                (libc::SYS_open_by_handle_at, [-1, 0, 0]),
                (libc::SYS_perf_event_open, [0; 3]),
                (libc::SYS_prctl, [c_long::from(libc::PR_SET_DUMPABLE), 1, 0]),
                (libc::SYS_process_vm_readv, [1, 0, 0]),
                (libc::SYS_ptrace, [c_long::from(libc::PTRACE_ATTACH), 1, 0]),
                (libc::SYS_setns, [-1, 0, 0]),
                (libc::SYS_setuid, [0; 3]),
                (libc::SYS_socket, [c_long::from(libc::AF_PACKET), c_long::from(libc::SOCK_RAW), 0]),
                (libc::SYS_tgkill, [1, 1, 0]),
                (libc::SYS_unshare, [0; 3]),
            ];
            let refused = refused.map(|(call, arguments)| (call, is_refused(call, arguments)));
            // What a sink needs.
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let started = thread::spawn(|| is_refused(libc::SYS_bpf, [0; 3])).join().expect("a thread");
            let written =
                tempfile::tempfile().and_then(|mut file| io::Write::write_all(&mut file, b"record"));
            drop(socket);
            (refused, started, written)
        });
        let (refused, started, written) = restricted.join().expect("a thread");
        for (call, is_refused) in refused {
            assert!(is_refused, "call {call}");
        }
        assert!(started, "a thread that it starts");
        written.expect("a file");
        assert!(!is_refused(libc::SYS_bpf, [0; 3]), "another thread");
    }
}
