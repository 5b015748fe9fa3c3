//! The description of a type of sink.

use std::sync::Arc;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{
    config::SinkConfig,
    problem::{ConfigError, Problem},
};

/// One type of sink.
pub struct Kind {
    /// The value of the key `type`.
    pub name: &'static str,
    /// What the sink delivers to, in one line.
    pub about: &'static str,
    /// Tables that its section may have.
    pub tables: &'static [Table],
    lacks: Option<ConfigError>,
    augment: fn(Command) -> Command,
    parse: fn(&ArgMatches) -> Result<Arc<dyn SinkConfig>, clap::Error>,
}

/// A table of texts in a sink's section.
pub struct Table {
    pub name: &'static str,
    /// What the table contains.
    pub about: &'static str,
    /// An example of a line of the table.
    pub example: &'static str,
}

impl Kind {
    pub(super) const fn of<T: Args + SinkConfig>(name: &'static str, about: &'static str) -> Self {
        Self { name, about, tables: &[], lacks: None, augment: T::augment_args, parse: parse::<T> }
    }

    pub(super) const fn with_tables(self, tables: &'static [Table]) -> Self {
        Self { tables, ..self }
    }

    /// For a type that needs a feature of the crate; `lacks` is the problem if this binary was built without it.
    pub(super) const fn lacking(self, lacks: Option<ConfigError>) -> Self {
        Self { lacks, ..self }
    }

    /// Adds the keys of the type to `command`.
    #[must_use]
    pub fn augment(&self, command: Command) -> Command {
        (self.augment)(command)
    }

    /// The keys of the type, without those that all sinks have.
    #[must_use]
    pub fn keys(&self) -> Vec<Arg> {
        self.augment(Command::new("")).get_arguments().cloned().collect()
    }

    /// The values of its keys.
    ///
    /// # Errors
    /// A key is missing, or its value is wrong.
    pub fn parse(&self, matches: &ArgMatches) -> Result<Arc<dyn SinkConfig>, clap::Error> {
        (self.parse)(matches)
    }

    pub(super) fn problem(&self) -> Option<Problem> {
        self.lacks.map(Problem::of_section)
    }
}

fn parse<T: FromArgMatches + SinkConfig>(matches: &ArgMatches) -> Result<Arc<dyn SinkConfig>, clap::Error> {
    Ok(Arc::new(T::from_arg_matches(matches)?))
}
