//! Sockets of three kinds of addresses, and operations on them.

use std::{
    io::Read,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use socket2::{Domain, SockFilter, Socket, Type};

/// Kinds of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    V4,
    V6,
    /// An IPv4 client, written as ::ffff:127.0.0.1, of a dual-stack listener.
    Mapped,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// The value that `network.type` must have.
    pub fn network_type(self) -> &'static str {
        if self == Self::V6 { "ipv6" } else { "ipv4" }
    }

    /// The value that `local.address` of a connection must have.
    pub fn address_text(self) -> &'static str {
        if self == Self::V6 { "::1" } else { "127.0.0.1" }
    }

    fn address(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::LOCALHOST, port).into(),
            Self::V6 => (Ipv6Addr::LOCALHOST, port).into(),
            Self::Mapped => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into(),
        }
    }

    fn socket(self) -> Socket {
        let domain = if self == Self::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, None).expect("socket");
        socket.set_reuse_address(true).expect("reuse");
        if domain == Domain::IPV6 {
            socket.set_only_v6(self == Self::V6).expect("only v6");
        }
        socket
    }

    /// A listener.
    pub fn listen(self, port: u16) -> Socket {
        self.listen_for(port, 16)
    }

    /// A listener with this backlog.
    pub fn listen_for(self, port: u16, backlog: i32) -> Socket {
        let socket = self.socket();
        let address = match self {
            Self::Mapped => (Ipv6Addr::UNSPECIFIED, port).into(),
            _ => self.address(port),
        };
        socket.bind(&address.into()).expect("bind");
        socket.listen(backlog).expect("listen");
        socket
    }

    /// A socket that shares this port with others (SO_REUSEPORT), not listening yet.
    pub fn bind_shared(self, port: u16) -> Socket {
        self.bind_reusing(self.address(port))
    }

    /// As [`Kind::bind_shared`], on all IPv4 addresses.
    pub fn bind_shared_any(self, port: u16) -> Socket {
        self.bind_reusing((Ipv4Addr::UNSPECIFIED, port).into())
    }

    /// As [`Kind::bind_shared`], on all addresses of both families.
    pub fn bind_shared_all(self, port: u16) -> Socket {
        self.bind_reusing((Ipv6Addr::UNSPECIFIED, port).into())
    }

    fn bind_reusing(self, address: SocketAddr) -> Socket {
        let socket = self.socket();
        socket.set_reuse_port(true).expect("reuseport");
        socket.bind(&address.into()).expect("bind");
        socket
    }

    /// Connects to this port.
    pub fn connect(self, port: u16) -> std::io::Result<Socket> {
        let socket = self.socket();
        socket.connect(&self.address(port).into())?;
        Ok(socket)
    }

    /// Starts to connect, and does not wait.
    pub fn start_connect(self, port: u16) -> Socket {
        let socket = self.socket();
        socket.set_nonblocking(true).expect("nonblocking");
        let _ = socket.connect(&self.address(port).into());
        socket
    }

    /// Connects from this local port.
    pub fn connect_from(self, local: u16, port: u16) -> std::io::Result<Socket> {
        let socket = self.socket();
        // Together with SO_REUSEADDR it takes a port that is in TIME_WAIT.
        socket.set_reuse_port(true)?;
        socket.bind(&self.address(local).into())?;
        socket.connect(&self.address(port).into())?;
        Ok(socket)
    }

    /// Starts to connect from this local port, and does not wait.
    pub fn start_connect_from(self, local: u16, port: u16) -> Socket {
        let socket = self.socket();
        socket.set_nonblocking(true).expect("nonblocking");
        socket.bind(&self.address(local).into()).expect("bind");
        let _ = socket.connect(&self.address(port).into());
        socket
    }

    /// Connects with a socket that has connected before.
    pub fn connect_again(self, socket: &Socket, port: u16) {
        socket.connect(&self.address(port).into()).expect("connect");
    }

    /// Starts to connect with a socket that drops every packet that arrives.
    pub fn start_deaf_connect(self, port: u16) -> Socket {
        let socket = self.socket();
        make_deaf(&socket);
        socket.set_nonblocking(true).expect("nonblocking");
        let _ = socket.connect(&self.address(port).into());
        socket
    }

    /// Connects with data in the SYN (TCP fast open).
    pub fn fast_connect(self, port: u16, data: &[u8]) -> Socket {
        let socket = self.socket();
        let sent = socket.send_to_with_flags(data, &self.address(port).into(), libc::MSG_FASTOPEN);
        assert_eq!(sent.expect("fast open"), data.len());
        socket
    }

    /// Listener, client and accepted server.
    pub fn pair(self, port: u16) -> (Socket, Socket, Socket) {
        let listener = self.listen(port);
        let client = self.connect(port).expect("connect");
        let server = listener.accept().expect("accept").0;
        (listener, client, server)
    }
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(2000);

/// A port that no other test of this process uses.
pub fn fresh_port() -> u16 {
    NEXT_PORT.fetch_add(1, Ordering::Relaxed)
}

/// The port that [`fresh_port`] returns next. All smaller ports were returned before.
pub fn next_port() -> u16 {
    NEXT_PORT.load(Ordering::Relaxed)
}

/// From now on, close() sends a reset.
pub fn reset_on_close(socket: &Socket) {
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
}

/// From now on, the socket drops every packet that arrives.
pub fn make_deaf(socket: &Socket) {
    // BPF_RET | BPF_K with 0 bytes to keep.
    socket.attach_filter(&[SockFilter::new(6, 0, 0, 0)]).expect("filter");
}

/// From now on, the socket drops every reset that arrives.
pub fn drop_resets(socket: &Socket) {
    let (flags, reset) = (13, 4);
    socket
        .attach_filter(&[
            // BPF_LD | BPF_B | BPF_ABS, BPF_JMP | BPF_JSET, and BPF_RET | BPF_K with all bytes or none.
            SockFilter::new(0x30, 0, 0, flags),
            SockFilter::new(0x45, 1, 0, reset),
            SockFilter::new(6, 0, 0, u32::MAX),
            SockFilter::new(6, 0, 0, 0),
        ])
        .expect("filter");
}

/// Closes the socket without a word to the peer, as if this host had crashed.
pub fn forget(socket: Socket) {
    option(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1);
    drop(socket);
}

/// Undoes [`make_deaf`] and [`drop_resets`].
pub fn make_hear(socket: &Socket) {
    socket.detach_filter().expect("filter");
}

/// Lets programs that this process starts inherit the socket. Returns its descriptor.
pub fn keep_over_exec(socket: &Socket) -> i32 {
    socket.set_cloexec(false).expect("cloexec");
    socket.as_raw_fd()
}

/// Sets an option that is an int.
pub fn option(socket: &Socket, level: i32, name: i32, value: i32) {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the value an int of that length.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    assert_eq!(result, 0, "setsockopt {name}: {}", std::io::Error::last_os_error());
}

/// Disconnects by connect() to AF_UNSPEC.
pub fn disconnect(socket: &Socket) {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the address as long as said.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    assert_eq!(result, 0, "disconnect: {}", std::io::Error::last_os_error());
}

/// The endpoints of a connection, by which it can be killed.
pub struct Endpoints {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Endpoints {
    pub fn of(socket: &Socket) -> Self {
        let address = |address: std::io::Result<socket2::SockAddr>| address.expect("address").as_socket();
        let known = |address: Option<SocketAddr>| address.expect("an IP address");
        Self { local: known(address(socket.local_addr())), remote: known(address(socket.peer_addr())) }
    }

    /// Does what `ss -K` does (SOCK_DESTROY of `linux/sock_diag.h`). Starting `ss` would copy the sockets of other
    /// tests until its exec.
    pub fn kill(&self) -> std::io::Result<()> {
        const SOCK_DESTROY: u16 = 21;
        sock_diag(SOCK_DESTROY, libc::NLM_F_ACK, self.local, self.remote)
    }
}

/// Runs `work` while a thread has a copy of this process's descriptor table; `work` gets the id of the thread.
/// Afterwards the thread closes its copies of `close`.
pub fn with_own_table(close: Vec<i32>, work: impl FnOnce(i32)) {
    let (ready, is_ready) = channel();
    let (end, is_over) = channel::<()>();
    thread::scope(|scope| {
        // Dropped also if `work` panics, so that the thread ends.
        let end = end;
        scope.spawn(move || {
            // SAFETY: takes a number; gives this thread a copy of the descriptor table.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            // SAFETY: takes nothing, cannot fail.
            ready.send(unsafe { libc::gettid() }).expect("send");
            let _ = is_over.recv();
            for fd in close {
                // SAFETY: this thread's own copy, which nobody else uses.
                unsafe { libc::close(fd) };
            }
        });
        work(is_ready.recv().expect("a thread"));
        drop(end);
    });
}

/// Whether this kernel has tcp_diag. Some of Debian's kernel packages have no modules.
pub fn has_tcp_diag() -> bool {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    match sock_diag(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP, any, any) {
        Ok(()) => true,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => false,
        Err(error) => panic!("sock_diag: {error}"),
    }
}

/// One request for TCP sockets, and the first answer's error.
fn sock_diag(message: u16, flags: i32, local: SocketAddr, remote: SocketAddr) -> std::io::Result<()> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = Vec::new();
    // struct nlmsghdr
    request.extend(72_u32.to_ne_bytes());
    request.extend(message.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    request.extend([0; 8]);
    // struct inet_diag_req_v2, in every state
    request.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    // struct inet_diag_sockid
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for address in [local, remote] {
        match address {
            SocketAddr::V4(v4) => {
                request.extend(v4.ip().octets());
                request.extend([0; 12]);
            }
            SocketAddr::V6(v6) => request.extend(v6.ip().octets()),
        }
    }
    request.extend(0_u32.to_ne_bytes());
    // INET_DIAG_NOCOOKIE
    request.extend([0xff; 8]);
    let netlink = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(socket2::Protocol::from(libc::NETLINK_SOCK_DIAG)),
    )?;
    netlink.send(&request)?;
    // One datagram: struct nlmsghdr, and in the answer of an error struct nlmsgerr, of which only the error is read.
    let mut answer = [0; 20];
    (&netlink).read_exact(&mut answer)?;
    let kind = i32::from(u16::from_ne_bytes([answer[4], answer[5]]));
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if kind != libc::NLMSG_ERROR || error == 0 {
        Ok(())
    } else {
        Err(std::io::Error::from_raw_os_error(-error))
    }
}
