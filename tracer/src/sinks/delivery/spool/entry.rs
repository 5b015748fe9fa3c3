//! An entry of a spool's segment: a magic number, the payload's length, its CRC-32, and the payload.

use super::super::batch::{Batch, Frame};

const MAGIC: &[u8; 4] = b"\xf5SPE";
/// Bytes of magic number, length and checksum.
const HEAD: usize = 12;
/// Bytes at the beginning of a payload, little-endian: the run and the number of records before it (u64), the number
/// of its records (u32).
const FIXED: usize = 20;
/// Bytes of each frame after them: end (u32), seq, time, reported lost records (u64). The bytes of the records follow.
const FRAME: usize = 28;

/// An entry of a segment.
pub(super) struct Entry {
    pub(super) run: u64,
    pub(super) before: u64,
    pub(super) batch: Batch,
    /// The offset of its end in the segment.
    pub(super) end: usize,
}

/// Bytes of the payload for these records.
pub(super) fn length(batch: &Batch) -> usize {
    FIXED + batch.len() * FRAME + batch.bytes.len()
}

pub(super) fn encode(run: u64, before: u64, batch: &Batch) -> Vec<u8> {
    let len = length(batch);
    let mut entry = Vec::with_capacity(HEAD + len);
    entry.extend_from_slice(MAGIC);
    entry.extend_from_slice(&(len as u32).to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    entry.extend_from_slice(&run.to_le_bytes());
    entry.extend_from_slice(&before.to_le_bytes());
    entry.extend_from_slice(&(batch.len() as u32).to_le_bytes());
    for frame in &batch.frames {
        entry.extend_from_slice(&(frame.end as u32).to_le_bytes());
        entry.extend_from_slice(&frame.seq.to_le_bytes());
        entry.extend_from_slice(&frame.time_ns.to_le_bytes());
        entry.extend_from_slice(&frame.reported_lost.to_le_bytes());
    }
    entry.extend_from_slice(&batch.bytes);
    let sum = crc32fast::hash(&entry[HEAD..]);
    entry[8..HEAD].copy_from_slice(&sum.to_le_bytes());
    entry
}

/// The first undamaged entry at `at` or later.
pub(super) fn next_entry(bytes: &[u8], at: usize) -> Option<Entry> {
    let mut at = at;
    loop {
        let rest = bytes.get(at..)?;
        at += rest.windows(MAGIC.len()).position(|bytes| bytes == MAGIC)?;
        if let Some(entry) = decode(bytes, at) {
            return Some(entry);
        }
        at += 1;
    }
}

fn decode(bytes: &[u8], at: usize) -> Option<Entry> {
    let mut head = Reader(bytes.get(at..)?);
    let (_, len, sum) = (head.u32()?, head.u32()? as usize, head.u32()?);
    let payload = head.0.get(..len)?;
    if crc32fast::hash(payload) != sum {
        return None;
    }
    let mut payload = Reader(payload);
    let (run, before, count) = (payload.u64()?, payload.u64()?, payload.u32()? as usize);
    // The checksum may be right by chance: the count is no reason to reserve more than the payload's size.
    let mut frames = Vec::with_capacity(count.min(payload.0.len() / FRAME));
    for _ in 0..count {
        let (end, seq) = (payload.u32()? as usize, payload.u64()?);
        frames.push(Frame {
            end,
            seq,
            time_ns: payload.u64()? as i64,
            reported_lost: payload.u64()?,
            reported_in_doubt: 0,
        });
    }
    let ends_fit = frames.is_sorted_by_key(|frame| frame.end)
        && frames.last().map_or(0, |frame| frame.end) == payload.0.len();
    let batch = Batch { bytes: payload.0.to_vec(), frames };
    ends_fit.then_some(Entry { run, before, batch, end: at + HEAD + len })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
