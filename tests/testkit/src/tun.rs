//! A TCP peer that the test implements: a TUN device in the test's namespace leads to it. The device exists as long as
//! the value, and the peer sends only the segments that the test tells it to send.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// The host's address on the device.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The peer's address.
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN_NO_PI: libc::c_short = 0x1001;

/// A TCP segment, without options.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub from: u16,
    pub to: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub data: Vec<u8>,
    /// The whole packet, with its IP header.
    pub packet: Vec<u8>,
}

/// The peer's side of the device.
pub struct Wire {
    device: File,
}

impl Wire {
    /// Makes the device in this thread's namespace.
    ///
    /// # Errors
    /// The kernel has no TUN driver, as in virtual machines without modules.
    pub fn new() -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let mut request = named(b"tun0");
        request.ifr_ifru.ifru_flags = IFF_TUN_NO_PI;
        control(device.as_raw_fd(), TUNSETIFF, &request)?;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        for (what, address) in
            [(libc::SIOCSIFADDR, HOST), (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0))]
        {
            request.ifr_ifru.ifru_addr = plain(address);
            control(socket.as_raw_fd(), what as _, &request)?;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        control(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request)?;
        Ok(Self { device })
    }

    /// The next TCP segment that the host sends.
    pub fn hear(&mut self) -> Segment {
        self.hear_within(Duration::from_secs(20)).expect("the host sends nothing")
    }

    /// The next TCP segment that the host sends, if it comes in that time.
    pub fn hear_within(&mut self, time: Duration) -> Option<Segment> {
        let end = std::time::Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let mut poll = libc::pollfd { fd: self.device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, as said.
            if unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as libc::c_int) } <= 0 {
                return None;
            }
            let mut packet = vec![0; 65536];
            let length = self.device.read(&mut packet).expect("read");
            packet.truncate(length);
            // Skips the router solicitations of IPv6.
            if packet[0] == 0x45 && packet[9] == libc::IPPROTO_TCP as u8 {
                return Some(parse(packet));
            }
        }
    }

    /// The next TCP segment that has all these flags.
    pub fn hear_flags(&mut self, flags: u8) -> Segment {
        loop {
            let segment = self.hear();
            if segment.flags & flags == flags {
                return segment;
            }
        }
    }

    /// Sends a segment to the host.
    pub fn say(&mut self, segment: &Segment) {
        let mut tcp = Vec::new();
        tcp.extend(segment.from.to_be_bytes());
        tcp.extend(segment.to.to_be_bytes());
        tcp.extend(segment.seq.to_be_bytes());
        tcp.extend(segment.ack.to_be_bytes());
        tcp.extend([0x50, segment.flags]);
        tcp.extend(segment.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(&segment.data);
        let mut pseudo = [PEER.octets(), HOST.octets()].concat();
        pseudo.extend([0, libc::IPPROTO_TCP as u8]);
        pseudo.extend((tcp.len() as u16).to_be_bytes());
        pseudo.extend(&tcp);
        tcp[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        self.send(libc::IPPROTO_TCP as u8, &tcp);
    }

    /// Says that the host of `segment`'s receiver cannot be reached (ICMP type 3, code 1).
    pub fn say_unreachable(&mut self, segment: &Segment) {
        let mut icmp = vec![3, 1, 0, 0, 0, 0, 0, 0];
        icmp.extend(&segment.packet[..segment.packet.len().min(28)]);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        self.send(libc::IPPROTO_ICMP as u8, &icmp);
    }

    fn send(&mut self, protocol: u8, payload: &[u8]) {
        let mut packet = vec![0x45, 0];
        packet.extend((payload.len() as u16 + 20).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(PEER.octets());
        packet.extend(HOST.octets());
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        self.device.write_all(&packet).expect("write");
    }

    /// Opens a connection from a socket of the host to this port of the peer.
    pub fn accept(&mut self, port: u16) -> (Socket, Peer) {
        let socket = connecting(port);
        let syn = self.hear_flags(SYN);
        let mut peer = Peer { from: port, to: syn.from, seq: 1000, ack: syn.seq.wrapping_add(1) };
        self.say(&peer.segment(SYN | ACK));
        peer.seq += 1;
        // The last ACK of the handshake.
        self.hear_flags(ACK);
        (socket, peer)
    }
}

/// The peer's state in a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub from: u16,
    pub to: u16,
    /// The sequence number that the peer sends next.
    pub seq: u32,
    /// The sequence number that the peer expects next.
    pub ack: u32,
}

impl Peer {
    /// The next segment, without data.
    pub fn segment(&self, flags: u8) -> Segment {
        let Self { from, to, seq, ack } = *self;
        Segment { from, to, seq, ack, flags, window: 65535, ..Segment::default() }
    }

    /// The answer to `segment`, which acknowledges all of it.
    pub fn acknowledge(&mut self, segment: &Segment) -> Segment {
        let controls = u32::from(segment.flags & (SYN | FIN) != 0);
        self.ack = segment.seq.wrapping_add(segment.data.len() as u32 + controls);
        self.segment(ACK)
    }
}

/// A socket of the host whose connect to this port of the peer is under way.
pub fn connecting(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    // Another socket can then listen on the port while this one is in TIME_WAIT.
    socket.set_reuse_address(true).expect("reuse");
    socket.set_nonblocking(true).expect("nonblocking");
    let _ = socket.connect(&SocketAddr::from((PEER, port)).into());
    socket
}

fn parse(packet: Vec<u8>) -> Segment {
    let tcp = &packet[20..];
    let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
    let header = usize::from(tcp[12] >> 4) * 4;
    Segment {
        from: half(0),
        to: half(2),
        seq: word(4),
        ack: word(8),
        flags: tcp[13],
        window: half(14),
        data: tcp[header..].to_vec(),
        packet,
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn named(name: &[u8]) -> libc::ifreq {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request
}

fn plain(address: Ipv4Addr) -> libc::sockaddr {
    let mut plain = libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: [0; 14] };
    for (to, from) in plain.sa_data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    plain
}

fn control(fd: i32, what: libc::c_ulong, request: &libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open and `request` is an ifreq, as these requests take.
    match unsafe { libc::ioctl(fd, what as _, std::ptr::from_ref(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
