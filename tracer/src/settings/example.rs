//! The commented example: every key, from the definitions that the file is read by.

use clap::{Arg, ArgAction, Args, Command, builder::PossibleValue};

use super::sink::{TypeArg, all_tables, own_keys};
use crate::{
    cli::{DaemonKeys, FilterArgs, KernelArgs, StuckRules},
    kubernetes::KubernetesArgs,
    sinks::CommonArgs,
};

/// Keys of the first section that the example sets.
const SET: [(&str, &str); 1] = [("metrics", "\"127.0.0.1:9435\"")];

/// Columns of a comment.
const WIDTH: usize = 100;

/// A configuration with one sink and metrics, and all else as comments.
#[must_use]
pub fn example() -> String {
    let mut text = String::new();
    comment("An example configuration of `sockstate run`, printed by `sockstate run --example`.", &mut text);
    text.push_str("#\n");
    comment(
        "It has every key. A key in a comment shows its default, or a word in capitals where it has no default. The keys without # \
         are choices of this example: metrics, and the sink `console`.",
        &mut text,
    );
    text.push_str("#\n");
    comment(
        "`sockstate run --check` reports all errors in this file. A running daemon reads the file again at SIGHUP.",
        &mut text,
    );
    keys::<DaemonKeys>(&mut text);
    section(
        "filter",
        "Which transitions sockstate reports to its sinks. The kernel programs drop what ipv4, ipv6, the \
         ports, from, to, netns (a number, or a path in /proc), and one prefix each in local and remote \
         exclude, so that sockstate never reads it. Everything else (pid, comm, cgroup, pod, namespace, \
         container, netns by name, several prefixes) sockstate decides itself: it then reads and follows \
         every transition of the host.",
        &mut text,
    );
    keys::<FilterArgs>(&mut text);
    section("stuck", "Which connections sockstate reports as stuck.", &mut text);
    keys::<StuckRules>(&mut text);
    section("kernel", "How sockstate observes the kernel.", &mut text);
    keys::<KernelArgs>(&mut text);
    text.push('\n');
    comment(
        "With this section, sockstate asks the API server of Kubernetes what manages the pods of this node, and for their labels \
         (docs/kubernetes.md). Its keys:",
        &mut text,
    );
    text.push_str("# [kubernetes]\n");
    keys::<KubernetesArgs>(&mut text);
    text.push_str(
        "\n# Labels that every record gets, below the key `labels`.\n[labels]\n# env = \"production\"\n\
         \n# A sink delivers records to a collector, a file or standard output. Each sink has a section\n\
         # [sinks.NAME] and its own queue, and does not wait for other sinks. This sink is an example: replace\n\
         # it by your own.\n\
         [sinks.console]\ntype = \"stdout\"\n\
         # Under systemd, standard output is the journal, and every transition would flood it.\n\
         records = [\"stuck\", \"resolved\"]\n\
         \n# The keys of sinks. A line such as `-- file` names the types of sinks that have the keys below it.\n",
    );
    sink_keys(&mut text);
    text.push_str(
        "#\n# A sink with a filter gets only the records that match it. The keys are those of [filter]:\n\
         # [sinks.NAME.filter]\n# to = [\"CLOSE_WAIT\"]\n",
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
    text.push('\n');
    comment(about, text);
    text.push_str(&format!("[{name}]\n"));
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
        command.get_arguments().map(|arg| (arg.clone(), "all types".to_owned())).collect()
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
