//! The direction rule: which module may use which (docs/architecture.md).

use std::fs;

use anyhow::{Result, bail};

use crate::{
    root,
    sources::{rust_files, without_comments},
};

/// A top-level module and the modules that it may use. `cmd`, `examiner`, `fuzz`, `hunter`, `lib`, `look` and
/// `pipeline` wire things together and may use all.
const MAY_USE: [(&str, &[&str]); 30] = [
    ("model", &[]),
    ("capabilities", &[]),
    ("procfs", &[]),
    ("files", &[]),
    ("messages", &["capabilities", "model"]),
    ("service", &["messages", "model"]),
    ("display", &["model"]),
    ("decode", &["model"]),
    ("knowledge", &["model"]),
    ("explain", &["model", "knowledge"]),
    ("story", &["model"]),
    ("draw", &["model", "display", "knowledge", "story"]),
    ("tui", &["model", "display", "knowledge", "explain", "story", "draw", "format"]),
    ("track", &["model", "display", "knowledge"]),
    ("enrich", &["files", "model", "procfs"]),
    ("filter", &["model", "values"]),
    ("route", &["filter", "model"]),
    ("unwind", &["enrich", "model"]),
    ("wire", &["model"]),
    ("format", &["model", "display", "wire"]),
    ("restart", &["files", "kernel", "messages", "model", "source", "track"]),
    ("sinks", &["capabilities", "values", "files", "format", "messages", "model", "restart"]),
    ("metrics", &["capabilities", "model"]),
    ("kernel", &["files", "filter", "model", "knowledge", "messages"]),
    ("source", &["model", "decode", "kernel", "procfs", "wire"]),
    ("values", &["model"]),
    ("cli", &["filter", "model", "values", "format"]),
    ("kubernetes", &["capabilities", "enrich", "files", "messages", "model", "sinks"]),
    ("settings", &["cli", "files", "kubernetes", "sinks"]),
    ("main", &[]),
];

/// The only places that know aya.
const AYA: [&str; 2] = ["kernel/", "source/ring.rs"];
/// The only places that know the ABI.
const ABI: [&str; 3] = ["kernel/", "source/", "decode.rs"];

/// Fails if a file uses a module that it must not use.
pub(crate) fn check() -> Result<()> {
    let source = root().join("tracer/src");
    let mut wrong = Vec::new();
    for file in rust_files(&source)? {
        let name = file.strip_prefix(&source).unwrap_or(&file).display().to_string();
        let text = without_comments(&fs::read_to_string(&file)?);
        let module = name.split(['/', '.']).next().unwrap_or_default();
        if let Some((_, may)) = MAY_USE.iter().find(|(known, _)| *known == module) {
            let used =
                modules(&text).into_iter().filter(|used| used != module && !may.contains(&used.as_str()));
            wrong.extend(used.map(|used| format!("{name} uses {used}")));
        } else if !["cmd", "examiner", "fuzz", "hunter", "lib", "look", "pipeline"].contains(&module) {
            wrong.push(format!("{name} is in no module of the rule"));
        }
        for (word, places) in [("aya", &AYA[..]), ("sockstate_abi", &ABI[..])] {
            let uses = text.contains(&format!("{word}::")) || text.contains(&format!("{word}_log::"));
            if uses && !places.iter().any(|place| name.starts_with(place)) {
                wrong.push(format!("{name} uses {word}"));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("the direction rule is broken: {}", wrong.join("; "));
    }
    println!("direction rule: kept");
    Ok(())
}

/// The modules that `crate::module` and `crate::{module, module::thing}` name.
fn modules(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    found.push(word(&group[start..at]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(word(&group[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
        }
    }
    found.retain(|module| !module.is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tracer_keeps_the_rule() {
        check().expect("kept");
    }

    #[test]
    fn modules_are_found_in_every_form() {
        let text =
            "use crate::model::State;\nuse crate::{\n    decode::{a, b},\n    kernel,\n};\ncrate::track::x()";
        assert_eq!(modules(text), ["model", "decode", "kernel", "track"]);
    }
}
