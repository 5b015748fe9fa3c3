//! One sink of the configuration: its type and its keys, the checks of them, and the sink's settings.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Kind,
    common::CommonArgs,
    config::{BuildContext, Secrets, SectionCheck, SinkConfig, Tables},
    delivery::{OpenError, SinkSettings, SpoolError},
    problem::Problem,
};
use crate::{files, format::Stamp};

/// The section `[sinks.NAME]`, without its filter.
#[derive(Clone)]
pub struct SinkSection {
    /// The sink's name.
    pub name: String,
    pub kind: &'static Kind,
    /// The keys of its type.
    pub config: Arc<dyn SinkConfig>,
    /// The keys that all sinks have.
    pub common: CommonArgs,
    /// The tables below it.
    pub tables: Tables,
}

impl PartialEq for SinkSection {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.config.same_as(&*other.config)
            && self.common == other.common
            && self.tables == other.tables
    }
}

impl std::fmt::Debug for SinkSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, config, common, tables, .. } = self;
        write!(f, "SinkSection({name:?}, {config:?}, {common:?}, {tables:?})")
    }
}

impl SinkSection {
    /// What is wrong with the keys together. `has` tells whether the section has a key, even if its value is wrong.
    pub fn text_problems(&self, has: &dyn Fn(&str) -> bool) -> Vec<Problem> {
        let section = SectionCheck { common: &self.common, tables: &self.tables, has };
        let mut problems: Vec<Problem> = self.kind.problem().into_iter().collect();
        problems.extend(self.config.problems(&section));
        problems.extend(self.common.problem(has("aggregate")));
        problems.extend(self.config.format().into_iter().flat_map(|format| format.problems(&self.common)));
        if self.config.metrics().is_some() {
            if self.common.is_reduced() {
                let message = "'records', 'aggregate', 'interim' and 'sample' apply to records, and this sink sends metrics";
                problems.push(Problem::of_section(message));
            }
            if has("filter") {
                let message = "'filter' applies to records, and this sink sends metrics".to_owned();
                problems.push(Problem { key: "filter", message });
            }
        }
        problems
    }

    /// What would prevent the sink from starting. The check changes nothing and connects to nothing.
    #[must_use]
    pub fn system_problems(&self) -> Vec<Problem> {
        let (secrets, mut problems) = self.read_secrets();
        let stamp = Stamp { host: "", instance: 0, labels: &Default::default() };
        // Without the secrets that cannot be read, so that all other problems are found, too.
        let builder = self.config.builder(&self.context(&stamp, &secrets));
        let mut reasons = builder.map(|builder| builder.problems()).unwrap_or_default();
        if let Some(path) = self.spool_path()
            && let Err(error) = files::can_make(&path)
        {
            let path = path.display().to_string();
            reasons.push(("spool", SpoolError::Directory { path, source: error.into() }.into()));
        }
        let name = &self.name;
        let problem =
            |(key, reason): (_, OpenError)| Problem { key, message: format!("sink {name}: {reason}") };
        problems.extend(reasons.into_iter().map(problem));
        problems
    }

    /// What the sink is started with.
    ///
    /// # Errors
    /// A secret cannot be read, or [`SinkSection::text_problems`] finds a problem.
    pub fn settings(&self, stamp: &Stamp<'_>) -> Result<SinkSettings, String> {
        let (secrets, problems) = self.read_secrets();
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem.message);
        }
        let builder = self.config.builder(&self.context(stamp, &secrets));
        Ok(SinkSettings {
            name: self.name.clone(),
            builder: builder.map_err(|error| format!("sink {}: {error}", self.name))?,
            queue_bytes: self.common.queue as usize,
            spool: self.common.spool_settings(&self.name),
            batching: self.common.batching(self.config.batch_time()),
        })
    }

    /// A checksum of the files that the sink reads when it starts: a certificate that was renewed needs a new sink.
    #[must_use]
    pub fn files_sum(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let secrets = self.config.secrets().into_iter().map(|(_, path)| path);
        let tls = self.config.tls().into_iter().flat_map(|files| files.paths());
        for path in secrets.chain(tls) {
            files::read(path, files::MOST_SETTINGS).ok().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The directory of the sink's spool.
    #[must_use]
    pub fn spool_path(&self) -> Option<PathBuf> {
        self.common.spool_path(&self.name)
    }

    fn context<'a>(&'a self, stamp: &'a Stamp<'a>, secrets: &'a Secrets) -> BuildContext<'a> {
        BuildContext { name: &self.name, stamp, tables: &self.tables, secrets }
    }

    fn read_secrets(&self) -> (Secrets, Vec<Problem>) {
        let (mut secrets, mut problems) = (Secrets::new(), Vec::new());
        for (key, path) in self.config.secrets() {
            match self.read_secret(key, path) {
                Ok(text) => drop(secrets.insert(key, text)),
                Err(message) => problems.push(Problem { key, message }),
            }
        }
        (secrets, problems)
    }

    fn read_secret(&self, key: &str, path: &Path) -> Result<String, String> {
        let text = files::read_text(path, files::MOST_SETTINGS);
        text.map_err(|error| format!("sink {}: cannot read {}: {error}", self.name, files::shown(key, path)))
    }
}
