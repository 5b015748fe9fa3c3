//! The commented example: every key, from the definitions that the file is read by.

use clap::{Arg, ArgAction, Args, Command, builder::PossibleValue};

use super::sink::{TypeArg, all_tables, own_keys};
use crate::{
    cli::{DaemonKeys, FilterArgs, KernelArgs, StuckRules},
    sinks::CommonArgs,
};

/// Keys of the first section that the example sets.
const SET: [(&str, &str); 1] = [("metrics", "\"127.0.0.1:9435\"")];

/// Columns of a comment.
const WIDTH: usize = 100;

/// A configuration with one sink and metrics, and all else as comments.
#[must_use]
pub fn example() -> String {
    let mut text = String::from(
        "# The configuration of `sockstate run`, made by `sockstate run --example`: every key, with its default where it has one.\n\
         # `sockstate run --check` says what is wrong with it; SIGHUP makes a running one read it again.\n",
    );
    keys::<DaemonKeys>(&mut text);
    section(
        "filter",
        "Which transitions all sinks together get; what nobody wants costs next to nothing.",
        &mut text,
    );
    keys::<FilterArgs>(&mut text);
    section("stuck", "When a connection counts as stuck.", &mut text);
    keys::<StuckRules>(&mut text);
    section("kernel", "How the kernel is asked.", &mut text);
    keys::<KernelArgs>(&mut text);
    text.push_str(
        "\n# Added to every record, below `labels`.\n[labels]\n# env = \"production\"\n\
         \n# A sink for each collector: [sinks.NAME]. Each has its own queue, and none waits for another.\n\
         [sinks.console]\ntype = \"stdout\"\n\
         # Every transition would flood the journal.\nrecords = [\"stuck\", \"resolved\"]\n\n# All keys that a sink can have, and the types of sinks that they are for:\n",
    );
    sink_keys(&mut text);
    text.push_str(
        "#\n# Which of the records a sink gets has the keys of [filter]:\n# [sinks.NAME.filter]\n# to = [\"CLOSE_WAIT\"]\n",
    );
    for (table, types) in all_tables() {
        let (name, about, example) = (table.name, table.about, table.example);
        text.push_str(&format!(
            "#\n# {about}, for {}:\n# [sinks.NAME.{name}]\n# {example}\n",
            types.join(", ")
        ));
    }
    text
}

fn section(name: &str, about: &str, text: &mut String) {
    text.push_str(&format!("\n# {about}\n[{name}]\n"));
}

fn keys<T: Args>(text: &mut String) {
    let command = T::augment_args(Command::new(""));
    for arg in command.get_arguments() {
        text.push('\n');
        key(arg, text);
    }
}

fn sink_keys(text: &mut String) {
    let all = |command: Command| -> Vec<(Arg, String)> {
        command.get_arguments().map(|arg| (arg.clone(), "all".to_owned())).collect()
    };
    let own = own_keys().into_iter().map(|(arg, types)| (arg, types.join(", ")));
    let keys = all(TypeArg::augment_args(Command::new("")))
        .into_iter()
        .chain(own)
        .chain(all(CommonArgs::augment_args(Command::new(""))));
    let mut last = String::new();
    for (arg, types) in keys {
        if last != types {
            text.push_str(&format!("#\n# -- {types}\n"));
            last = types;
        }
        key(&arg, text);
    }
}

/// Writes a key: its help text, its possible values, and a line with an example value.
fn key(arg: &Arg, text: &mut String) {
    let Some(name) = arg.get_long() else { return };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    comment(&help, text);
    if let Some((_, value)) = SET.iter().find(|(set, _)| *set == name) {
        text.push_str(&format!("{name} = {value}\n"));
        return;
    }
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let choices = if is_flag { Vec::new() } else { arg.get_possible_values() };
    for value in choices.iter().filter(|value| !value.is_hide_set()) {
        choice(value, text);
    }
    let default = arg.get_default_values().first().and_then(|value| value.to_str());
    let value = match (is_flag, default) {
        (true, _) => "false".to_owned(),
        (false, Some(number)) if number.parse::<u64>().is_ok() => number.to_owned(),
        (false, Some(default)) => format!("\"{default}\""),
        (false, None) => {
            let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
            let name = name.unwrap_or_default();
            if matches!(arg.get_action(), ArgAction::Append) {
                format!("[\"{name}\"]")
            } else {
                format!("\"{name}\"")
            }
        }
    };
    text.push_str(&format!("# {name} = {value}\n"));
}

fn choice(value: &PossibleValue, text: &mut String) {
    let help = value.get_help().map(ToString::to_string).unwrap_or_default();
    comment(&format!("  \"{}\": {help}", value.get_name()), text);
}

fn comment(help: &str, text: &mut String) {
    let indent = &help[..help.len() - help.trim_start().len()];
    let mut line = String::new();
    for word in help.split_whitespace() {
        if !line.is_empty() && line.len() + word.len() + 3 > WIDTH {
            text.push_str(&format!("# {indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&format!("# {indent}{line}\n"));
}
