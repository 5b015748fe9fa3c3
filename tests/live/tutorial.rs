//! docs/first-look.md, word for word.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{Test, lab::in_lab, test, tools};

pub(crate) fn tests() -> Vec<Test> {
    vec![test("tutorial: every command of the first look", first_look)]
}

/// What stands between ```sh and ```.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    for part in text.split("```sh\n").skip(1) {
        blocks.push(part.split("```").next().unwrap_or_default().to_owned());
    }
    blocks
}

fn first_look() {
    if tools::find("bash", "bash").is_none() || tools::find("python3", "python3").is_none() {
        return;
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = fs::read_to_string(format!("{root}/docs/first-look.md")).expect("docs");
    let binary = Path::new(env!("CARGO_BIN_EXE_sockstate"));
    let path =
        format!("{}:{}", binary.parent().expect("directory").display(), std::env::var("PATH").expect("PATH"));
    let blocks = blocks(&text);
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    // Each block says where it begins, so that what it says can be told from the others'.
    let mut script = String::from("set -e\ntrap 'kill $server 2> /dev/null || true' EXIT\n");
    for (at, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo \"== {at}\"\n{block}"));
    }
    // Another tracer of these tests' machine is nobody's concern here.
    let script = script
        .replace("sockstate --", "sockstate --alongside --")
        .replace("sockstate record", "sockstate record --alongside")
        .replace("sockstate hunt", "sockstate hunt --alongside");
    let directory = tempfile::tempdir().expect("directory");
    std::os::unix::fs::symlink(format!("{root}/docs"), directory.path().join("docs")).expect("link");
    let output = in_lab(|_| {
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(directory.path()).env("PATH", path).stdin(Stdio::null());
        bash.output().expect("bash")
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{errors}");
    let parts: Vec<&str> = said.split("== ").skip(1).collect();
    let part = |word: &str| {
        let at = blocks.iter().position(|block| block.contains(word)).expect(word);
        parts[at]
    };
    // Three of nine are left, and the server is named.
    let found = part("close-wait --older-than 1ms\n");
    assert_eq!(
        found.matches("\"state\":\"CLOSE_WAIT\"").count() + found.matches("CLOSE_WAIT  ").count(),
        3,
        "{found}"
    );
    assert!(found.contains("python3"), "{found}");
    assert!(part("explain CLOSE_WAIT").contains("no timeout ever"), "{said}");
    assert!(part("--duration 2s").matches("ESTABLISHED -> CLOSE_WAIT").count() >= 10, "{said}");
    assert!(part("grep").matches("\"kind\":\"stuck\"").count() >= 2, "{said}");
    assert!(part("hunt").contains("accept"), "{said}");
    assert!(part("replay").contains("python3"), "{said}");
}
