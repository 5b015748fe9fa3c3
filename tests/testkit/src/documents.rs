//! The commands that the documents name.

use std::{fs, path::PathBuf};

fn root() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../..").into()
}

/// Each document's name and text.
pub fn documents() -> Vec<(String, String)> {
    let mut paths = vec![root().join("README.md")];
    paths.extend(fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("entry").path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let text = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("a document"))
    };
    paths.into_iter().map(text).collect()
}

/// The sockstate commands that a text tells its reader to run, without what the shell does with the line.
pub fn commands(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n'));
    let blocks = text.split("```").skip(1).step_by(2);
    let lines = blocks.flat_map(str::lines).map(|line| line.trim_start_matches("$ "));
    let ours = spans.chain(lines).filter(|command| command.starts_with("sockstate ") && command.is_ascii());
    let ours = ours.map(without_shell);
    // Commands with placeholders cannot run.
    let is_one = |command: &&str| {
        !(command.contains("...")
            || command.contains("--(")
            || command.contains('"') && command.contains(['*', '=']))
    };
    ours.filter(is_one).map(str::to_owned).collect()
}

/// The part of a line that the shell gives to the program.
pub fn without_shell(line: &str) -> &str {
    let line = line.split(" 2>").next().unwrap_or_default();
    line.split(['|', '>', '&', '#', ';', '<']).next().unwrap_or_default().trim()
}
