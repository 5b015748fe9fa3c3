//! Pythons of this machine: those of PATH, and pyenv's.

use std::process::{Command, Stdio};

/// The Pythons for which this expression is true: each version once, the newest first.
pub fn all(wanted: &str) -> Vec<String> {
    let said = |args: &[&str]| {
        let output = Command::new("pyenv").args(args).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let of_pyenv = |version: &&str| {
        let prefix = said(&["prefix", &said(&["latest", version])?])?;
        Some(format!("{prefix}/bin/python3"))
    };
    let of_path = ["python3.14", "python3.13", "python3.12", "python3"].map(str::to_owned);
    let mut seen = Vec::new();
    let mut is_wanted = |name: &String| {
        // The expression must not try a feature out, which might leave files behind.
        let code = format!("import sys, sysconfig\nif {wanted}: print(sys.version_info[:2])");
        let output = Command::new(name).args(["-c", &code]).stderr(Stdio::null()).output();
        let Ok(output) = output else { return false };
        let is_new = !output.stdout.is_empty() && !seen.contains(&output.stdout);
        seen.push(output.stdout);
        is_new
    };
    let candidates = of_path.into_iter().chain(["3.14", "3.13", "3.12"].iter().filter_map(of_pyenv));
    candidates.filter(|name| is_wanted(name)).collect()
}
