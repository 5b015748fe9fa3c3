//! Messages on the socket between the two processes, with descriptors that come along.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, UCred, recvmsg, sendmsg,
};

use super::{Kind, protocol::HEADER};

/// Descriptors that one message has at most.
const MOST_DESCRIPTORS: usize = 2;

/// Sends a message: its parts one after another, and descriptors.
///
/// # Errors
/// The other process has ended, or the message is too long.
pub(super) fn send(
    mut socket: &UnixStream,
    kind: Kind,
    parts: &[&[u8]],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let len = parts.iter().map(|part| part.len()).sum();
    let header = kind.header(len).ok_or(io::ErrorKind::FileTooLarge)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = retried(|| sendmsg(socket, &[IoSlice::new(&header)], &mut ancillary, SendFlags::NOSIGNAL))?;
    socket.write_all(&header[sent..])?;
    parts.iter().try_for_each(|part| socket.write_all(part))
}

/// Reads messages.
pub(super) struct Receiver {
    socket: UnixStream,
    /// The longest message that is accepted.
    most: usize,
    /// Descriptors that came, and that no message has claimed yet.
    descriptors: VecDeque<OwnedFd>,
    sender: Option<UCred>,
}

impl Receiver {
    pub(super) fn new(socket: UnixStream, most: usize) -> Self {
        Self { socket, most, descriptors: VecDeque::new(), sender: None }
    }

    /// Who sent the last message, if the socket passes that on (SO_PASSCRED).
    pub(super) fn sender(&self) -> Option<UCred> {
        self.sender
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// What comes is no message of this protocol, or is too long.
    pub(super) fn next_message(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let mut header = [0; HEADER];
        let mut have = 0;
        while have < HEADER {
            match self.read_header(&mut header[have..])? {
                0 if have == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => have += more,
            }
        }
        let message = Kind::of(header).filter(|(_, len)| *len <= self.most);
        let (kind, len) = message.ok_or_else(|| invalid("not a message of this protocol"))?;
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes)?;
        Ok(Some((kind, bytes)))
    }

    /// A descriptor that came with the messages so far.
    pub(super) fn descriptor(&mut self) -> io::Result<OwnedFd> {
        self.descriptors.pop_front().ok_or_else(|| invalid("a descriptor is missing"))
    }

    fn read_header(&mut self, header: &mut [u8]) -> io::Result<usize> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS), ScmCredentials(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retried(|| {
            recvmsg(&self.socket, &mut [IoSliceMut::new(header)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            // The other process has ended before it had read everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
            received => received?,
        };
        for message in ancillary.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(descriptors) => self.descriptors.extend(descriptors),
                RecvAncillaryMessage::ScmCredentials(sender) => self.sender = Some(sender),
                _ => {}
            }
        }
        Ok(received.bytes)
    }
}

pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn retried<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    Ok(rustix::io::retry_on_intr(&mut call)?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let mut receiver = Receiver::new(theirs, 100);
        let file = tempfile::tempfile().expect("file");
        (&file).write_all(b"text").expect("write");
        send(&ours, Kind::Message, &[b"one", b" two"], &[file.as_fd()]).expect("send");
        send(&ours, Kind::Batch, &[], &[]).expect("send");
        assert_eq!(receiver.next_message().expect("a message"), Some((Kind::Message, b"one two".to_vec())));
        let received = File::from(receiver.descriptor().expect("the descriptor"));
        assert_eq!(received.metadata().expect("metadata").len(), 4);
        assert_eq!(receiver.next_message().expect("a message"), Some((Kind::Batch, Vec::new())));
        assert!(receiver.descriptor().is_err(), "no more");
        send(&ours, Kind::Message, &[&[0; 101]], &[]).expect("send");
        assert!(receiver.next_message().is_err(), "too long");
        drop(ours);
    }

    #[test]
    fn the_sender_is_known_if_the_socket_passes_it_on() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        rustix::net::sockopt::set_socket_passcred(&theirs, true).expect("an option");
        let mut receiver = Receiver::new(theirs, 100);
        send(&ours, Kind::Message, &[b"one"], &[]).expect("send");
        receiver.next_message().expect("a message");
        let sender = receiver.sender().expect("a sender");
        assert_eq!((sender.pid, sender.uid), (rustix::process::getpid(), rustix::process::geteuid()));
    }

    #[test]
    fn garbage_and_half_a_message_are_errors() {
        for (bytes, is_end) in
            [(&b""[..], true), (b"\x00\x05", false), (b"\x00\x05\0\0\0abc", false), (b"garbage", false)]
        {
            let (mut ours, theirs) = UnixStream::pair().expect("sockets");
            ours.write_all(bytes).expect("write");
            drop(ours);
            let next = Receiver::new(theirs, 100).next_message();
            assert_eq!(next.is_ok_and(|message| message.is_none()), is_end, "{bytes:?}");
        }
    }
}
