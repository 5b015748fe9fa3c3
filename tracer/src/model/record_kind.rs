//! Kinds of records, and sets of them.

use super::Record;

/// The kind of a record: the value of `kind` in the JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Start,
    Snapshot,
    Transition,
    Connection,
    Aggregate,
    Resync,
    Stuck,
    Resolved,
    Reset,
    Lost,
    Stop,
}

impl RecordKind {
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Snapshot,
        Self::Transition,
        Self::Connection,
        Self::Aggregate,
        Self::Resync,
        Self::Stuck,
        Self::Resolved,
        Self::Reset,
        Self::Lost,
        Self::Stop,
    ];

    /// Kinds that every stream has: without `lost`, a loss would be silent, and without `start` and `stop` nobody could say of which
    /// time the stream is, and whether it is whole.
    const ALWAYS: [Self; 3] = [Self::Start, Self::Lost, Self::Stop];

    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Snapshot => "snapshot",
            Self::Transition => "transition",
            Self::Connection => "connection",
            Self::Aggregate => "aggregate",
            Self::Resync => "resync",
            Self::Stuck => "stuck",
            Self::Resolved => "resolved",
            Self::Reset => "reset",
            Self::Lost => "lost",
            Self::Stop => "stop",
        }
    }

    #[must_use]
    pub fn of(record: &Record) -> Self {
        match record {
            Record::Start(_) => Self::Start,
            Record::Snapshot(_) => Self::Snapshot,
            Record::Transition(_) => Self::Transition,
            Record::Connection(_) => Self::Connection,
            Record::Aggregate(_) => Self::Aggregate,
            Record::Resync(_) => Self::Resync,
            Record::Stuck(_) => Self::Stuck,
            Record::Resolved(_) => Self::Resolved,
            Record::Reset(_) => Self::Reset,
            Record::Lost(_) => Self::Lost,
            Record::Stop(_) => Self::Stop,
        }
    }
}

/// The kinds of records that a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKinds(u16);

impl RecordKinds {
    pub const ALL: Self = Self(u16::MAX);
    /// Without `connection`, which repeats what the transitions say, and `reset`, which is about no connection.
    pub const DEFAULT: Self = Self(!(1 << RecordKind::Connection as u16 | 1 << RecordKind::Reset as u16));

    /// These, and the kinds that every stream has; [`RecordKinds::DEFAULT`] if none is named. A stream that counts its transitions has `aggregate` records
    /// instead of them, so that each of the two names stands for both.
    #[must_use]
    pub fn of(named: &[RecordKind]) -> Self {
        if named.is_empty() {
            return Self::DEFAULT;
        }
        let bits = |kinds: &[RecordKind]| kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u16);
        let counted = [RecordKind::Transition, RecordKind::Aggregate];
        let counted = if named.iter().any(|kind| counted.contains(kind)) { bits(&counted) } else { 0 };
        Self(bits(named) | bits(&RecordKind::ALWAYS) | counted)
    }

    #[must_use]
    pub fn contains(self, kind: RecordKind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_never_silent() {
        let names = |kinds: &[RecordKind]| -> Vec<&str> {
            let kinds = RecordKinds::of(kinds);
            RecordKind::ALL.into_iter().filter(|kind| kinds.contains(*kind)).map(RecordKind::name).collect()
        };
        assert_eq!(names(&[]).len(), 9);
        assert_eq!(names(&[RecordKind::Connection]), ["start", "connection", "lost", "stop"]);
        assert_eq!(names(&[RecordKind::Stuck]), ["start", "stuck", "lost", "stop"]);
        assert_eq!(names(&[RecordKind::Reset]), ["start", "reset", "lost", "stop"]);
        assert_eq!(names(&[RecordKind::Lost]), ["start", "lost", "stop"]);
        assert_eq!(names(&[RecordKind::Aggregate]), ["start", "transition", "aggregate", "lost", "stop"]);
    }
}
