//! What the configuration asks of a type of sink: its keys, and the builder that is made of them.

use std::{any::Any, collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use super::{
    common::CommonArgs,
    delivery::{Convert, SinkBuilder},
    encoding::FormatArgs,
    problem::{ConfigError, Problem},
    transport::TlsFiles,
};
use crate::format::Stamp;

/// The keys of one sink. A required key has `required = true` in its definition, and is an `Option` nevertheless: a
/// section without it is checked, too, so that all of its problems are reported at once.
pub trait SinkConfig: Any + SameAs + fmt::Debug + Send + Sync {
    /// The builder that opens the sink.
    ///
    /// # Errors
    /// A required key is missing, or this sockstate was built without what the sink needs. Both were reported when the
    /// configuration was read.
    fn builder(&self, context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError>;

    /// Keys that exclude each other, and keys that are missing because of other keys. The check does not depend on the
    /// host.
    fn problems(&self, section: &SectionCheck<'_>) -> Vec<Problem> {
        let _ = section;
        Vec::new()
    }

    /// How records are written; `None` for a sink that has one format of its own.
    fn format(&self) -> Option<&FormatArgs> {
        None
    }

    /// Converts sockstate's JSON to the collector's format, in the sink's thread; `None` if no conversion is needed.
    fn converter(&self, host: &str) -> Option<Convert> {
        let _ = host;
        self.format().and_then(FormatArgs::converter)
    }

    /// For a sink that gets the tracer's metrics, and no records.
    fn metrics(&self) -> Option<Metrics> {
        None
    }

    /// How long the first record of a delivery waits for others, unless the configuration sets another time.
    fn batch_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Files with secrets that are read before the sink is opened, by their keys.
    fn secrets(&self) -> Vec<(&'static str, &Path)> {
        Vec::new()
    }

    /// The files for TLS, which are read when the sink is opened.
    fn tls(&self) -> Option<&TlsFiles> {
        None
    }

    /// The file that the sink has open. A sink of a new configuration waits until the previous one has closed it.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// The path that the sink writes to, and that no other sink may write to.
    fn output(&self) -> Option<&Path> {
        self.file()
    }

    /// A warning why the sink cannot deliver yet. `run` starts nevertheless.
    fn warning(&self) -> Option<Problem> {
        None
    }

    /// Why the collector would refuse records with the label `name`, which is one of `labels`.
    fn label_problem(&self, name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        self.format().and_then(|format| format.label_problem(name, labels))
    }
}

/// Compares the keys of two sinks of any type.
pub trait SameAs {
    /// Whether `other` has the same type and the same values.
    fn same_as(&self, other: &dyn SinkConfig) -> bool;
}

impl<T: SinkConfig + PartialEq> SameAs for T {
    fn same_as(&self, other: &dyn SinkConfig) -> bool {
        (other as &dyn Any).downcast_ref::<T>() == Some(self)
    }
}

/// How a sink sends metrics instead of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How often they are sent.
    pub interval: Duration,
    /// As JSON instead of protobuf.
    pub json: bool,
}

/// The tables of a sink's section, by name.
pub type Tables = BTreeMap<&'static str, BTreeMap<String, String>>;

/// The contents of the files of [`SinkConfig::secrets`], by key.
pub type Secrets = BTreeMap<&'static str, String>;

/// What [`SinkConfig::builder`] needs in addition to the keys of the sink's type.
pub struct BuildContext<'a> {
    /// The sink's name.
    pub name: &'a str,
    /// The host, the instance and the labels of each record.
    pub stamp: &'a Stamp<'a>,
    /// The tables in the sink's section.
    pub tables: &'a Tables,
    /// Secrets that could be read.
    pub secrets: &'a Secrets,
}

impl BuildContext<'_> {
    /// A table of the sink's section; empty where there is none.
    pub(super) fn table(&self, name: &str) -> BTreeMap<String, String> {
        self.tables.get(name).cloned().unwrap_or_default()
    }
}

/// What [`SinkConfig::problems`] needs in addition to the keys of the sink's type.
pub struct SectionCheck<'a> {
    /// The keys that all sinks have.
    pub common: &'a CommonArgs,
    /// The tables.
    pub tables: &'a Tables,
    /// Whether the section has a key, even if its value is wrong.
    pub has: &'a dyn Fn(&str) -> bool,
}
