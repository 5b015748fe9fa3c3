//! Records in their final form, on their way to a collector.

/// The end of a record in its batch, and values that are known without parsing the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The position after its last byte.
    pub end: usize,
    /// The number of the record in the stream.
    pub seq: u64,
    /// Wall clock, ns since the epoch.
    pub time_ns: i64,
    /// Lost records of this sink that it reports: if it gets lost, they must be reported again.
    pub reported_lost: u64,
    /// Records in doubt that it reports. A spool does not keep this number.
    pub reported_in_doubt: u64,
}

/// The earliest time of these records, and of the records that they report; `None` if it is not known.
#[must_use]
pub fn since_ns(frames: &[Frame]) -> Option<i64> {
    // A record that reports others does not have their time.
    let is_known = frames.iter().all(|frame| frame.reported_lost + frame.reported_in_doubt == 0);
    frames.iter().map(|frame| frame.time_ns).min().filter(|_| is_known)
}

/// Records, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// Their ends.
    pub frames: Vec<Frame>,
}

impl Batch {
    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The earliest time of its records, and of the records that they report; `None` if it is not known.
    pub(crate) fn since_ns(&self) -> Option<i64> {
        since_ns(&self.frames)
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds the records of `other`.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let before = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.frames.extend(other.frames.iter().map(|frame| Frame { end: frame.end + before, ..*frame }));
    }

    /// The same records in batches of `most` bytes at most, or of one longer record.
    pub(crate) fn split(self, most: usize) -> Vec<Self> {
        if self.bytes.len() <= most {
            return vec![self];
        }
        let mut pieces: Vec<Self> = Vec::new();
        for (bytes, frame) in self.records() {
            match pieces.last_mut() {
                Some(last) if last.bytes.len() + bytes.len() <= most => last.push(bytes, *frame),
                _ => {
                    let mut piece = Self::default();
                    piece.push(bytes, *frame);
                    pieces.push(piece);
                }
            }
        }
        pieces
    }

    fn push(&mut self, bytes: &[u8], frame: Frame) {
        self.bytes.extend_from_slice(bytes);
        self.frames.push(Frame { end: self.bytes.len(), ..frame });
    }

    /// Each record's bytes, with its frame.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &Frame)> {
        let begins = std::iter::once(0).chain(self.frames.iter().map(|frame| frame.end));
        begins.zip(&self.frames).map(|(begin, frame)| (&self.bytes[begin..frame.end], frame))
    }

    /// Removes the records for whose index `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut kept = Self::default();
        for (at, (bytes, frame)) in self.records().enumerate() {
            if keep(at) {
                kept.push(bytes, *frame);
            }
        }
        *self = kept;
    }

    /// Removes the first `count` records.
    pub fn drop_first(&mut self, count: usize) {
        if count > 0 {
            self.retain(|at| at >= count);
        }
    }

    /// The first `count` records.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let frames = self.frames.iter().take(count).copied().collect::<Vec<_>>();
        let end = frames.last().map_or(0, |frame| frame.end);
        Self { bytes: self.bytes.get(..end).unwrap_or_default().to_vec(), frames }
    }

    /// Takes out the first `count` records.
    #[must_use]
    pub fn take_first(&mut self, count: usize) -> Self {
        let Some(end) = count.checked_sub(1).and_then(|last| self.frames.get(last)).map(|frame| frame.end)
        else {
            return if count == 0 { Self::default() } else { std::mem::take(self) };
        };
        let mut rest = Self { bytes: self.bytes.split_off(end), frames: self.frames.split_off(count) };
        rest.frames.iter_mut().for_each(|frame| frame.end -= end);
        std::mem::replace(self, rest)
    }

    /// The number of records that are settled with this batch: its records, and the lost ones that they report.
    #[must_use]
    pub fn weight(&self) -> i64 {
        (self.len() as u64 + self.reported_lost()).cast_signed()
    }

    /// The lost records that these report.
    #[must_use]
    pub fn reported_lost(&self) -> u64 {
        self.frames.iter().map(|frame| frame.reported_lost).sum()
    }

    /// The records in doubt that these report.
    pub(crate) fn reported_in_doubt(&self) -> u64 {
        self.frames.iter().map(|frame| frame.reported_in_doubt).sum()
    }
}

/// Counts the records of a batch that are delivered, and removes them when it is dropped, also if the attempt is
/// cancelled.
pub(crate) struct Delivered<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) count: usize,
}

impl<'a> Delivered<'a> {
    pub(crate) fn none_of(batch: &'a mut Batch) -> Self {
        Self { batch, count: 0 }
    }
}

impl Drop for Delivered<'_> {
    fn drop(&mut self) {
        self.batch.drop_first(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first_seq: u64, texts: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for (at, text) in texts.iter().enumerate() {
            batch.bytes.extend_from_slice(text.as_bytes());
            let seq = first_seq + at as u64;
            batch.frames.push(Frame {
                end: batch.bytes.len(),
                seq,
                time_ns: seq as i64,
                reported_lost: 0,
                reported_in_doubt: 0,
            });
        }
        batch
    }

    #[test]
    fn records_keep_their_bytes() {
        let mut all = batch(1, &["a\n", "bb\n"]);
        all.append(batch(3, &["ccc\n", "d\n"]));
        assert_eq!(all, batch(1, &["a\n", "bb\n", "ccc\n", "d\n"]));
        assert_eq!((all.first(0), all.first(9)), (Batch::default(), all.clone()));
        assert_eq!(all.first(3), batch(1, &["a\n", "bb\n", "ccc\n"]));
        assert_eq!(all.clone().split(11), std::slice::from_ref(&all));
        let pieces = [batch(1, &["a\n", "bb\n"]), batch(3, &["ccc\n"]), batch(4, &["d\n"])];
        assert_eq!(all.clone().split(5), pieces);
        assert_eq!(all.clone().split(1).len(), 4, "a record is in one piece");
        let mut rest = all.clone();
        assert_eq!(rest.take_first(0), Batch::default());
        assert_eq!(rest.take_first(3), batch(1, &["a\n", "bb\n", "ccc\n"]));
        assert_eq!(rest.take_first(usize::MAX), batch(4, &["d\n"]));
        assert!(rest.is_empty() && rest.take_first(1).is_empty());
        all.drop_first(1);
        all.retain(|at| at != 1);
        assert_eq!(all.bytes, b"bb\nd\n");
        assert_eq!(all.frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(), [2, 4]);
    }
}
