//! Programs that tests run: from PATH, or unpacked by `cargo xtask setup`.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::{lab::signal, skipping::skip};

/// The directory that `cargo xtask setup` has unpacked programs into.
fn root() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools").into()
}

/// A command that runs `program` with the libraries that it was unpacked with. `None`, and the test is skipped, if the
/// program is missing.
pub fn find(program: &str, package: &str) -> Option<Command> {
    let root = root();
    let places = ["usr/bin", "usr/sbin", "python/bin", "bin"].map(|place| root.join(place).join(program));
    let mut command = match places.iter().find(|path| path.exists()) {
        Some(path) => Command::new(path),
        None if is_in_path(program) => Command::new(program),
        None => {
            skip(&format!("needs {program} ({package})"));
            return None;
        }
    };
    let libraries = ["usr/lib", "lib"].map(|place| root.join(place).join(triplet()));
    let all = libraries.into_iter().chain([root.join("usr/lib/syslog-ng")]);
    let all: Vec<String> = all.map(|path| path.display().to_string()).collect();
    command.env("LD_LIBRARY_PATH", all.join(":"));
    Some(command)
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A command that runs the Python that `cargo xtask setup` has installed `package` into.
pub fn python(package: &str) -> Option<Command> {
    let python = root().join("python/bin/python");
    let has = Command::new(&python).args(["-c", &format!("import {package}")]).output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(Command::new(python));
    }
    skip(&format!("needs Python's {package}: cargo xtask setup"));
    None
}

/// Debian's name for directories of this architecture.
pub fn triplet() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// A path below the directory of the unpacked programs.
pub fn below(path: &str) -> String {
    root().join(path).display().to_string()
}

/// A running program that is killed at the end of the test.
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("a program that can be found starts"))
    }

    pub fn signal(&self, number: i32) {
        signal(self.0.id(), number);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
