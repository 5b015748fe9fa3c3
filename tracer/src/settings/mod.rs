//! The configuration of `sockstate run`: one TOML file whose keys are `trace`'s flags, and the sinks.

mod document;
mod example;

use std::{collections::BTreeMap, path::Path};

use clap::Arg;
use toml::de::DeTable;

pub use document::SettingsError;
use document::{Section, Source};
pub use example::example;

use crate::{
    cli::{DaemonKeys, FilterArgs, KernelArgs, SinkArgs, SinkType, StuckRules},
    files,
};

/// Everything that the file says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What stands before the first table.
    pub keys: DaemonKeys,
    /// `[filter]`.
    pub filter: FilterArgs,
    /// `[stuck]`.
    pub stuck: StuckRules,
    /// `[kernel]`.
    pub kernel: KernelArgs,
    /// `[labels]`: added to every record.
    pub labels: BTreeMap<String, String>,
    /// `[sinks.NAME]`.
    pub sinks: Vec<Sink>,
}

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// Its keys.
    pub args: SinkArgs,
    /// Which of the records it gets; all without it.
    pub filter: Option<FilterArgs>,
    /// Headers of HTTP requests.
    pub headers: BTreeMap<String, String>,
    /// Labels of Loki's stream.
    pub labels: BTreeMap<String, String>,
    /// librdkafka's properties.
    pub properties: BTreeMap<String, String>,
}

/// Reads the file at `path`.
///
/// # Errors
/// It cannot be read, or says what it cannot mean.
pub fn load(path: &Path) -> Result<Settings, SettingsError> {
    let name = path.display().to_string();
    let text = files::read_text(path, files::MOST_SETTINGS).map_err(|error| SettingsError {
        path: name.clone(),
        line: 0,
        column: 0,
        message: format!("cannot read the configuration: {error}; `sockstate run --example` prints one"),
    })?;
    parse(&name, &text)
}

/// The same for `text`; `path` is for messages.
///
/// # Errors
/// It says what it cannot mean.
pub fn parse(path: &str, text: &str) -> Result<Settings, SettingsError> {
    let source = Source { path, text };
    let table = DeTable::parse(text)
        .map_err(|error| source.error(error.span().unwrap_or_default(), error.message()))?;
    let mut top = Section::new(&source, "", &table);
    let [filter, stuck, kernel, labels, sinks] =
        ["filter", "stuck", "kernel", "labels", "sinks"].map(|name| top.take_section(name));
    let (filter, stuck, kernel) = (filter?, stuck?, kernel?);
    let empty = toml::Spanned::new(0..0, DeTable::new());
    let none = || Section::new(&source, "", &empty);
    let no_sinks =
        top.error("there is no sink: add [sinks.NAME] with a type, such as \"stdout\" or \"file\"");
    let settings = Settings {
        filter: filter.unwrap_or_else(none).into_args()?,
        stuck: stuck.unwrap_or_else(none).into_args()?,
        kernel: kernel.unwrap_or_else(none).into_args()?,
        labels: labels?.map(Section::into_texts).transpose()?.unwrap_or_default(),
        sinks: match sinks? {
            Some(sinks) => {
                let sinks = sinks.into_sections()?.into_iter();
                sinks.map(|(name, section)| sink(name, section)).collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        },
        keys: top.into_args()?,
    };
    if settings.sinks.is_empty() { Err(no_sinks) } else { Ok(settings) }
}

/// The types that have these tables.
const HEADERS: [SinkType; 3] = [SinkType::Http, SinkType::Otlp, SinkType::OtlpMetrics];
const LABELS: [SinkType; 1] = [SinkType::Http];
const PROPERTIES: [SinkType; 1] = [SinkType::Kafka];

fn sink(name: String, mut section: Section<'_>) -> Result<Sink, SettingsError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(section.error(format!("'{name}' is no name for a sink: letters, digits, - and _")));
    }
    let no_filter = section.error_at("filter", "'filter' is for records, and these are numbers");
    let filter = section.take_section("filter")?.map(Section::into_args).transpose()?;
    let mut texts = |key: &str, types: &[SinkType]| {
        let at = section.error_at(key, format!("'{key}' is for sinks of type {}", names(types)));
        let found = section.take_section(key)?.map(Section::into_texts).transpose()?;
        Ok::<_, SettingsError>(found.map(|texts| (texts, at)))
    };
    let headers = texts("headers", &HEADERS)?;
    let labels = texts("labels", &LABELS)?;
    let properties = texts("properties", &PROPERTIES)?;
    let present = section.keys();
    let places: BTreeMap<String, SettingsError> =
        present.iter().map(|key| (key.clone(), section.error_at(key, ""))).collect();
    let missing = section.error("");
    let args: SinkArgs = section.into_args()?;
    let is = |types: &[SinkType]| types.contains(&args.r#type);
    for (found, types) in [(&headers, &HEADERS[..]), (&labels, &LABELS), (&properties, &PROPERTIES)] {
        if let Some((_, at)) = found
            && !is(types)
        {
            return Err(at.clone());
        }
    }
    let command = <SinkArgs as clap::Args>::augment_args(clap::Command::new("sink"));
    for arg in command.get_arguments() {
        let (Some(key), Some(types)) = (arg.get_long(), types(arg)) else { continue };
        if let Some(at) = places.get(key).filter(|_| !is(&types)) {
            let message = format!("'{key}' is for sinks of type {}", names(&types));
            return Err(SettingsError { message, ..at.clone() });
        }
    }
    if filter.is_some() && args.r#type == SinkType::OtlpMetrics {
        return Err(no_filter);
    }
    if let Some(problem) = args.problem() {
        return Err(SettingsError { message: problem, ..missing });
    }
    let [headers, labels, properties] =
        [headers, labels, properties].map(|found| found.map(|it| it.0).unwrap_or_default());
    Ok(Sink { name, args, filter, headers, labels, properties })
}

/// The types of sinks that a key is for: its heading names them. None for all.
fn types(arg: &Arg) -> Option<Vec<SinkType>> {
    let heading = arg.get_help_heading()?;
    let types = heading.split(", ").map(|name| <SinkType as clap::ValueEnum>::from_str(name, true).ok());
    types.collect()
}

fn names(types: &[SinkType]) -> String {
    use clap::ValueEnum;
    let name = |it: &SinkType| it.to_possible_value().map(|value| value.get_name().to_owned());
    types.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}
