//! Only one sockstate traces at a time, also if it does not run as root.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    Test,
    lab::{Tracer, in_lab, sockstate},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![test("second: a user with capabilities respects the lock, and is seen by root", users)]
}

/// Gives this thread, and the processes that it starts, an own /run: another program may hold the lock of the host.
fn own_run() -> io::Result<()> {
    // SAFETY: takes a number; only this thread moves.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for arguments in
        [&["--make-rprivate", "/"][..], &["-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs", "/run"]]
    {
        if !Command::new("mount").args(arguments).status()?.success() {
            return Err(io::Error::other("mount failed"));
        }
    }
    Ok(())
}

/// A command that runs sockstate as another user with only these capabilities.
fn as_user(binary: &Path, capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    for set in ["--inh-caps", "--ambient-caps"] {
        command.arg(set).arg(capabilities);
    }
    command.arg(binary);
    command
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const TRACE: &str = "+bpf,+perfmon,+net_admin,+sys_ptrace";
const TRACE_AND_READ: &str = "+bpf,+perfmon,+net_admin,+sys_ptrace,+dac_read_search";

fn users() {
    if !Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return crate::skip("needs setpriv");
    }
    in_lab(|netns| {
        own_run().expect("a /run of its own");
        // Every user may execute this copy.
        let binary = PathBuf::from("/run/sockstate");
        fs::copy(sockstate().get_program(), &binary).expect("a copy");
        fs::write("/run/config.toml", "[sinks.out]\ntype = \"stdout\"\n").expect("config");
        fs::set_permissions("/run/config.toml", PermissionsExt::from_mode(0o644)).expect("mode");
        let netns = netns.to_string();
        let trace = ["trace", "--format", "json", "--netns", &netns, "--duration", "200ms"];
        let run = |mut command: Command| said(&command.args(trace).output().expect("sockstate"));
        // The user cannot create the lock file.
        let (code, error) = run(as_user(&binary, TRACE));
        assert_eq!(code, Some(4), "{error}");
        for words in ["cannot lock /run/sockstate.lock", "run as root", "--alongside", "chown 65534"] {
            assert!(error.contains(words), "{words}: {error}");
        }
        // Without any capability, the message names the missing capabilities.
        let (_, error) = run(as_user(&binary, "-all"));
        assert!(!error.contains("cannot lock"), "{error}");
        let root = || {
            let mut command = sockstate();
            command.args(["trace", "--format", "json", "--netns", &netns]);
            Tracer::spawn(&mut command)
        };
        let tracer = root();
        for capabilities in [TRACE, TRACE_AND_READ] {
            let words = format!("another sockstate (pid {}) is tracing", tracer.pid());
            let (code, error) = run(as_user(&binary, capabilities));
            assert_eq!(code, Some(0), "{error}");
            assert!(error.contains(&words), "{error}");
            let mut daemon = as_user(&binary, capabilities);
            daemon.args(["run", "--config", "/run/config.toml"]);
            let (code, error) = said(&daemon.output().expect("sockstate"));
            assert_eq!(code, Some(5), "{error}");
            assert!(error.contains(&words), "{error}");
            let mut beside = as_user(&binary, capabilities);
            beside.args(trace).arg("--alongside");
            let (code, error) = said(&beside.output().expect("sockstate"));
            assert_eq!(code, Some(0), "{error}");
            assert!(!error.contains("another sockstate"), "{error}");
        }
        tracer.stop();
        // No process has the lock now, and this user cannot take it.
        assert_eq!(run(as_user(&binary, TRACE)).0, Some(4));
        // A user who may read the file locks it, and root notices the lock.
        assert_seen(&binary, &netns, TRACE_AND_READ);
        // The owner of the file can lock it, too, as the message says.
        let lock = Path::new("/run/sockstate.lock");
        std::os::unix::fs::chown(lock, Some(65_534), None).expect("chown");
        assert_seen(&binary, &netns, TRACE);
        assert_eq!(fs::metadata(lock).expect("lock").permissions().mode() & 0o777, 0o600);
    });
}

/// While a user traces, root's daemon does not start.
fn assert_seen(binary: &Path, netns: &str, capabilities: &str) {
    let mut command = as_user(binary, capabilities);
    let tracer = Tracer::spawn(command.args(["trace", "--format", "json", "--netns", netns]));
    let second = sockstate().args(["run", "--config", "/run/config.toml"]).output();
    let (code, error) = said(&second.expect("sockstate"));
    assert_eq!(code, Some(5), "{error}");
    // setpriv executes sockstate in the same process.
    assert!(error.contains(&format!("(pid {})", tracer.pid())), "{error}");
    tracer.stop();
}
