//! The keys that every sink has.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    delivery::{BatchSettings, SpoolSettings},
    problem::Problem,
};
use crate::{
    model::RecordKind,
    values::{parse_duration, parse_duration_or_zero, parse_interim, parse_record_kind, parse_size},
};

/// When sockstate makes sure that the spool is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SyncName {
    /// The kernel writes the spool to the disk later: the records survive the end of sockstate, and a crash of the machine may lose the
    /// latest of them.
    #[default]
    Never,
    /// After each entry of the spool, which has up to a megabyte of records: they also survive a crash of the machine.
    Always,
}

/// The keys that all sinks have: which records the sink gets, and how it delivers them.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct CommonArgs {
    /// Send only these kinds of records: transitions, connections, stuck, resolved, snapshots, resyncs, resets. start, stop and lost are
    /// always sent. With aggregate, transitions are the counts of each window.
    #[arg(long, value_name = "KINDS", value_parser = parse_record_kind, value_delimiter = ',')]
    pub records: Vec<RecordKind>,
    /// Count transitions in windows of this length, by service, peer and states, instead of sending each.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub aggregate: Option<Duration>,
    /// How many groups of service, peer and states a window counts separately; it counts all others together
    /// (docs/events.md).
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "aggregate")]
    pub aggregate_keys: usize,
    /// Also report connections that go on, once in each interval of this length: records of the kind connection, with final false.
    #[arg(long, value_name = "TIME", value_parser = parse_interim)]
    pub interim: Option<Duration>,
    /// Send the transitions and connections of one in N connections only, both ends of the same ones on all hosts; all records of
    /// stuck connections and of losses are sent.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: u64,

    /// Memory for records that wait for their delivery. If the sink has a spool, records go to it when more than half of this memory is
    /// used.
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = parse_size)]
    pub queue: u64,
    /// A directory on the disk for records that do not fit into the queue, or that are not delivered when sockstate ends. Each sink
    /// makes its own directory in it.
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// The largest size of the spool.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size, requires = "spool")]
    pub spool_size: u64,
    /// When sockstate makes sure that the spool is on the disk.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t, requires = "spool")]
    pub spool_sync: SyncName,
    /// How many bytes of records one delivery has at most.
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_size)]
    pub batch: u64,
    /// How long the first record of a delivery may wait for others [default: 1s for http and otlp, else 0].
    #[arg(long, value_name = "TIME", value_parser = parse_duration_or_zero)]
    pub batch_time: Option<Duration>,
    /// The longest pause between attempts; the first pause is 100 ms, each further one is twice as long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub retry: Duration,
}

impl CommonArgs {
    /// Whether the sink gets fewer records than there are.
    pub(super) fn is_reduced(&self) -> bool {
        self.aggregate.is_some() || self.interim.is_some() || self.sample > 1 || !self.records.is_empty()
    }

    /// Kinds of records that the sink never gets; `aggregates` tells whether the sink counts transitions.
    pub(super) fn problem(&self, aggregates: bool) -> Option<Problem> {
        let is_wrong = !aggregates && self.records.contains(&RecordKind::Aggregate);
        let message = "'records' names aggregates, and this sink counts no transitions: set 'aggregate' to the length of the \
                       windows, such as \"1m\", or name \"transitions\"";
        if is_wrong {
            return Some(Problem { key: "records", message: message.to_owned() });
        }
        let has_none = self.interim.is_some() && !self.records.contains(&RecordKind::Connection);
        let message = "'interim' reports connections that go on, and this sink gets no records of connections: add \"connections\" to \
                       'records'";
        has_none.then(|| Problem { key: "interim", message: message.to_owned() })
    }

    /// The directory of the spool of the sink `name`.
    pub(super) fn spool_path(&self, name: &str) -> Option<PathBuf> {
        self.spool.as_ref().map(|directory| directory.join(name))
    }

    pub(super) fn spool_settings(&self, name: &str) -> Option<SpoolSettings> {
        let path = self.spool_path(name)?;
        Some(SpoolSettings { path, max_bytes: self.spool_size, sync: self.spool_sync == SyncName::Always })
    }

    /// Sizes and times of deliveries; `batch_time` unless the keys say another.
    pub(super) fn batching(&self, batch_time: Duration) -> BatchSettings {
        BatchSettings {
            batch_bytes: self.batch as usize,
            batch_time: self.batch_time.unwrap_or(batch_time),
            retry_max: self.retry,
        }
    }
}
