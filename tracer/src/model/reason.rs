//! Why a socket is stuck. docs/stuck.md has the evidence for each reason.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The connection waits in the listener's accept queue.
    NeverAccepted,
    /// The application has not read the end of file.
    EofUnread,
    /// The application does not read.
    UnreadData,
    /// The peer has closed its side only: data was sent to it a moment ago, or is on its way to it.
    HalfClosedSending,
    /// The application has read everything and does not close.
    NotClosed,
    /// Only processes that did not open the socket hold it: they may have inherited it.
    HeldByChild,
    /// The kernel itself uses the socket, and does not close it.
    HeldByKernel,
    /// The descriptor waits in the queue of a unix socket.
    InFlight,
    /// The processes that hold the socket cannot be seen.
    HolderHidden,
    /// Closed here; the peer's FIN has not come.
    OrphanWaitsForFin,
    /// Shut down here for sending; the peer keeps its side open.
    PeerKeepsOpen,
    /// The peer does not acknowledge.
    PeerNotAnswering,
    /// The peer answers the SYN, and not by a SYN-ACK that fits it: challenge ACKs of another connection, for example.
    AnsweredWithoutSynAck,
    /// The peer's window is closed.
    PeerTakesNothing,
    /// The peer's window is open, and this host does not send.
    CannotSend,
    /// The listener's accept queue is full.
    AcceptQueueFull,
    /// The handshake is done, and the kernel waits for data (TCP_DEFER_ACCEPT).
    DeferredAccept,
    /// The handshake is not finished.
    HandshakeUnfinished,
    /// There is no evidence.
    Unknown,
}

impl Reason {
    pub const ALL: [Self; 19] = [
        Self::NeverAccepted,
        Self::EofUnread,
        Self::UnreadData,
        Self::HalfClosedSending,
        Self::NotClosed,
        Self::HeldByChild,
        Self::HeldByKernel,
        Self::InFlight,
        Self::HolderHidden,
        Self::OrphanWaitsForFin,
        Self::PeerKeepsOpen,
        Self::PeerNotAnswering,
        Self::AnsweredWithoutSynAck,
        Self::PeerTakesNothing,
        Self::CannotSend,
        Self::AcceptQueueFull,
        Self::DeferredAccept,
        Self::HandshakeUnfinished,
        Self::Unknown,
    ];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NeverAccepted => "never_accepted",
            Self::EofUnread => "eof_unread",
            Self::UnreadData => "unread_data",
            Self::HalfClosedSending => "half_closed_sending",
            Self::NotClosed => "not_closed",
            Self::HeldByChild => "held_by_child",
            Self::HeldByKernel => "held_by_kernel",
            Self::InFlight => "in_flight",
            Self::HolderHidden => "holder_hidden",
            Self::OrphanWaitsForFin => "orphan_waits_for_fin",
            Self::PeerKeepsOpen => "peer_keeps_open",
            Self::PeerNotAnswering => "peer_not_answering",
            Self::AnsweredWithoutSynAck => "answered_without_syn_ack",
            Self::PeerTakesNothing => "peer_takes_nothing",
            Self::CannotSend => "cannot_send",
            Self::AcceptQueueFull => "accept_queue_full",
            Self::DeferredAccept => "deferred_accept",
            Self::HandshakeUnfinished => "handshake_unfinished",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a socket is stuck, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    pub reason: Reason,
    /// The reason as a sentence.
    pub why: String,
    /// What to do, in a sentence.
    pub advice: String,
    /// Commands that inspect the holders or end the socket; sockstate never runs them.
    pub commands: Vec<String>,
    /// How many commands for further holders are left out.
    pub more_commands: usize,
    /// Why no command ends the socket, and what ends it; `None` where a command does.
    pub cannot_destroy: Option<String>,
}
