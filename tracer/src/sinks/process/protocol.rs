//! What the two processes send each other: JSON, and batches of records as bytes.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::Reach;
use crate::{
    model::{ClusterPeer, PodFacts},
    sinks::delivery::{Batch, Frame},
};

/// From the tracer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum ToSinks {
    /// The first message: work as this user. The shared counts come along.
    Begin(Identity),
    /// The file in which sinks note how far they have come comes along.
    Ledger,
    /// Answer scrapers. The socket for the questions comes along.
    Metrics,
    /// Ask the API server of Kubernetes.
    Kubernetes(ClusterRequest),
    /// Read this configuration, and check whether its sinks can start.
    Prepare(Request),
    /// Start a sink of a configuration that was prepared.
    Start { queue: u32, prepared: u64, sink: String, place: Option<usize>, previous: Option<Previous> },
    /// See [`Queue::close`](crate::sinks::Queue::close).
    Close { queue: u32, grace_ms: u64 },
    /// See [`Queue::reopen`](crate::sinks::Queue::reopen).
    Reopen { queue: u32 },
}

/// As whom the process of the sinks works.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Identity {
    /// `None`: as the user that the service manager has chosen.
    pub user: Option<String>,
    /// Its runtime directory.
    pub runtime: PathBuf,
    pub reach: Reach,
    /// Where scrapers ask for metrics.
    pub metrics: Option<SocketAddr>,
}

/// Why scrapers cannot be answered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PortProblem {
    pub message: String,
    /// Another process listens there. It may be a running sockstate.
    pub is_in_use: bool,
}

/// The API server of Kubernetes, and what it is asked about: the keys of `[kubernetes]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ClusterRequest {
    pub node: Option<String>,
    pub server: Option<String>,
    pub token_file: PathBuf,
    pub ca: PathBuf,
    pub labels: Vec<String>,
    pub peers: bool,
}

/// What the API server says.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum ClusterNews {
    /// A pod of this node is new, or has changed.
    Pod { uid: String, facts: PodFacts },
    /// A pod has ended.
    PodGone { uid: String },
    /// The object with this uid has this address now.
    Peer { address: IpAddr, uid: String, peer: ClusterPeer },
    /// The object has it no longer.
    PeerGone { address: IpAddr, uid: String },
    /// All that was asked for is known, or the first attempt has failed.
    Asked,
}

/// A configuration, and what its sinks put into each record.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Request {
    pub number: u64,
    /// The file, for messages.
    pub path: String,
    pub text: String,
    pub host: String,
    pub instance: u32,
    /// The sinks were checked before, and nothing was changed since.
    pub is_checked: bool,
}

/// The queues of sinks that a new sink takes a file or a spool over from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Previous {
    pub output: Vec<u32>,
    pub spool: Vec<u32>,
}

/// From the process of the sinks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum FromSinks {
    /// The answer to [`ToSinks::Begin`].
    Begun(Result<Option<PortProblem>, String>),
    /// The answer to [`ToSinks::Prepare`].
    Prepared {
        number: u64,
        sinks: Vec<CheckedSink>,
    },
    /// The answer to [`ToSinks::Start`].
    Started {
        queue: u32,
        result: Result<(), String>,
    },
    /// An answer to [`ToSinks::Kubernetes`].
    Cluster(ClusterNews),
    /// A sink has lost something: the counts tell what.
    Lost,
    Finished {
        queue: u32,
    },
    Released {
        queue: u32,
    },
}

/// What the process of the sinks has found about one sink.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CheckedSink {
    pub name: String,
    /// What keeps it from starting: the key, and the message.
    pub problems: Vec<(String, String)>,
    /// A checksum of the files that it reads when it starts.
    pub files_sum: u64,
}

/// What the bytes behind a header are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Batch,
}

/// A header: the kind, and the length of what follows.
pub(super) const HEADER: usize = 5;
/// The number of a queue, and the number of its records.
const BATCH_HEADER: usize = 8;
/// The five numbers of a frame.
const FRAME: usize = 40;

impl Kind {
    pub(super) fn header(self, len: usize) -> Option<[u8; HEADER]> {
        let [a, b, c, d] = u32::try_from(len).ok()?.to_le_bytes();
        Some([self as u8, a, b, c, d])
    }

    pub(super) fn of(header: [u8; HEADER]) -> Option<(Self, usize)> {
        let [kind, len @ ..] = header;
        let kind = [Self::Message, Self::Batch].into_iter().find(|known| *known as u8 == kind)?;
        Some((kind, u32::from_le_bytes(len) as usize))
    }
}

/// A batch for a queue, without the bytes of its records.
pub(super) fn batch_head(queue: u32, batch: &Batch) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(BATCH_HEADER + batch.len() * FRAME);
    head.extend_from_slice(&queue.to_le_bytes());
    head.extend_from_slice(&u32::try_from(batch.len()).ok()?.to_le_bytes());
    for frame in &batch.frames {
        let numbers = [
            frame.end as u64,
            frame.seq,
            frame.time_ns.cast_unsigned(),
            frame.reported_lost,
            frame.reported_in_doubt,
        ];
        numbers.iter().for_each(|number| head.extend_from_slice(&number.to_le_bytes()));
    }
    Some(head)
}

/// The queue and the batch in `bytes`; `None` if these are no batch.
pub(super) fn batch(bytes: &[u8]) -> Option<(u32, Batch)> {
    let (queue, rest) = bytes.split_first_chunk::<4>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let (head, bytes) = rest.split_at_checked(count.checked_mul(FRAME)?)?;
    let mut frames = Vec::with_capacity(count);
    let mut last = 0;
    for frame in head.as_chunks::<FRAME>().0 {
        let frame = read_frame(frame)?;
        if frame.end < last {
            return None;
        }
        last = frame.end;
        frames.push(frame);
    }
    (last == bytes.len()).then(|| (u32::from_le_bytes(*queue), Batch { bytes: bytes.to_vec(), frames }))
}

fn read_frame(bytes: &[u8; FRAME]) -> Option<Frame> {
    let mut numbers = bytes.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
    Some(Frame {
        end: usize::try_from(numbers.next()?).ok()?,
        seq: numbers.next()?,
        time_ns: numbers.next()?.cast_signed(),
        reported_lost: numbers.next()?,
        reported_in_doubt: numbers.next()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_batch_arrives_as_it_was_sent(
            queue: u32,
            records in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..40), any::<[u64; 3]>(), any::<i64>()),
                0..20,
            ),
        ) {
            let mut sent = Batch::default();
            for (bytes, [seq, reported_lost, reported_in_doubt], time_ns) in records {
                sent.bytes.extend_from_slice(&bytes);
                let end = sent.bytes.len();
                sent.frames.push(Frame { end, seq, time_ns, reported_lost, reported_in_doubt });
            }
            let mut bytes = batch_head(queue, &sent).expect("a short batch");
            bytes.extend_from_slice(&sent.bytes);
            prop_assert_eq!(batch(&bytes), Some((queue, sent)));
            bytes.push(b'x');
            prop_assert!(batch(&bytes).is_none(), "a byte of no record");
        }

        #[test]
        fn no_bytes_make_a_wrong_batch(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some((_, batch)) = batch(&bytes) {
                prop_assert_eq!(batch.records().map(|(bytes, _)| bytes.len()).sum::<usize>(), batch.bytes.len());
            }
        }
    }

    #[test]
    fn a_header_has_kind_and_length() {
        for (kind, len) in [(Kind::Message, 0), (Kind::Batch, 0x0102_0304)] {
            assert_eq!(Kind::of(kind.header(len).expect("a length")), Some((kind, len)));
        }
        assert_eq!(Kind::of([9, 0, 0, 0, 0]), None);
    }
}
