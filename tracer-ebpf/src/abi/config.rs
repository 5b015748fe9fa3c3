//! Configuration of the kernel programs: user space writes it into frozen globals before the load, so that the verifier sees
//! constants.

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($(#[$doc:meta])* $name:ident = $path:literal),* $(,)?) => {
        /// Byte offsets in the running kernel's structures, resolved from its BTF.
        #[repr(C)]
        #[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
        #[derive(Clone, Copy, Debug)]
        pub struct Offsets {
            /// 1 once the offsets were resolved; 0 means that none may be used.
            pub valid: u32,
            /// 1 where `bpf_get_current_task_btf` exists (5.11, commit 3ca1032ab7ab).
            pub task_btf: u32,
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Offsets {
            /// Nothing resolved.
            pub const NONE: Self = Self { valid: 0, task_btf: 0, $($name: ABSENT,)* };

            /// Sets the field called `name`; false if there is none.
            #[cfg(not(target_arch = "bpf"))]
            pub fn set(&mut self, name: &str, offset: u32) -> bool {
                match name {
                    $(stringify!($name) => self.$name = offset,)*
                    _ => return false,
                }
                true
            }
        }

        /// Field of [`Offsets`] and its path in BTF, several separated by `|`; a trailing `?` marks one that a kernel may
        /// lack.
        #[cfg(not(target_arch = "bpf"))]
        pub const OFFSET_PATHS: &[(&str, &str)] = &[$((stringify!($name), $path)),*];
    };
}

offsets! {
    /// u16.
    family = "sock_common.skc_family",
    /// u8.
    state = "sock_common.skc_state",
    /// u16, host order.
    num = "sock_common.skc_num",
    /// be16.
    dport = "sock_common.skc_dport",
    /// be32.
    daddr = "sock_common.skc_daddr",
    /// be32.
    rcv_saddr = "sock_common.skc_rcv_saddr",
    /// in6_addr; absent without CONFIG_IPV6.
    v6_daddr = "sock_common.skc_v6_daddr?",
    /// in6_addr; absent without CONFIG_IPV6.
    v6_rcv_saddr = "sock_common.skc_v6_rcv_saddr?",
    /// int: the interface that the socket is bound to.
    bound_dev = "sock_common.skc_bound_dev_if",
    /// struct net *.
    net = "sock_common.skc_net.net",
    /// u32.
    net_inum = "net.ns.inum",
    /// u16 (u8 before 5.6).
    protocol = "sock.sk_protocol",
    /// kuid_t.
    uid = "sock.sk_uid",
    /// int.
    err = "sock.sk_err",
    /// struct cgroup *, from 5.15 (commit 8520e224f547).
    cgroup = "sock.sk_cgrp_data.cgroup?",
    /// u64: a cgroup pointer or tagged data, up to 5.14.
    cgroup_val = "sock.sk_cgrp_data.val?",
    /// struct kernfs_node *.
    cgroup_kn = "cgroup.kn",
    /// u64.
    kn_id = "kernfs_node.id",
    /// be16.
    sport = "tcp_sock.inet_conn.icsk_inet.inet_sport",
    /// list_head: points to itself in a listener, and so to the listener in its fresh clone.
    sent_queue = "tcp_sock.tsorted_sent_queue",
    /// unsigned long.
    flags = "sock_common.skc_flags",
    /// unsigned long.
    lingertime = "sock.sk_lingertime",
    /// int.
    linger2 = "tcp_sock.linger2",
    /// u8.
    retransmits = "tcp_sock.inet_conn.icsk_retransmits",
    /// u8.
    probes_out = "tcp_sock.inet_conn.icsk_probes_out",
    /// u8.
    shutdown = "sock.sk_shutdown",
    /// struct socket *.
    sk_socket = "sock.sk_socket",
    /// enum socket_state.
    socket_state = "socket.state",
    /// struct file *, `NULL` if no process can have a descriptor of the socket.
    socket_file = "socket.file",
    /// struct socket, inside the structure that also has the inode.
    socket_in_alloc = "socket_alloc.socket?",
    /// unsigned long.
    inode_in_alloc = "socket_alloc.vfs_inode.i_ino?",
    /// struct tcp_ulp_ops *: the protocol above this connection, such as MPTCP.
    ulp_ops = "tcp_sock.inet_conn.icsk_ulp_ops?",
    /// bool: a subflow of an MPTCP connection; absent without CONFIG_MPTCP.
    is_mptcp = "tcp_sock.is_mptcp?",
    /// u32.
    snd_una = "tcp_sock.snd_una",
    /// u32.
    snd_nxt = "tcp_sock.snd_nxt",
    /// u32.
    snd_wnd = "tcp_sock.snd_wnd",
    /// u32.
    write_seq = "tcp_sock.write_seq",
    /// u32.
    packets_out = "tcp_sock.packets_out",
    /// u32.
    segs_out = "tcp_sock.segs_out",
    /// u32.
    segs_in = "tcp_sock.segs_in",
    /// u64.
    bytes_sent = "tcp_sock.bytes_sent",
    /// u64.
    bytes_retrans = "tcp_sock.bytes_retrans",
    /// u64.
    bytes_received = "tcp_sock.bytes_received",
    /// u32.
    total_retrans = "tcp_sock.total_retrans",
    /// u32.
    srtt_us = "tcp_sock.srtt_us",
    /// struct minmax_sample[3]; the first is the minimum.
    rtt_min = "tcp_sock.rtt_min.s",
    /// u32: the value of a sample, from its begin.
    minmax_value = "minmax_sample.v",
    /// u32.
    rcv_nxt = "tcp_sock.rcv_nxt",
    /// u32.
    copied_seq = "tcp_sock.copied_seq",
    /// refcount_t, 0 while the namespace is taken down.
    net_count = "net.ns.__ns_ref|net.ns.count|net.count?",
    /// unsigned char.
    tw_substate = "inet_timewait_sock.tw_substate",
    /// struct timer_list.
    tw_timer = "inet_timewait_sock.tw_timer",
    /// struct timer_list.
    rsk_timer = "request_sock.rsk_timer",
    /// u8.
    rsk_retransmits = "request_sock.num_retrans",
    /// struct sock *, the child.
    rsk_child = "request_sock.sk",
    /// A function.
    timer_function = "timer_list.function",
    /// unsigned long, jiffies.
    timer_expires = "timer_list.expires",
    /// be16.
    skb_protocol = "sk_buff.protocol",
    /// unsigned char *.
    skb_head = "sk_buff.head",
    /// u16, from the head.
    skb_network = "sk_buff.network_header",
    /// u16, from the head.
    skb_transport = "sk_buff.transport_header",
    /// struct net_device *.
    skb_dev = "sk_buff.dev",
    /// struct net *.
    dev_net = "net_device.nd_net.net",
    /// int.
    dev_index = "net_device.ifindex",
    /// struct sock *.
    rsk_listener = "request_sock.__req_common.skc_listener",
    /// struct task_struct *.
    group_leader = "task_struct.group_leader",
    /// pid_t.
    tgid = "task_struct.tgid",
    /// u32, u64 from 5.7: the low half is read.
    exec_id = "task_struct.self_exec_id",
    /// u64.
    start_boottime = "task_struct.start_boottime",
    /// char[16].
    comm = "task_struct.comm",
    /// unsigned int, `PF_*`.
    task_flags = "task_struct.flags",
    /// struct signal_struct *.
    task_signal = "task_struct.signal",
    /// atomic_t: threads of the process that have not ended.
    signal_live = "signal_struct.live",
    /// int: 1 while a process has the socket locked, 0 in a softirq.
    lock_owned = "sock.sk_lock.owned",
    /// struct sock *.
    socket_sk = "socket.sk",
    /// struct files_struct *.
    task_files = "task_struct.files?",
    /// struct fdtable *.
    files_fdt = "files_struct.fdt?",
    /// struct file **.
    fdt_fd = "fdtable.fd?",
    /// void *: a socket's struct socket *.
    file_private = "file.private_data?",
    /// struct pid *: the numbers of a thread.
    task_thread_pid = "task_struct.thread_pid?",
    /// unsigned int: depth of the pid namespace.
    pid_level = "pid.level?",
    /// struct upid[]: the numbers, from the initial pid namespace down to the thread's own.
    pid_numbers = "pid.numbers?",
}

/// The processes whose stacks are taken when they open a connection.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hunt {
    /// Name, NUL padded; all zero for any.
    pub comm: [u8; 16],
    /// Process id, 0 for any.
    pub pid: u32,
    /// Most stacks of one process in a second.
    pub rate: u32,
    /// Offsets in `struct pt_regs` (asm/ptrace.h): program counter, ...
    pub pc: u32,
    /// ... stack pointer, ...
    pub sp: u32,
    /// ... frame pointer, ...
    pub fp: u32,
    /// ... and link register, [`ABSENT`] where there is none.
    pub lr: u32,
}

/// How to find the frames of a process's CPython threads: the address of `_PyRuntime`, and the offsets from the process's own
/// `_Py_DebugOffsets` (3.13). A value of the map `PYTHONS`, which user space has checked.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Python {
    /// Address of `_PyRuntime`.
    pub runtime: u64,
    /// `PY_VERSION_HEX`, the word behind the cookie.
    pub version: u64,
    /// `interpreters.head` of `_PyRuntimeState`.
    pub interpreters: u32,
    /// `next` of `PyInterpreterState`, ...
    pub next_interpreter: u32,
    /// ... and its `threads.head`.
    pub threads: u32,
    /// `next` of `PyThreadState`, ...
    pub next_thread: u32,
    /// ... its `native_thread_id`, ...
    pub native_thread_id: u32,
    /// ... and its `current_frame`.
    pub current_frame: u32,
    /// `previous` of `_PyInterpreterFrame`, ...
    pub previous: u32,
    /// ... its `f_executable`, ...
    pub executable: u32,
    /// ... its `instr_ptr`, ...
    pub instruction: u32,
    /// ... and its `owner`.
    pub owner: u32,
    /// `co_qualname` of `PyCodeObject`.
    pub qualname: u32,
    /// Zero.
    pub pad: u32,
    /// Always zero. The verifier does not know that: it would walk the program once for each known value of a counter.
    pub zero: u64,
}

/// Properties of hooks that differ between kernel versions.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hooks {
    /// Address of `tw_timer_handler`, 1 where unknown.
    pub tw_timer: u64,
    /// Address of `reqsk_timer_handler`, 1 where unknown.
    pub req_timer: u64,
    /// Number of parameters of `inet_csk_reqsk_queue_hash_add`, whose result is behind them; 0 if the function returns nothing.
    pub hash_add_result: u32,
    /// 1 where `tcp_send_reset` has a reason (6.10, commit 120391ef9ca8).
    pub reset_reason: u32,
    /// `SKB_DROP_REASON_NO_SOCKET`; 0 where `kfree_skb` has no reason.
    pub no_socket: u32,
    /// Zero.
    pub pad: u32,
}

/// Byte offsets of the classic tracepoint's fields, from its `format` file.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug, Default)]
pub struct TracepointFormat {
    /// `skaddr`, a pointer.
    pub skaddr: u32,
    /// `oldstate`, int.
    pub oldstate: u32,
    /// `newstate`, int.
    pub newstate: u32,
    /// `sport`, u16 in host order.
    pub sport: u32,
    /// `dport`, u16 in host order.
    pub dport: u32,
    /// `family`, u16.
    pub family: u32,
    /// `protocol`.
    pub protocol: u32,
    /// Width of `protocol` in bytes: 1 before 5.6, else 2.
    pub protocol_size: u32,
    /// `saddr`, 4 bytes.
    pub saddr: u32,
    /// `daddr`, 4 bytes.
    pub daddr: u32,
    /// `saddr_v6`, 16 bytes.
    pub saddr_v6: u32,
    /// `daddr_v6`, 16 bytes.
    pub daddr_v6: u32,
}

/// The filter; all zeros let everything pass. A record whose filtered fields are not known yet passes.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes))]
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Wanted pairs of states, bit `new` of word `old`; pairs with a state above 15 always pass. There are 256
    /// words, so that the verifier sees that an index of 8 bits is in range.
    pub pairs: [u16; 256],
    /// Bytes of the local prefix, v4-mapped for IPv4, four big-endian words.
    pub local: [u32; 4],
    /// Its mask; all zero for no filter.
    pub local_mask: [u32; 4],
    /// Bytes of the remote prefix.
    pub remote: [u32; 4],
    /// Its mask.
    pub remote_mask: [u32; 4],
    /// Network namespace, 0 for all.
    pub netns: u32,
    /// 4 or 6, 0 for both; v4-mapped counts as 4.
    pub ip_version: u32,
    /// Bit `PORTS_LOCAL`, `PORTS_REMOTE` or `PORTS_EITHER` set where that bitmap counts.
    pub ports: u32,
    /// 1 if an address prefix is set.
    pub prefixes: u32,
}

impl Filter {
    /// Everything passes.
    pub const ALL: Self = Self {
        pairs: [u16::MAX; 256],
        local: [0; 4],
        local_mask: [0; 4],
        remote: [0; 4],
        remote_mask: [0; 4],
        netns: 0,
        ip_version: 0,
        ports: 0,
        prefixes: 0,
    };
}
