//! Golden files: outputs that people have looked at. A different output is a failure; with UPDATE_GOLDEN=1 it replaces
//! the file.

use std::{fs, path::PathBuf};

/// A file below `tests`.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)
}

/// Fails if `text` is not the content of the golden file `name`.
pub fn check(name: &str, text: &str) {
    let path = file("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).expect("write");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    if kept == text {
        return;
    }
    let line = kept.lines().zip(text.lines()).position(|(kept, now)| kept != now);
    let line = line.unwrap_or(kept.lines().count().min(text.lines().count()));
    let show = |text: &str| text.lines().nth(line).unwrap_or("the end").to_owned();
    panic!(
        "{name}, line {}: was\n{}\nand is\n{}\nIf that is right: UPDATE_GOLDEN=1",
        line + 1,
        show(&kept),
        show(text)
    );
}
