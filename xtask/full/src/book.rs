//! The documents as a book with a search: `mdbook` builds it, and every link in its pages is followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cargo, command, output, root};

const MDBOOK: &str = "0.5.4";

/// The files outside `docs` that are pages, or that pages link to.
const SOURCES: [&str; 12] = [
    "README.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "packaging/sockstate.toml",
    "packaging/grafana/sockstate.json",
    "packaging/prometheus/sockstate.rules.yml",
    "packaging/kubernetes/sockstate.yaml",
    "packaging/helm/sockstate/values.yaml",
    "packaging/kubectl/kubectl-sockstate",
    "packaging/systemd/sockstate.service",
];

/// Builds `target/book/html`, and fails for a link to a page, file or heading that does not exist.
pub(crate) fn build() -> Result<()> {
    let root = root();
    let book = root.join("target/book");
    if book.exists() {
        fs::remove_dir_all(&book)?;
    }
    let source = book.join("src");
    for name in SOURCES {
        copy(&root.join(name), &source.join(name))?;
    }
    copy_tree(&root.join("docs"), &source.join("docs"))?;
    fs::rename(source.join("docs/SUMMARY.md"), source.join("SUMMARY.md"))?;
    fs::rename(source.join("docs/book.toml"), book.join("book.toml"))?;
    command(Command::new(mdbook(&root)?).arg("build").arg(&book))?;
    let wrong = broken_links(&book.join("html"))?;
    ensure!(wrong.is_empty(), "the book has broken links:\n  {}", wrong.join("\n  "));
    println!("{}", book.join("html/index.html").display());
    Ok(())
}

/// The program, which is installed below `target/tools` first.
fn mdbook(root: &Path) -> Result<PathBuf> {
    let tools = root.join("target/tools");
    let program = tools.join("bin/mdbook");
    let is_there = program.exists()
        && output(Command::new(&program).arg("--version")).is_ok_and(|text| text.contains(MDBOOK));
    if !is_there {
        eprintln!("installing mdbook {MDBOOK} below target/tools; this takes a minute or two once");
        let package = format!("mdbook@{MDBOOK}");
        let flags = ["--debug", "--locked", "--no-default-features", "--features", "search", "--root"];
        command(cargo().args(["install", "--quiet", &package]).args(flags).arg(&tools))?;
    }
    Ok(program)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file without a directory")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy_tree(&entry.path(), &to)? } else { copy(&entry.path(), &to)? }
    }
    Ok(())
}

/// Links of the pages below `html` that lead nowhere, as `page: link`.
fn broken_links(html: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    read_pages(html, &mut pages)?;
    let anchors: BTreeMap<&Path, BTreeSet<&str>> = pages
        .iter()
        .map(|(path, text)| (path.as_path(), attributes(text, "id").into_iter().collect()))
        .collect();
    let mut wrong = BTreeSet::new();
    for (page, text) in &pages {
        for link in attributes(text, "href").into_iter().chain(attributes(text, "src")) {
            if link.contains("://") || link.starts_with("mailto:") || link.starts_with("data:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let file = file.split_once('?').map_or(file, |(file, _)| file);
            let target = if file.is_empty() { page.clone() } else { resolve(page, file) };
            let is_there = target.exists()
                && (anchor.is_empty()
                    || anchors.get(target.as_path()).is_none_or(|ids| ids.contains(anchor)));
            if !is_there {
                wrong.insert(format!("{}: {link}", page.strip_prefix(html).unwrap_or(page).display()));
            }
        }
    }
    Ok(wrong.into_iter().collect())
}

fn read_pages(directory: &Path, pages: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            read_pages(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "html") {
            let text = fs::read_to_string(&path)?;
            pages.insert(path, text);
        }
    }
    Ok(())
}

/// The values of an attribute, which `mdbook` always writes in double quotes.
fn attributes<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    let values = text.split(&begin).skip(1).filter_map(|rest| rest.split_once('"'));
    values.map(|(value, _)| value).collect()
}

/// `link` from `page`, without `..`.
fn resolve(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(page).to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let html = tempfile::tempdir().expect("directory");
        let write = |name: &str, text: &str| {
            let path = html.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            fs::write(path, text).expect("page");
        };
        write(
            "index.html",
            r#"<a href="docs/a.html#one">1</a> <a href="docs/a.html#two">2</a> <img src="no.svg">"#,
        );
        write(
            "docs/a.html",
            r##"<h1 id="one">1</h1> <a href="../index.html">0</a> <a href="#one">1</a> <a href="b.html">3</a>"##,
        );
        let wanted = ["docs/a.html: b.html", "index.html: docs/a.html#two", "index.html: no.svg"];
        assert_eq!(broken_links(html.path()).expect("links"), wanted);
    }
}
