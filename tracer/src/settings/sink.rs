//! One sink's section: keys that its type has, and that go together.

use clap::{
    Arg, ArgMatches, Args, Command, FromArgMatches,
    builder::{PossibleValue, PossibleValuesParser},
};

use super::{Sink, document::Section};
use crate::sinks::{CommonArgs, Kind, SINKS, SinkSection, Table, Tables, kind};

/// The key that all others depend on.
#[derive(Args)]
pub(super) struct TypeArg {
    /// Where the records go.
    #[arg(long, value_name = "TYPE", required = true, value_parser = types())]
    r#type: String,
}

fn types() -> PossibleValuesParser {
    SINKS.iter().map(|kind| PossibleValue::new(kind.name).help(kind.about)).collect::<Vec<_>>().into()
}

/// Reads the section of a sink; `None` if its keys are not valid.
pub(super) fn read(name: String, mut section: Section<'_>) -> Option<Sink> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_plain) {
        section.note(format!("'{name}' is no name for a sink: letters, digits, - and _"));
    }
    let keys = section.keys();
    let filter = section.take_section("filter").map(Section::into_args);
    let mut tables = Tables::new();
    for (table, _) in all_tables() {
        if let Some(section) = section.take_section(table.name) {
            tables.insert(table.name, section.into_texts());
        }
    }
    let Some(kind) = section.text("type").and_then(kind) else {
        // Without a type, this reports only the problems that the keys have for every type.
        return section.parsed(&with_all_keys, |_| Ok(()), |_| None).and(None);
    };
    for (table, types) in all_tables() {
        if keys.has(table.name) && !types.contains(&kind.name) {
            keys.note(table.name, belongs(table.name, &types));
        }
    }
    let augment = |command: Command| CommonArgs::augment_args(kind.augment(TypeArg::augment_args(command)));
    let parse = |found: &ArgMatches| Ok((kind.parse(found)?, CommonArgs::from_arg_matches(found)?));
    let (config, common) = section.parsed(&augment, parse, elsewhere)?;
    let section = SinkSection { name, kind, config, common, tables };
    for problem in section.text_problems(&|key| keys.has(key)) {
        keys.note(problem.key, problem.message);
    }
    // A filter that is wrong has been noted.
    let filter = filter.map_or(Some(None), |filter| filter.map(Some))?;
    Some(Sink { section, filter })
}

/// Which types of sinks a key is for that another one has.
fn elsewhere(key: &str) -> Option<String> {
    let has = |kind: &&Kind| kind.keys().iter().any(|arg| arg.get_long() == Some(key));
    let types: Vec<&str> = SINKS.iter().filter(has).map(|kind| kind.name).collect();
    (!types.is_empty()).then(|| belongs(key, &types))
}

fn belongs(key: &str, types: &[&str]) -> String {
    format!("'{key}' is for sinks of type {}", types.join(", "))
}

/// The keys of all types. Which of them are required is not known without a type.
fn with_all_keys(command: Command) -> Command {
    let command = CommonArgs::augment_args(TypeArg::augment_args(command));
    SINKS.iter().flat_map(Kind::keys).fold(command, |command, arg| {
        let is_there = command.get_arguments().any(|known| known.get_id() == arg.get_id());
        if is_there { command } else { command.arg(arg.required(false)) }
    })
}

/// The tables that sinks have, and the types of sinks that each is for.
pub(super) fn all_tables() -> Vec<(&'static Table, Vec<&'static str>)> {
    let mut tables: Vec<(&Table, Vec<&str>)> = Vec::new();
    for kind in SINKS {
        for table in kind.tables {
            match tables.iter_mut().find(|(known, _)| known.name == table.name) {
                Some((_, types)) => types.push(kind.name),
                None => tables.push((table, vec![kind.name])),
            }
        }
    }
    tables
}

/// The keys that some types of sinks have, and which types these are. A key that means something else to another type comes twice.
pub(super) fn own_keys() -> Vec<(Arg, Vec<&'static str>)> {
    let help = |arg: &Arg| arg.get_help().map(ToString::to_string);
    let mut keys: Vec<(Arg, Vec<&str>)> = Vec::new();
    for kind in SINKS {
        for arg in kind.keys() {
            let is_same = |known: &Arg| known.get_id() == arg.get_id() && help(known) == help(&arg);
            match keys.iter_mut().find(|(known, _)| is_same(known)) {
                Some((_, types)) => types.push(kind.name),
                None => keys.push((arg, vec![kind.name])),
            }
        }
    }
    keys
}
