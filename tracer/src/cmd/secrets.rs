//! Which files a sink has read.

use std::collections::BTreeMap;

use crate::settings::Settings;

/// Hashes of the files that sinks read at their start: a sink with a renewed certificate must start again.
#[derive(Default)]
pub(super) struct Secrets(pub(super) BTreeMap<String, u64>);

impl Secrets {
    pub(super) fn of(settings: &Settings) -> Self {
        Self(
            settings.sinks.iter().map(|sink| (sink.section.name.clone(), sink.section.files_sum())).collect(),
        )
    }

    pub(super) fn same(&self, other: &Self, name: &str) -> bool {
        self.0.get(name) == other.0.get(name)
    }
}
