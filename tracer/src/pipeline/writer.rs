//! Records -> bytes, numbered, and counted.

use std::collections::BTreeMap;

use crate::{
    format::Format,
    metrics::Counts,
    model::{Lost, LostPlace, Notice, Transition},
};

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transition records in the stream.
    pub transitions: u64,
    /// Losses by place.
    pub lost: BTreeMap<LostPlace, u64>,
    /// The reader of the output went away.
    pub closed: bool,
}

/// Numbers records and turns them into bytes.
pub struct Writer {
    pub(super) format: Box<dyn Format>,
    pub(super) buffer: Vec<u8>,
    seq: u64,
    most: u64,
    pub(super) summary: Summary,
    /// None where nobody asks.
    pub(super) counts: Option<Counts>,
}

impl Writer {
    /// Writes in `format`, at most `most` transitions.
    #[must_use]
    pub fn new(mut format: Box<dyn Format>, most: Option<u64>) -> Self {
        let mut buffer = Vec::new();
        format.header(&mut buffer);
        Self {
            format,
            buffer,
            seq: 0,
            most: most.unwrap_or(u64::MAX),
            summary: Summary::default(),
            counts: None,
        }
    }

    pub(super) fn notice(&mut self, notice: &Notice) {
        self.seq += 1;
        self.format.notice(self.seq, notice, &mut self.buffer);
    }

    pub(super) fn transition(&mut self, transition: &Transition) {
        if !self.is_full() {
            self.summary.transitions += 1;
            self.seq += 1;
            self.format.transition(self.seq, transition, &mut self.buffer);
            if let Some(counts) = &mut self.counts {
                counts.transition(transition);
            }
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.summary.transitions >= self.most
    }

    /// Notes that `total` were lost at `place` since the start; writes what is new.
    pub(super) fn lost(&mut self, place: LostPlace, total: u64, time_ns: i64) {
        let before = self.summary.lost.insert(place, total).unwrap_or(0);
        if total > before {
            self.notice(&Notice::Lost(Lost { time_ns, count: total - before, place }));
        }
    }
}
