//! Checks that files of the tracer do not use each other in a circle. A file uses another file if it names a path into
//! that file: `crate::module::file::Item`, `super::file::Item`, or `file::Item` for a child module. An item of the
//! parent module itself (`super::Item`) does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Result, bail};

use crate::{
    root,
    sources::{rust_files, without_comments},
};

/// What each file uses; a file is named by its module, such as `kernel/load`.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Fails if files use each other in a circle.
pub(crate) fn check() -> Result<()> {
    let source = root().join("tracer/src");
    let mut texts = BTreeMap::new();
    for file in rust_files(&source)? {
        let name = file.strip_prefix(&source).unwrap_or(&file).with_extension("").display().to_string();
        let name = name.strip_suffix("/mod").unwrap_or(&name).to_owned();
        texts.insert(name, without_tests(&without_comments(&fs::read_to_string(&file)?)).to_owned());
    }
    let circles = circles(uses(&texts));
    if !circles.is_empty() {
        let list: Vec<String> = circles
            .iter()
            .map(|(name, used)| {
                let used: Vec<&str> = used.iter().map(String::as_str).collect();
                format!("{name} uses {}", used.join(", "))
            })
            .collect();
        bail!("files use each other in a circle: {}", list.join("; "));
    }
    println!("circles between files: none, among {} files", texts.len());
    Ok(())
}

/// The text up to the tests within the file.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

fn uses(texts: &BTreeMap<String, String>) -> Uses {
    let files: BTreeSet<&str> = texts.keys().map(String::as_str).collect();
    let used = |name: &str, text: &str| {
        let found = paths(text).into_iter().filter_map(|path| resolve(&files, name, &path));
        found.filter(|used| used != name).collect()
    };
    texts.iter().map(|(name, text)| (name.clone(), used(name, text))).collect()
}

/// Removes every file that uses no remaining file, or that no remaining file uses, until only the circles remain.
fn circles(mut uses: Uses) -> Uses {
    loop {
        let used: BTreeSet<String> = uses.values().flatten().cloned().collect();
        let count = uses.len();
        uses.retain(|name, used_by_it| used.contains(name) && !used_by_it.is_empty());
        if uses.len() == count {
            return uses;
        }
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        for used_by_it in uses.values_mut() {
            used_by_it.retain(|name| left.contains(name));
        }
    }
}

/// The file that a path in the file `name` leads into.
fn resolve(files: &BTreeSet<&str>, name: &str, path: &[String]) -> Option<String> {
    let mut place: Vec<&str> = name.split('/').collect();
    let mut rest = path.iter().map(String::as_str).peekable();
    match *rest.peek()? {
        "crate" => {
            rest.next();
            place.clear();
        }
        "self" => {
            rest.next();
        }
        "super" => {
            while rest.next_if_eq(&"super").is_some() {
                place.pop();
            }
        }
        child if files.contains(&*format!("{name}/{child}")) => {}
        // Another crate, or an item that is in scope.
        _ => return None,
    }
    let mut found = None;
    for segment in rest {
        place.push(segment);
        let file = place.join("/");
        if files.contains(&*file) {
            found = Some(file);
        }
    }
    found
}

/// Every path of a `use` item, and every other path that begins with `crate`, `self` or `super`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let visible = line.trim_start();
        let item = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|word| visible.strip_prefix(word));
        if let Some(first) = item.unwrap_or(visible).strip_prefix("use ") {
            let begin = at + line.len() - first.len();
            let tree = text[begin..].split(';').next().unwrap_or_default();
            expand(&[], tree, &mut found);
        }
        at += line.len();
    }
    for word in ["crate::", "self::", "super::"] {
        for (at, _) in text.match_indices(word) {
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let end = text[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = &text[at..end.map_or(text.len(), |end| at + end)];
            found.push(path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect());
        }
    }
    found
}

/// The paths of a `use` with its groups.
fn expand(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let (mut depth, mut begin) = (0, 0);
    let ends = tree.char_indices().filter(|(_, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        *c == ',' && depth == 0
    });
    let ends: Vec<usize> = ends.map(|(at, _)| at).chain([tree.len()]).collect();
    for end in ends {
        let part = tree[begin..end].trim();
        begin = (end + 1).min(tree.len());
        let (path, group) = match part.split_once('{') {
            Some((path, group)) => (path, group.strip_suffix('}')),
            None => (part.split(" as ").next().unwrap_or_default(), None),
        };
        let names = path.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
        let path: Vec<String> = prefix.iter().cloned().chain(names).collect();
        match group {
            Some(group) => expand(&path, group, found),
            None => found.push(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let texts = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        circles(uses(&texts)).into_keys().collect()
    }

    #[test]
    fn circles_are_found_through_every_form_of_path() {
        for (first, second) in [
            ("use super::b::Item;", "use super::a;"),
            ("use crate::{\n    room::b::{self, Item},\n    floor,\n};", "fn f() { super::a::g(); }"),
            ("pub(crate) use crate::{\n    other,\n    room::b as x,\n};", "$crate::room::a::g();"),
        ] {
            let files = [("room", "mod a;\npub use a::Item;"), ("room/a", first), ("room/b", second)];
            assert_eq!(circles_of(&files), ["room/a", "room/b"], "{first}");
        }
        let files = [("room", "use child::X;"), ("room/child", "use crate::room::Y;")];
        assert_eq!(circles_of(&files), ["room", "room/child"]);
    }

    #[test]
    fn what_leads_in_one_direction_is_no_circle() {
        let files = [
            ("room", "pub use a::Item;\npub use b::Other;"),
            ("room/a", "use super::{Other, b::Thing};\nuse a::x;\nlet myself::b = own_super::a;"),
            ("room/b", "use std::fmt;\nuse crate::floor::Word;"),
            ("floor", "pub struct Word;"),
        ];
        assert!(circles_of(&files).is_empty());
    }

    #[test]
    fn the_tracer_has_no_circle() {
        check().expect("no circle");
    }

    #[test]
    fn tests_within_a_file_may_use_everything() {
        assert_eq!(without_tests("use a;\n#[cfg(test)]\nmod tests {\n    use super::b;\n}"), "use a;\n");
    }
}
