//! A TOML document whose keys are the flags that clap's types define: same names, same values, same errors, with line and column.

use std::{collections::BTreeMap, error::Error, fmt, ops::Range};

use clap::{
    Arg, ArgAction, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something that the file says and cannot mean.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}{}: {message}", place(*line, *column))]
pub struct SettingsError {
    /// The file.
    pub path: String,
    /// Line, from 1; 0 for no place in it.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

fn place(line: usize, column: usize) -> String {
    if line == 0 { String::new() } else { format!(":{line}:{column}") }
}

/// The text of a file, to say where something in it is.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn error(&self, at: Range<usize>, message: impl fmt::Display) -> SettingsError {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        SettingsError {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            message: message.to_string(),
        }
    }
}

/// A table of the document whose keys are taken one after another.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// For messages: `[filter]`.
    name: String,
    span: Range<usize>,
    entries: BTreeMap<String, Entry<'a>>,
}

/// A key and its value.
type Entry<'a> = (Range<usize>, &'a Spanned<DeValue<'a>>);

impl<'a> Section<'a> {
    pub(super) fn new(source: &'a Source<'a>, name: &str, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self::of(source, name, table.span(), table.get_ref())
    }

    fn of(source: &'a Source<'a>, name: &str, span: Range<usize>, table: &'a DeTable<'a>) -> Self {
        let entry = |(key, value): (&Spanned<_>, _)| {
            (AsRef::<str>::as_ref(key.get_ref()).to_owned(), (key.span(), value))
        };
        let entries = table.iter().map(entry).collect();
        Self { source, name: name.to_owned(), span, entries }
    }

    pub(super) fn error(&self, message: impl fmt::Display) -> SettingsError {
        self.source.error(self.span.clone(), message)
    }

    /// Where a key is; the section itself without it.
    pub(super) fn error_at(&self, key: &str, message: impl fmt::Display) -> SettingsError {
        let span = self.entries.get(key).map_or(&self.span, |(span, _)| span);
        self.source.error(span.clone(), message)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// A table in it, if there is one.
    pub(super) fn take_section(&mut self, key: &str) -> Result<Option<Section<'a>>, SettingsError> {
        let Some((at, value)) = self.entries.remove(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(table) => {
                let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
                Ok(Some(Self::of(self.source, &name, value.span(), table)))
            }
            _ => Err(self.source.error(at, format!("'{key}' must be a table: [{key}]"))),
        }
    }

    /// All tables in it, by their names.
    pub(super) fn into_sections(mut self) -> Result<Vec<(String, Section<'a>)>, SettingsError> {
        let mut sections = Vec::new();
        for key in self.keys() {
            if let Some(section) = self.take_section(&key)? {
                sections.push((key, section));
            }
        }
        Ok(sections)
    }

    /// All of its keys with texts.
    pub(super) fn into_texts(self) -> Result<BTreeMap<String, String>, SettingsError> {
        let text = |(key, (_, value)): (String, Entry<'a>)| match value.get_ref() {
            DeValue::String(text) => Ok((key, text.clone().into_owned())),
            _ => Err(self.source.error(value.span(), format!("'{key}' must be a text"))),
        };
        self.entries.into_iter().map(text).collect()
    }

    /// What the keys say to the flags of `T`; other keys must not be there.
    pub(super) fn into_args<T: Args + FromArgMatches>(self) -> Result<T, SettingsError> {
        let command = || T::augment_args(Command::new("sockstate").no_binary_name(true));
        let known = command();
        let flags: Vec<&Arg> = known.get_arguments().collect();
        let mut typed: Vec<String> = Vec::new();
        for (key, (at, value)) in &self.entries {
            let flag = flags.iter().find(|flag| flag.get_long() == Some(key));
            let flag = flag.ok_or_else(|| self.source.error(at.clone(), self.unknown(key, &flags)))?;
            let words = words(flag, value.get_ref());
            let words = words.map_err(|message| self.source.error(value.span(), message))?;
            if let Some(message) = complaint(command().try_get_matches_from(&words)) {
                return Err(self.source.error(value.span(), message));
            }
            typed.extend(words);
        }
        let parsed = command().try_get_matches_from(&typed).and_then(|found| T::from_arg_matches(&found));
        parsed.map_err(|error| self.error(message(&error)))
    }

    fn unknown(&self, key: &str, flags: &[&Arg]) -> String {
        let names = || flags.iter().filter_map(|flag| flag.get_long());
        let near = names().max_by(|a, b| likeness(key, a).total_cmp(&likeness(key, b)));
        let hint = match near.filter(|near| likeness(key, near) > 0.6) {
            Some(near) => format!("; did you mean '{near}'?"),
            None => format!("; there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        let place = if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) };
        format!("unknown key '{key}'{place}{hint}")
    }
}

/// A key and its value as they would be typed.
fn words(flag: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let name = flag.get_long().unwrap_or_default();
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return match value {
            DeValue::Boolean(true) => Ok(vec![format!("--{name}")]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            _ => Err(format!("'{name}' must be true or false")),
        };
    }
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        _ => Err(format!("'{name}' must be a text or a number")),
    };
    let texts = match value {
        DeValue::Array(items) => {
            items.iter().map(|item| text(item.get_ref())).collect::<Result<Vec<_>, _>>()?
        }
        single => vec![text(single)?],
    };
    if matches!(flag.get_action(), ArgAction::Append) {
        return Ok(texts.iter().map(|text| format!("--{name}={text}")).collect());
    }
    Ok(vec![format!("--{name}={}", texts.join(","))])
}

/// What is wrong with one flag alone; others may be missing.
fn complaint(result: Result<clap::ArgMatches, clap::Error>) -> Option<String> {
    let error = result.err()?;
    let of_others = matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict);
    (!of_others).then(|| message(&error))
}

/// The first line of what clap says, without flags' dashes: here they are keys.
fn message(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg)
    {
        let names =
            missing.iter().filter_map(|it| it.split_whitespace().next()).map(|it| it.trim_start_matches('-'));
        return format!("'{}' is missing", names.collect::<Vec<_>>().join("', '"));
    }
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").replace("--", "")
}

/// From 0 to 1: the letters that two words share, in order, by the longer's length.
fn likeness(a: &str, b: &str) -> f64 {
    let b: Vec<char> = b.chars().collect();
    let mut shared = vec![0_usize; b.len() + 1];
    let longer = a.chars().count().max(b.len()).max(1);
    for x in a.chars() {
        let mut diagonal = 0;
        for (at, y) in b.iter().enumerate() {
            let above = shared[at + 1];
            shared[at + 1] = if x == *y { diagonal + 1 } else { above.max(shared[at]) };
            diagonal = above;
        }
    }
    shared.last().copied().unwrap_or(0) as f64 / longer as f64
}
