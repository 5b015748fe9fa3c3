//! What a connection has transferred, in the lines about its end.

use serde::{Deserialize, Serialize};

use crate::model;

/// What the connection has transferred, by the kernel's counters; absent where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Traffic {
    pub bytes: Bytes,
    pub segments: Segments,
    /// Segments that this host sent again, SYNs and FINs included.
    pub retransmits: u32,
    pub rtt: Rtt,
    /// Received bytes that the application has not read.
    pub unread_bytes: u64,
}

/// Bytes of data, without headers, SYN and FIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Bytes {
    /// Sent bytes; bytes that were sent again count once.
    pub sent: u64,
    /// Bytes that were received in order.
    pub received: u64,
}

impl Bytes {
    pub(super) fn of_several(transferred: &model::Transferred) -> Self {
        Self { sent: transferred.bytes_sent, received: transferred.bytes_received }
    }
}

/// Segments, those without data included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Segments {
    /// Sent segments; a segment that was sent again counts again.
    pub sent: u32,
    /// Received segments.
    pub received: u32,
}

/// Round-trip times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rtt {
    /// The smoothed round-trip time; null if the kernel has measured none.
    pub smoothed_ns: Option<u64>,
    /// The smallest round-trip time of the last minutes; null if the kernel has measured none.
    pub min_ns: Option<u64>,
}

impl Traffic {
    pub(crate) fn of(traffic: &model::Traffic) -> Self {
        Self {
            bytes: Bytes { sent: traffic.bytes_sent, received: traffic.bytes_received },
            segments: Segments { sent: traffic.segments_sent, received: traffic.segments_received },
            retransmits: traffic.retransmits,
            rtt: Rtt { smoothed_ns: traffic.rtt_smoothed_ns, min_ns: traffic.rtt_min_ns },
            unread_bytes: traffic.unread_bytes,
        }
    }

    pub(super) fn record(&self) -> model::Traffic {
        model::Traffic {
            bytes_sent: self.bytes.sent,
            bytes_received: self.bytes.received,
            unread_bytes: self.unread_bytes,
            segments_sent: self.segments.sent,
            segments_received: self.segments.received,
            retransmits: self.retransmits,
            rtt_smoothed_ns: self.rtt.smoothed_ns,
            rtt_min_ns: self.rtt.min_ns,
        }
    }
}
