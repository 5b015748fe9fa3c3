//! Files of a configuration that are not regular files: refused, without waiting for them.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{check::ConfigDirectory, text};

fn make_pipe(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
}

/// The exit code and the output of `run --check` for a configuration. The command must not take a minute.
fn check(config: &Path) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sockstate"))
        .args(["run", "--check", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sockstate");
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() > end {
            child.kill().expect("kill");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("output");
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_pipe_or_a_device_where_a_file_belongs_is_refused_at_once() {
    let directory = ConfigDirectory::new();
    let pipe = directory.root().join("pipe");
    make_pipe(&pipe);
    let http = "[sinks.a]\ntype = \"http\"\nurl = \"https://localhost\"\n";
    let file = "[sinks.a]\ntype = \"stdout\"\n";
    let foreign = [pipe.to_str().expect("UTF-8"), "/dev/zero", "/dev/ptmx"];
    for path in foreign {
        for (config, key) in [
            (format!("{http}authorization-file = \"{path}\"\n"), "authorization-file"),
            (format!("{http}tls-ca = \"{path}\"\n"), "tls-ca"),
            (format!("[kernel]\nbtf = \"{path}\"\n{file}"), "btf"),
        ] {
            let name = directory.root().join("c.toml");
            fs::write(&name, config).expect("config");
            let (code, said) = check(&name);
            assert_eq!(code, Some(1), "{key} = {path}: {said}");
            assert!(said.contains("not a regular file") && said.contains(path), "{key} = {path}: {said}");
        }
        let (code, said) = check(Path::new(path));
        assert!(matches!(code, Some(1 | 2)) && said.contains("not a regular file"), "{path}: {said}");
    }
    // A huge file with holes is not read into memory.
    let huge = directory.root().join("huge");
    fs::File::create(&huge).and_then(|file| file.set_len(1 << 40)).expect("a hole");
    let name = directory.root().join("c.toml");
    fs::write(&name, format!("[kernel]\nbtf = \"{}\"\n{file}", huge.display())).expect("config");
    let (code, said) = check(&name);
    assert!(code == Some(1) && said.contains("more than 256 MiB"), "{said}");
}

#[test]
fn a_pipe_that_the_process_was_given_is_read() {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let config = "[sinks.a]\ntype = \"stdout\"\n";
    let write = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        std::io::Write::write_all(&mut { writer }, config.as_bytes())
    });
    let output = Command::new(env!("CARGO_BIN_EXE_sockstate"))
        .args(["run", "--check", "--config", "/dev/stdin"])
        .stdin(reader)
        .output()
        .expect("sockstate");
    write.join().expect("thread").expect("write");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn files_with_records_are_not_for_everybody() {
    let directory = tempfile::tempdir().expect("directory");
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/recordings/sockstate-1.ndjson");
    for command in
        [&["report"][..], &["timeline", "--format", "svg"], &["diagram", "--format", "svg", "--from"]]
    {
        let path = directory.path().join("out");
        let mut sockstate = Command::new(env!("CARGO_BIN_EXE_sockstate"));
        sockstate.args(command).arg(recording).arg("--output").arg(&path);
        // SAFETY: sets a number of the child's.
        unsafe {
            sockstate.pre_exec(|| {
                libc::umask(0);
                Ok(())
            });
        }
        let output = sockstate.output().expect("sockstate");
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o640, "{command:?}");
        fs::remove_file(path).expect("remove");
    }
}
