//! The configuration of `sockstate run`: one TOML file whose keys are `trace`'s flags, and the sinks.

mod document;
mod example;
mod sink;

use std::{collections::BTreeMap, path::Path};

use toml::de::DeTable;

pub use document::{Places, Problems, SettingsError};
use document::{Section, Source};
pub use example::example;

use crate::{
    cli::{DaemonKeys, FilterArgs, KernelArgs, StuckRules},
    files,
    kubernetes::KubernetesArgs,
    sinks::SinkSection,
};

/// Everything that the file says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The keys before the first table.
    pub keys: DaemonKeys,
    /// `[filter]`.
    pub filter: FilterArgs,
    /// `[stuck]`.
    pub stuck: StuckRules,
    /// `[kernel]`.
    pub kernel: KernelArgs,
    /// `[kubernetes]`, if the file has the section.
    pub kubernetes: Option<KubernetesArgs>,
    /// `[labels]`: added to every record.
    pub labels: BTreeMap<String, String>,
    /// `[sinks.NAME]`.
    pub sinks: Vec<Sink>,
    /// Line and column of each section and key.
    pub places: Places,
}

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// The keys and tables of the sink.
    pub section: SinkSection,
    /// Which of the records it gets; all without it.
    pub filter: Option<FilterArgs>,
}

/// The settings in a file, and the problems with the file.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// If there are problems: the settings without the faulty sinks, and with defaults for faulty sections; `None` if the text is no
    /// document.
    pub settings: Option<Settings>,
    /// The problems that the text alone shows, without checks of the system.
    pub problems: Vec<SettingsError>,
    pub text: String,
}

/// Reads the file at `path`.
#[must_use]
pub fn read(path: &Path) -> Reading {
    let name = path.display().to_string();
    match files::read_text(path, files::MOST_SETTINGS) {
        Ok(text) => parse(&name, &text),
        Err(error) => Reading {
            settings: None,
            text: String::new(),
            problems: vec![SettingsError {
                path: name,
                line: 0,
                column: 0,
                message: format!(
                    "cannot read the configuration: {error}; `sockstate run --example` prints one"
                ),
            }],
        },
    }
}

/// The same for `text`; `path` is for messages.
#[must_use]
pub fn parse(path: &str, text: &str) -> Reading {
    let source = Source::new(path, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // The message alone: with the line, a secret would be shown.
        source.note(error.span().unwrap_or_default(), error.message());
    }
    let settings = if errors.is_empty() { document(&source, &table) } else { None };
    let (places, problems) = source.finish();
    let settings = settings.map(|settings| Settings { places, ..settings });
    Reading { settings, problems, text: text.to_owned() }
}

fn document<'a>(source: &'a Source<'a>, table: &'a toml::Spanned<DeTable<'a>>) -> Option<Settings> {
    let mut top = Section::new(source, "", table);
    let has_sinks = top.keys().has("sinks");
    let [filter, stuck, kernel, kubernetes, labels, sinks] =
        ["filter", "stuck", "kernel", "kubernetes", "labels", "sinks"].map(|name| top.take_section(name));
    let is_wrong = sinks.is_none() && has_sinks;
    let sections = sinks.map(Section::into_sections).unwrap_or_default();
    if sections.is_empty() && !is_wrong {
        top.note("there is no sink: add [sinks.NAME] with a type, such as \"stdout\" or \"file\"");
    }
    let filter = filter.map_or_else(|| Some(FilterArgs::default()), Section::into_args);
    let stuck = stuck.map_or_else(|| Some(StuckRules::default()), Section::into_args);
    let kernel = kernel.map_or_else(|| Some(KernelArgs::default()), Section::into_args);
    let kubernetes = kubernetes.map(|section| section.into_args().unwrap_or_default());
    let labels = labels.map(Section::into_texts).unwrap_or_default();
    let sinks = sections.into_iter().filter_map(|(name, section)| sink::read(name, section)).collect();
    let keys = top.into_args();
    // What is wrong has been noted; with the defaults instead, the check also finds what is wrong elsewhere.
    Some(Settings {
        keys: keys.unwrap_or_default(),
        filter: filter.unwrap_or_default(),
        stuck: stuck.unwrap_or_default(),
        kernel: kernel.unwrap_or_default(),
        kubernetes,
        labels,
        sinks,
        places: Places::default(),
    })
}
