//! The system calls that the tracer's process no longer needs once its sinks have a process of their own (seccomp). The
//! list names what is refused: much of what the tracer does depends on the host.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

use super::{CallsError, calls::failed};

/// Calls that fail with EPERM.
const REFUSED: &[c_long] = &[
    // Another program, and changes of another process.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kill,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // Another user, and keys.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    // What CAP_SYS_ADMIN allows beside the namespaces that the tracer enters.
    libc::SYS_acct,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    // Ways around a filter, or that have had many faults.
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
];

/// Families of sockets: messages of the service manager, the process of the sinks, and the kernel's tables.
const FAMILIES: [i32; 2] = [libc::AF_UNIX, libc::AF_NETLINK];

/// Restricts the system calls of all threads of this process.
///
/// # Errors
/// The kernel refuses.
pub fn restrict_tracer() -> Result<(), CallsError> {
    apply_filter_all_threads(&filter()?).map_err(|error| failed(&error))
}

fn filter() -> Result<BpfProgram, CallsError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let other = FAMILIES
        .map(|family| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family as u64));
    let other = other.into_iter().collect::<Result<_, _>>().and_then(SeccompRule::new);
    rules.insert(libc::SYS_socket, vec![other.map_err(|error| failed(&error))?]);
    let arch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch);
    filter.and_then(TryInto::try_into).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use std::{
        fs, io,
        net::{TcpListener, UdpSocket},
        os::unix::net::UnixStream,
        process::Command,
        thread,
    };

    use rustix::net::{AddressFamily, SocketType, netlink, socket};
    use seccompiler::apply_filter;

    use super::*;

    #[test]
    fn the_tracer_has_no_network_and_starts_no_program() {
        // A filter is for a thread, and those that it starts.
        let restricted = thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).expect("no new privileges");
            apply_filter(&filter().expect("a filter")).expect("the kernel has seccomp");
            for call in REFUSED {
                // SAFETY: the filter refuses the call. Without it, null and wrong descriptors are errors, or ask for nothing.
                let result = unsafe { libc::syscall(*call, -1, 0, 0, 0, 0) };
                assert_eq!(
                    (result, io::Error::last_os_error().raw_os_error()),
                    (-1, Some(libc::EPERM)),
                    "{call}"
                );
            }
            let refused = [
                TcpListener::bind("127.0.0.1:0").map(drop),
                UdpSocket::bind("[::1]:0").map(drop),
                socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop).map_err(io::Error::from),
                Command::new("/bin/true").status().map(drop),
            ];
            for (at, result) in refused.into_iter().enumerate() {
                let error = result.expect_err(&format!("number {at}"));
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "number {at}: {error}");
            }
            UnixStream::pair().expect("sockets");
            socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG))
                .expect("the kernel's tables");
            fs::read("/proc/self/status").expect("a file");
            thread::spawn(|| ()).join().expect("a thread");
        });
        restricted.join().expect("a thread");
        TcpListener::bind("127.0.0.1:0").expect("another thread");
    }
}
