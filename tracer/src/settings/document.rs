//! A TOML document whose keys are the flags that clap's types define: same names, same values, same errors, with line and column.

use std::{cell::RefCell, collections::BTreeMap, error::Error, fmt, ops::Range};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};
use thiserror::Error;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::cli::in_any_case;

/// An error in the file, with its position.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}{}: {message}", place(*line, *column))]
pub struct SettingsError {
    /// The file.
    pub path: String,
    /// Line, from 1; 0 for no place in it.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    pub message: String,
}

fn place(line: usize, column: usize) -> String {
    if line == 0 { String::new() } else { format!(":{line}:{column}") }
}

/// Everything that is wrong with a configuration, in the order of its lines.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}", lines(.0))]
pub struct Problems(Vec<SettingsError>);

impl Problems {
    /// An error if there is any problem.
    ///
    /// # Errors
    /// `problems` is not empty.
    pub fn check(mut problems: Vec<SettingsError>) -> Result<(), Self> {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }
}

fn lines(problems: &[SettingsError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Where the sections of a file and the values of their keys are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    path: String,
    at: BTreeMap<(String, String), (usize, usize)>,
}

impl Places {
    /// An error at the value of `key` in `section` (`sinks.NAME`); at the section where it has no such key.
    #[must_use]
    pub fn error(&self, section: &str, key: &str, message: impl fmt::Display) -> SettingsError {
        let find = |key: &str| self.at.get(&(section.to_owned(), key.to_owned()));
        let (line, column) = find(key).or_else(|| find("")).copied().unwrap_or_default();
        SettingsError { path: self.path.clone(), line, column, message: message.to_string() }
    }
}

/// The text of a file, and what was found wrong with it so far.
pub(super) struct Source<'a> {
    text: &'a str,
    places: RefCell<Places>,
    problems: RefCell<Vec<SettingsError>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &str, text: &'a str) -> Self {
        let places = Places { path: path.to_owned(), at: BTreeMap::new() };
        Self { text, places: places.into(), problems: RefCell::default() }
    }

    pub(super) fn finish(self) -> (Places, Vec<SettingsError>) {
        (self.places.into_inner(), self.problems.into_inner())
    }

    pub(super) fn note(&self, at: Range<usize>, message: impl fmt::Display) {
        let (line, column) = self.place(&at);
        let path = self.places.borrow().path.clone();
        let problem = SettingsError { path, line, column, message: message.to_string() };
        self.problems.borrow_mut().push(problem);
    }

    fn place(&self, at: &Range<usize>) -> (usize, usize) {
        let before = self.text.get(..at.start).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }
}

/// A table of the document whose keys are taken one after another. What is wrong with them is noted at the source.
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
        let entries: BTreeMap<String, Entry<'a>> = table.iter().map(entry).collect();
        let mut places = source.places.borrow_mut();
        places.at.insert((name.to_owned(), String::new()), source.place(&span));
        for (key, (_, value)) in &entries {
            places.at.insert((name.to_owned(), key.clone()), source.place(&value.span()));
        }
        drop(places);
        Self { source, name: name.to_owned(), span, entries }
    }

    pub(super) fn note(&self, message: impl fmt::Display) {
        self.source.note(self.span.clone(), message);
    }

    /// Where the keys are; the section itself for one that it does not have.
    pub(super) fn keys(&self) -> Keys<'a> {
        let spans = self.entries.iter().map(|(key, (span, _))| (key.clone(), span.clone())).collect();
        Keys { source: self.source, span: self.span.clone(), spans }
    }

    /// The value of a string key, which stays in the section.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.entries.get(key)?.1.get_ref() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    /// A table in it, if there is one.
    pub(super) fn take_section(&mut self, key: &str) -> Option<Section<'a>> {
        let (at, value) = self.entries.remove(key)?;
        match value.get_ref() {
            DeValue::Table(table) => {
                let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
                Some(Self::of(self.source, &name, value.span(), table))
            }
            _ => {
                self.source.note(at, format!("'{key}' must be a table: [{key}]"));
                None
            }
        }
    }

    /// All tables in it, by their names.
    pub(super) fn into_sections(mut self) -> Vec<(String, Section<'a>)> {
        let names: Vec<String> = self.entries.keys().cloned().collect();
        names.into_iter().filter_map(|key| Some((key.clone(), self.take_section(&key)?))).collect()
    }

    /// All of its keys with texts.
    pub(super) fn into_texts(self) -> BTreeMap<String, String> {
        let text = |(key, (_, value)): (String, Entry<'a>)| match value.get_ref() {
            DeValue::String(text) => Some((key, text.clone().into_owned())),
            _ => {
                self.source.note(value.span(), format!("'{key}' must be a string"));
                None
            }
        };
        self.entries.into_iter().filter_map(text).collect()
    }

    /// Parses the section as the flags of `T`. Unknown keys and wrong values are noted and left out; `None` if the
    /// others do not fit together.
    pub(super) fn into_args<T: Args + FromArgMatches>(self) -> Option<T> {
        self.parsed(&T::augment_args, T::from_arg_matches, |_| None)
    }

    /// The same for the flags that `augment` adds, read by `parse`. `elsewhere` tells where a key belongs that is not
    /// among them. A missing required key is noted, and the others are parsed without it.
    pub(super) fn parsed<T>(
        self,
        augment: &dyn Fn(Command) -> Command,
        parse: impl Fn(&ArgMatches) -> Result<T, clap::Error>,
        elsewhere: impl Fn(&str) -> Option<String>,
    ) -> Option<T> {
        let command = || augment(Command::new("sockstate").no_binary_name(true)).mut_args(in_any_case);
        let known = command();
        let flags: Vec<&Arg> = known.get_arguments().collect();
        let mut typed: Vec<String> = Vec::new();
        for (key, (at, value)) in &self.entries {
            let Some(flag) = flags.iter().find(|flag| flag.get_long() == Some(key)) else {
                let message = elsewhere(key).unwrap_or_else(|| self.unknown(key, &flags));
                self.source.note(at.clone(), message);
                continue;
            };
            let alone = words(flag, value.get_ref()).and_then(|words| {
                match complaint(command().try_get_matches_from(&words)) {
                    Some(message) => Err(message),
                    None => Ok(words),
                }
            });
            match alone {
                Ok(words) => typed.extend(words),
                Err(message) => self.source.note(value.span(), message),
            }
        }
        let parse_typed =
            |command: Command| command.try_get_matches_from(&typed).and_then(|found| parse(&found));
        let error = match parse_typed(command()) {
            Ok(parsed) => return Some(parsed),
            Err(error) => error,
        };
        self.note_all(&error);
        if missing(&error).is_empty() {
            return None;
        }
        let is_noted = |error: &clap::Error| !missing(error).is_empty();
        let parsed = parse_typed(command().mut_args(|arg| arg.required(false)));
        parsed
            .map_err(|error| {
                if !is_noted(&error) {
                    self.note_all(&error)
                }
            })
            .ok()
    }

    /// What is wrong with the keys together.
    fn note_all(&self, error: &clap::Error) {
        let missing = missing(error);
        if missing.is_empty() {
            return self.note(message(error));
        }
        // A key with a wrong value has been noted.
        let missing: Vec<String> =
            missing.into_iter().filter(|key| !self.entries.contains_key(key)).collect();
        if !missing.is_empty() {
            self.note(format!("'{}' is missing", missing.join("', '")));
        }
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

/// Where the keys of a section are.
pub(super) struct Keys<'a> {
    source: &'a Source<'a>,
    span: Range<usize>,
    spans: BTreeMap<String, Range<usize>>,
}

impl Keys<'_> {
    pub(super) fn has(&self, key: &str) -> bool {
        self.spans.contains_key(key)
    }

    /// Notes what is wrong with `key`; without it, with the section.
    pub(super) fn note(&self, key: &str, message: impl fmt::Display) {
        self.source.note(self.spans.get(key).unwrap_or(&self.span).clone(), message);
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
        _ => Err(format!("'{name}' must be a string or a number")),
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
fn complaint(result: Result<ArgMatches, clap::Error>) -> Option<String> {
    let error = result.err()?;
    let of_others = matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict);
    (!of_others).then(|| message(&error))
}

/// The first paragraph of clap's message, without the dashes of flags, which are keys here.
fn message(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    let missing = missing(error);
    if !missing.is_empty() {
        return format!("'{}' is missing", missing.join("', '"));
    }
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").replace("--", "")
}

/// The keys that clap misses.
fn missing(error: &clap::Error) -> Vec<String> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) if error.kind() == ErrorKind::MissingRequiredArgument => {
            let names = missing.iter().filter_map(|words| words.split_whitespace().next());
            names.map(|name| name.trim_start_matches('-').to_owned()).collect()
        }
        _ => Vec::new(),
    }
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
