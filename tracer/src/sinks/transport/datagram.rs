//! Records as datagrams, one per record: syslog over UDP (RFC 5426) and to /dev/log, and journald's native protocol.

use std::{
    io::{self, IoSlice, Write},
    mem::MaybeUninit,
    os::fd::AsFd,
    path::Path,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use tokio::net::{UdpSocket, UnixDatagram};

use super::{Address, Authority, resolve::resolve};
use crate::sinks::delivery::{Batch, Delivered, DeliveryError, OpenError, Pending, Sink, SinkBuilder};

/// The destination of the datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramSettings {
    address: Address,
    /// A record that is too long for a datagram is sent as a file, which only journald accepts.
    files: bool,
}

impl DatagramSettings {
    /// To a syslog server.
    #[must_use]
    pub fn syslog(address: Address) -> Self {
        Self { address, files: false }
    }

    /// To journald's socket at `path`.
    #[must_use]
    pub fn journald(path: &Path) -> Self {
        Self { address: Address::Unix(path.to_owned()), files: true }
    }
}

impl SinkBuilder for DatagramSettings {
    fn open(&self, _header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(DatagramSink { settings: self.clone(), socket: None }))
    }
}

/// The sink.
struct DatagramSink {
    settings: DatagramSettings,
    socket: Option<Socket>,
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl DatagramSink {
    /// Delivers the records, and removes those that are delivered.
    async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        self.send(Delivered::none_of(batch)).await.map_err(|error| {
            let message = format!("{}: {error}", self.settings.address);
            // The first record that is left is larger than a datagram, or than the socket's buffer.
            if error.raw_os_error() == Some(libc::EMSGSIZE) {
                return DeliveryError::TooLarge { message };
            }
            // The program that received the datagrams has probably ended; the next one has another socket.
            self.socket = None;
            DeliveryError::retry(message)
        })
    }

    async fn send(&mut self, mut sent: Delivered<'_>) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(&self.settings.address).await?,
        };
        let socket = self.socket.insert(socket);
        for (bytes, _) in sent.batch.records() {
            // A datagram of syslog has no newline at its end; journald's last field must end with one.
            let text = if self.settings.files { bytes } else { bytes.strip_suffix(b"\n").unwrap_or(bytes) };
            let result = match socket {
                Socket::Udp(socket) => socket.send(text).await.map(drop),
                Socket::Unix(socket) => socket.send(text).await.map(drop),
            };
            match (result, &*socket) {
                (Ok(()), _) => {}
                (Err(error), Socket::Unix(socket)) if self.settings.files && is_too_long(&error) => {
                    send_file(socket, bytes).await?;
                }
                (Err(error), _) => return Err(error),
            }
            sent.count += 1;
        }
        Ok(())
    }
}

impl Sink for DatagramSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(self.send_batch(batch))
    }
}

async fn open(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            Ok(Socket::Unix(socket))
        }
        Address::Udp(authority) | Address::Tcp(authority) | Address::Tls(authority) => {
            Ok(Socket::Udp(open_udp(authority).await?))
        }
    }
}

async fn open_udp(authority: &Authority) -> io::Result<UdpSocket> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in resolve(authority).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn is_too_long(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS))
}

/// Sends a sealed memfd and no data, as systemd's documentation of the native protocol requires.
async fn send_file(socket: &UnixDatagram, bytes: &[u8]) -> io::Result<()> {
    let file = memfd_create(c"sockstate", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    socket
        .async_io(tokio::io::Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds = [file.as_fd()];
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            sendmsg(socket, &[IoSlice::new(&[])], &mut ancillary, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}
