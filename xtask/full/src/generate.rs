//! Files that are generated from the code: from the definitions of the command line a man page for each subcommand, and
//! completions; from the types of the JSON lines their JSON Schemas; from a recording the pictures of the README; from the
//! alerts of Prometheus an object for Kubernetes.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use clap_complete::Shell;
use sockstate::{
    cmd::{command, man_page},
    wire,
};

use crate::{output, root};

/// The files of completions.
const COMPLETIONS: [(Shell, &str); 3] =
    [(Shell::Bash, "sockstate.bash"), (Shell::Zsh, "_sockstate"), (Shell::Fish, "sockstate.fish")];

/// The recording that the pictures show, and its directory.
const RECORDINGS: &str = "tests/fixtures/recordings";
const RECORDING: &str = "sockstate-1.ndjson";

/// The pictures in `docs/images`, by the arguments of sockstate that draw each.
const IMAGES: [(&str, &[&str]); 2] = [
    ("states.svg", &["diagram", "--from", RECORDING, "--format", "svg"]),
    ("timeline.svg", &["timeline", RECORDING, "--format", "svg"]),
];

const PROMETHEUS_RULE: &str = "\
# For the Prometheus operator: the alerts of packaging/prometheus. Made by `cargo xtask generate`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sockstate
  namespace: sockstate
  labels:
    app.kubernetes.io/name: sockstate
spec:
";

/// Writes the files into `packaging` and `docs`.
pub(crate) fn write() -> Result<()> {
    for (path, bytes) in files()? {
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(&path, bytes)?;
    }
    Ok(())
}

/// Fails if `packaging` or `docs` has other files.
pub(crate) fn verify() -> Result<()> {
    for (path, bytes) in files()? {
        if fs::read(&path).unwrap_or_default() != bytes {
            bail!("{} does not match the code; run cargo xtask generate", path.display());
        }
    }
    println!("man pages, completions, JSON Schemas and pictures: up to date");
    Ok(())
}

fn files() -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let packaging = root().join("packaging");
    let mut files = BTreeMap::new();
    // The width of the help text must not depend on the terminal.
    let mut command = command().term_width(80);
    command.build();
    for (shell, name) in COMPLETIONS {
        let mut bytes = Vec::new();
        clap_complete::generate(shell, &mut command, "sockstate", &mut bytes);
        files.insert(packaging.join("completions").join(name), bytes);
    }
    let man = packaging.join("man");
    files.insert(man.join("sockstate.1"), man_page(&command, "sockstate")?);
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let name = format!("sockstate-{}", subcommand.get_name());
        files.insert(man.join(format!("{name}.1")), man_page(subcommand, &name)?);
    }
    let rules = fs::read_to_string(packaging.join("prometheus/sockstate.rules.yml"))?;
    files.insert(packaging.join("kubernetes/prometheus-rule.yaml"), prometheus_rule(&rules).into_bytes());
    // A chart has its own copies of what it puts into objects.
    let chart = packaging.join("helm/sockstate/files");
    files.insert(chart.join("rules.yml"), rules.into_bytes());
    files.insert(chart.join("dashboard.json"), fs::read(packaging.join("grafana/sockstate.json"))?);
    for (file, schema) in
        [("events.schema.json", wire::events_schema()), ("look.schema.json", wire::look_schema())]
    {
        files.insert(root().join("docs").join(file), schema.into_bytes());
    }
    let this_program = env::current_exe().context("the path of this program is not known")?;
    for (name, args) in IMAGES {
        let mut sockstate = Command::new(&this_program);
        sockstate.current_dir(root().join(RECORDINGS)).args(["internal", "sockstate"]).args(args);
        let picture = output(&mut sockstate)?;
        files.insert(root().join("docs/images").join(name), picture.into_bytes());
    }
    Ok(files)
}

/// The alerts as an object of the Prometheus operator.
fn prometheus_rule(rules: &str) -> String {
    let mut text = PROMETHEUS_RULE.to_owned();
    for line in rules.lines().filter(|line| !line.starts_with('#')) {
        let indent = if line.is_empty() { "" } else { "  " };
        text.extend([indent, line, "\n"]);
    }
    text
}
