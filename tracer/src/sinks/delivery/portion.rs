//! How many records an attempt has: fewer while one of them is looked for that the collector does not want.

pub(super) struct Portion {
    records: usize,
    /// Records that were refused one by one, none between them taken.
    refused: usize,
}

impl Default for Portion {
    fn default() -> Self {
        Self { records: usize::MAX, refused: 0 }
    }
}

impl Portion {
    /// Once this many records in a row were sent alone and refused, the rest of the portion is given up without being sent.
    const MOST_REFUSED: usize = 16;
    /// From here on, as many as there are.
    const MANY: usize = 4096;

    pub(super) fn records(&self) -> usize {
        self.records
    }

    pub(super) fn taken(&mut self) {
        self.refused = 0;
        self.records = if self.records >= Self::MANY { usize::MAX } else { self.records * 2 };
    }

    pub(super) fn halve(&mut self, attempted: usize) {
        self.records = (attempted / 2).max(1);
    }

    /// One record was refused alone: how many are given up.
    pub(super) fn refuse(&mut self) -> usize {
        self.refused += 1;
        if self.refused < Self::MOST_REFUSED { 1 } else { usize::MAX }
    }
}
