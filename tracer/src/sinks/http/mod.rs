//! Requests by HTTP, in the forms that various collectors accept.

mod request;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};

pub(super) use self::request::{HEADERS, RequestArgs};
use super::{
    config::{BuildContext, SectionCheck, SinkConfig},
    delivery::SinkBuilder,
    encoding::FormatArgs,
    kind::Table,
    problem::{ConfigError, Problem},
    transport::{Template, TlsFiles},
};
use crate::format::{Content, FormatName};

/// The table of the labels of Loki's stream.
pub(super) const LABELS: Table =
    Table { name: "labels", about: "Labels of Loki's stream", example: "job = \"sockstate\"" };

/// What an HTTP request looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum TemplateName {
    /// One record per line: ClickHouse, Vector, VictoriaLogs.
    #[default]
    Ndjson,
    /// `_bulk` of Elasticsearch and OpenSearch.
    Elasticsearch,
    /// Loki's push API; `labels` are the stream's.
    Loki,
    /// Splunk's HTTP event collector.
    Splunk,
}

/// The keys.
#[derive(Args, Clone, Debug, PartialEq)]
pub(super) struct HttpArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// What a request looks like.
    #[arg(long, value_enum, value_name = "TEMPLATE", default_value_t)]
    template: TemplateName,
    #[command(flatten)]
    request: RequestArgs,
}

impl SinkConfig for HttpArgs {
    fn builder(&self, context: &BuildContext<'_>) -> Result<Arc<dyn SinkBuilder>, ConfigError> {
        let template = match self.template {
            TemplateName::Ndjson => Template::Ndjson,
            TemplateName::Elasticsearch => Template::Elasticsearch,
            TemplateName::Loki => Template::Loki(context.table(LABELS.name)),
            TemplateName::Splunk => Template::Splunk,
        };
        Ok(Arc::new(self.request.settings(context, template)?))
    }

    fn problems(&self, section: &SectionCheck<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let FormatName { name, content, .. } = self.format.name();
        let takes_json = matches!(self.template, TemplateName::Elasticsearch | TemplateName::Splunk);
        if takes_json && content != Content::Json {
            problems.push(Problem::of_section(format!(
                "Elasticsearch and Splunk take JSON only: format \"{name}\" goes with the other templates"
            )));
        }
        problems.extend(self.table_problems(section));
        problems
    }

    fn format(&self) -> Option<&FormatArgs> {
        Some(&self.format)
    }

    fn batch_time(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn secrets(&self) -> Vec<(&'static str, &Path)> {
        self.request.secrets()
    }

    fn tls(&self) -> Option<&TlsFiles> {
        Some(self.request.tls())
    }

    fn label_problem(&self, name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        let of_format = self.format.label_problem(name, labels);
        if of_format.is_some() || self.format.is_ecs() || self.template != TemplateName::Elasticsearch {
            return of_format;
        }
        if name.split('.').any(|part| part.trim().is_empty()) {
            return Some(format!(
                "Elasticsearch refuses the name '{name}', because the part before or after a dot is empty"
            ));
        }
        let is_below = |other: &&String| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let inner = labels.keys().find(is_below)?;
        Some(format!(
            "Elasticsearch reads a dot as a level, so '{name}' would be a text and, because of '{inner}', also an object: rename one \
             of them, or set format = \"ecs\", which replaces dots by underscores"
        ))
    }
}

impl HttpArgs {
    /// Loki accepts only streams with labels, whose names follow Prometheus's rules.
    fn table_problems(&self, section: &SectionCheck<'_>) -> Vec<Problem> {
        let of_labels = |message: String| Problem { key: LABELS.name, message };
        let has_labels = (section.has)(LABELS.name);
        if self.template != TemplateName::Loki {
            let problem = has_labels.then(|| of_labels("'labels' is for the template \"loki\"".to_owned()));
            return problem.into_iter().collect();
        }
        let labels = section.tables.get(LABELS.name);
        let missing = (!has_labels || labels.is_none_or(BTreeMap::is_empty)).then(|| {
            Problem::of_section(
                "'labels' is missing: Loki takes no stream without labels, such as job = \"sockstate\"",
            )
        });
        let names = labels.into_iter().flat_map(BTreeMap::keys).filter(|name| !is_label(name));
        let wrong = names.map(|name| {
            of_labels(format!(
                "'{name}' is no name of a label for Loki: letters, digits and _, and no digit in front"
            ))
        });
        missing.into_iter().chain(wrong).collect()
    }
}

fn is_label(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
