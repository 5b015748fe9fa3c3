//! Resets that this host sends without a socket.

use super::Tuple;

/// The names of the flags of a TCP header (RFC 9293, 3.1), the lowest bit first.
pub const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// A reset that this host has sent for a segment for which there is no socket; or a number of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// The segment that was answered; `None` for a number of resets that have no record of their own.
    pub answered: Option<Answered>,
    /// How many resets the record stands for.
    pub count: u64,
}

/// A segment that was answered by a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Network namespace inode.
    pub netns: Option<u32>,
    pub tuple: Tuple,
    /// The bits of its TCP flags.
    pub flags: u8,
}

impl Answered {
    /// The names of the flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = self.flags;
        (0..).zip(TCP_FLAGS).filter(move |(bit, _)| flags & 1 << bit != 0).map(|(_, name)| name)
    }
}
