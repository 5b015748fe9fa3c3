//! Sockets of the three kinds of addresses, and what can be done to them.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use socket2::{Domain, SockFilter, Socket, Type};

/// Kinds of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    V4,
    V6,
    /// An IPv4 client, written as ::ffff:127.0.0.1, of a dual-stack listener.
    Mapped,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// As `network.type` must say.
    pub(crate) fn network_type(self) -> &'static str {
        if self == Self::V6 { "ipv6" } else { "ipv4" }
    }

    /// As `local.address` of a connection must say.
    pub(crate) fn address_text(self) -> &'static str {
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
    pub(crate) fn listen(self, port: u16) -> Socket {
        let socket = self.socket();
        let address = match self {
            Self::Mapped => (Ipv6Addr::UNSPECIFIED, port).into(),
            _ => self.address(port),
        };
        socket.bind(&address.into()).expect("bind");
        socket.listen(16).expect("listen");
        socket
    }

    /// A connect; an error is the caller's.
    pub(crate) fn connect(self, port: u16) -> std::io::Result<Socket> {
        let socket = self.socket();
        socket.connect(&self.address(port).into())?;
        Ok(socket)
    }

    /// A connect that is not waited for.
    pub(crate) fn start_connect(self, port: u16) -> Socket {
        let socket = self.socket();
        socket.set_nonblocking(true).expect("nonblocking");
        let _ = socket.connect(&self.address(port).into());
        socket
    }

    /// Listener, client and accepted server.
    pub(crate) fn pair(self, port: u16) -> (Socket, Socket, Socket) {
        let listener = self.listen(port);
        let client = self.connect(port).expect("connect");
        let server = listener.accept().expect("accept").0;
        (listener, client, server)
    }
}

/// A port that no other test of this process uses.
pub(crate) fn fresh_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(2000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// From now on close() resets.
pub(crate) fn reset_on_close(socket: &Socket) {
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
}

/// Nothing that arrives is seen by the socket.
pub(crate) fn make_deaf(socket: &Socket) {
    // BPF_RET | BPF_K with 0 bytes to keep.
    socket.attach_filter(&[SockFilter::new(6, 0, 0, 0)]).expect("filter");
}

/// Takes that back.
pub(crate) fn make_hear(socket: &Socket) {
    socket.detach_filter().expect("filter");
}

/// The socket stays open in programs that are started from here.
pub(crate) fn keep_over_exec(socket: &Socket) -> i32 {
    socket.set_cloexec(false).expect("cloexec");
    socket.as_raw_fd()
}
