//! The number of records in an attempt. If the collector refuses one of the records, the number is halved until the
//! refused record is sent alone; then each accepted attempt doubles it.

pub(super) struct AttemptSize {
    records: usize,
    /// Records that were refused alone, with no accepted record between them.
    refused: usize,
}

impl Default for AttemptSize {
    fn default() -> Self {
        Self { records: usize::MAX, refused: 0 }
    }
}

impl AttemptSize {
    /// Once this many records in a row were sent alone and refused, the rest is given up without being sent.
    const MAX_REFUSED: usize = 16;
    /// When an attempt of this many records is accepted, there is no limit any more.
    const MANY: usize = 4096;

    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// An attempt was accepted: the next one may have twice as many records.
    pub(super) fn accepted(&mut self) {
        self.refused = 0;
        self.records = if self.records >= Self::MANY { usize::MAX } else { self.records * 2 };
    }

    pub(super) fn halve(&mut self, attempted: usize) {
        self.records = (attempted / 2).max(1);
    }

    /// A record was sent alone and refused. Returns how many records are given up.
    pub(super) fn refused_alone(&mut self) -> usize {
        self.refused += 1;
        if self.refused < Self::MAX_REFUSED { 1 } else { usize::MAX }
    }
}
