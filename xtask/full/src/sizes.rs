//! No file is longer than [`MAX_LINES`]. The limit of a function is clippy's `too_many_lines`, set in clippy.toml.

use std::fs;

use anyhow::{Result, bail};

use crate::{root, sources::rust_files};

const MAX_LINES: usize = 600;

/// The directories with our sources.
const PLACES: [&str; 4] = ["tracer/src", "tracer-ebpf/src", "tests", "xtask"];

/// Fails if a file is too long.
pub(crate) fn check() -> Result<()> {
    let mut too_long = Vec::new();
    let mut longest = 0;
    for place in PLACES {
        for file in rust_files(&root().join(place))? {
            let lines = fs::read_to_string(&file)?.lines().count();
            longest = longest.max(lines);
            if lines > MAX_LINES {
                too_long.push(format!("{} ({lines})", file.strip_prefix(root()).unwrap_or(&file).display()));
            }
        }
    }
    if !too_long.is_empty() {
        bail!("files of more than {MAX_LINES} lines: {}", too_long.join(", "));
    }
    println!("file sizes: the longest file has {longest} lines of at most {MAX_LINES}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_file_is_too_long() {
        super::check().expect("no long file");
    }
}
