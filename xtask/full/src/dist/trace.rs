//! An installed program traces one connection.

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Mounts end with the namespace of the shell.
const IN_ROOT: &str =
    r#"mount --rbind /proc "$0/proc" && mount --rbind /sys "$0/sys" && exec chroot "$0" "$@""#;

/// The program in a root, with what it reads of the kernel.
pub(super) fn in_root(root: &Path) -> Command {
    let mut program = Command::new("unshare");
    program.args(["--mount", "sh", "-c", IN_ROOT]).arg(root).arg("sockstate");
    program
}

/// Fails if the program, to which only arguments are added, does not report a transition of a connection.
pub(super) fn one_connection(mut program: Command) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let port = address.port().to_string();
    // The duration only ends a trace that sees nothing.
    program.args(["trace", "--format", "json", "--count", "1", "--duration", "60s", "--port", &port]);
    let mut tracer = program.stdout(Stdio::piped()).spawn()?;
    let mut records = BufReader::new(tracer.stdout.take().context("a pipe")?).lines();
    let mut saw = false;
    while let Some(record) = records.next().transpose()? {
        if record.contains(r#""kind":"start""#) {
            drop(TcpStream::connect(address)?);
        }
        saw |= record.contains(r#""kind":"transition""#);
    }
    let status = tracer.wait()?;
    ensure!(status.success() && saw, "the program traced nothing: {status}");
    Ok(())
}
