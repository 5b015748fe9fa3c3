//! `sockstate run` with a configuration that the test writes, and connections for the daemon to trace.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{
    lab::{Story, Tracer, sockstate},
    sockets::Kind,
};

/// A daemon that traces one namespace and one port. It also writes its records to standard output, which the test
/// reads.
pub struct Daemon {
    pub tracer: Tracer,
    config: PathBuf,
    head: String,
    directory: TempDir,
}

/// For [`Daemon::start_with`]: the sinks run in a process of their own, without capabilities and with restricted calls.
pub const SPLIT: &str = "sinks-user = \"nobody\"";

impl Daemon {
    /// Starts a daemon with further sinks; DIR in `sinks` stands for the daemon's directory.
    pub fn start(netns: u64, port: u16, sinks: &str) -> Self {
        Self::start_with("", netns, port, sinks)
    }

    /// As [`Daemon::start`], with keys before the first table of the configuration.
    pub fn start_with(top: &str, netns: u64, port: u16, sinks: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let config = directory.path().join("config.toml");
        let head = format!(
            "{top}\n[filter]\nport = {port}\nnetns = {netns}\n[kernel]\nalongside = true\n[labels]\nenv = \"test\"\n\
             [sinks.console]\ntype = \"stdout\"\nbatch-time = \"1ms\"\n"
        );
        let mut daemon = Self { tracer: Tracer::spawn(&mut echo()), config, head, directory };
        daemon.configure(sinks);
        daemon.tracer = Tracer::spawn(sockstate().args(["run", "--config"]).arg(&daemon.config));
        daemon
    }

    /// Replaces the sinks in the configuration file.
    pub fn configure(&self, sinks: &str) {
        let sinks = sinks.replace("DIR", &self.directory.path().display().to_string());
        fs::write(&self.config, format!("{}{sinks}", self.head)).expect("config");
    }

    /// A file in the daemon's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ends the daemon. Returns its records and the directory that it has written to.
    pub fn stop(self) -> (Story, TempDir) {
        (self.tracer.stop(), self.directory)
    }
}

/// A command that looks like a tracer until the configuration is written.
fn echo() -> Command {
    let mut echo = Command::new("echo");
    echo.arg("{\"kind\":\"start\"}");
    echo
}

/// Makes `count` connections to `port`; the client closes every second one first.
pub fn connections(count: usize, port: u16) {
    let listener = Kind::V4.listen(port);
    for at in 0..count {
        let client = Kind::V4.connect(port).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        if at % 2 == 0 { drop((client, server)) } else { drop((server, client)) }
    }
}
