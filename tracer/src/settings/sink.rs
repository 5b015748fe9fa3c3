//! One sink's section: keys that its type has, and that go together.

use std::collections::BTreeMap;

use clap::Arg;

use super::{
    Sink,
    document::{Keys, Section},
};
use crate::cli::{SinkArgs, SinkType, TemplateName};

/// The types that have these tables.
const HEADERS: [SinkType; 3] = [SinkType::Http, SinkType::Otlp, SinkType::OtlpMetrics];
const LABELS: [SinkType; 1] = [SinkType::Http];
const PROPERTIES: [SinkType; 1] = [SinkType::Kafka];

/// `None` where it cannot be told what it would be.
pub(super) fn read(name: String, mut section: Section<'_>) -> Option<Sink> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_plain) {
        section.note(format!("'{name}' is no name for a sink: letters, digits, - and _"));
    }
    let keys = section.keys();
    let filter = section.take_section("filter").map(Section::into_args);
    let mut texts = |key: &str| section.take_section(key).map(Section::into_texts).unwrap_or_default();
    let [headers, labels, properties] = ["headers", "labels", "properties"].map(&mut texts);
    let args: SinkArgs = section.into_args()?;
    check_types(&args, &keys);
    for problem in args.problems(|key| keys.has(key)) {
        keys.note("", problem);
    }
    check_labels(&args, &labels, &keys);
    // A filter that is wrong has been noted.
    let filter = filter.map_or(Some(None), |filter| filter.map(Some))?;
    Some(Sink { name, args, filter, headers, labels, properties })
}

/// Notes the keys that are for other types of sinks.
fn check_types(args: &SinkArgs, keys: &Keys<'_>) {
    let is = |types: &[SinkType]| types.contains(&args.r#type);
    let tables = [("headers", &HEADERS[..]), ("labels", &LABELS), ("properties", &PROPERTIES)];
    for (key, types) in tables {
        if keys.has(key) && !is(types) {
            keys.note(key, format!("'{key}' is for sinks of type {}", names(types)));
        }
    }
    let command = <SinkArgs as clap::Args>::augment_args(clap::Command::new("sink"));
    for arg in command.get_arguments() {
        let (Some(key), Some(types)) = (arg.get_long(), types(arg)) else { continue };
        if keys.has(key) && !is(&types) {
            keys.note(key, format!("'{key}' is for sinks of type {}", names(&types)));
        }
    }
    if keys.has("filter") && args.r#type == SinkType::OtlpMetrics {
        keys.note("filter", "'filter' is for records, and these are numbers");
    }
}

/// Loki takes no stream without labels, and none whose names are not Prometheus's.
fn check_labels(args: &SinkArgs, labels: &BTreeMap<String, String>, keys: &Keys<'_>) {
    if args.r#type != SinkType::Http {
        return;
    }
    if args.template != TemplateName::Loki {
        if keys.has("labels") {
            keys.note("labels", "'labels' is for the template \"loki\"");
        }
        return;
    }
    if !keys.has("labels") || labels.is_empty() {
        keys.note(
            "",
            "'labels' is missing: Loki takes no stream without labels, such as job = \"sockstate\"",
        );
    }
    for name in labels.keys().filter(|name| !is_label(name)) {
        keys.note(
            "labels",
            format!("'{name}' is no name of a label for Loki: letters, digits and _, and no digit in front"),
        );
    }
}

fn is_label(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The types of sinks that a key is for: its heading names them. `None` for all.
pub(super) fn types(arg: &Arg) -> Option<Vec<SinkType>> {
    let heading = arg.get_help_heading()?;
    let types = heading.split(", ").map(|name| <SinkType as clap::ValueEnum>::from_str(name, true).ok());
    types.collect()
}

pub(super) fn names(types: &[SinkType]) -> String {
    use clap::ValueEnum;
    let name = |it: &SinkType| it.to_possible_value().map(|value| value.get_name().to_owned());
    types.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}
