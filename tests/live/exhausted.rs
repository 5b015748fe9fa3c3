//! A daemon whose cgroup has no room for another thread.

use std::fs;

use crate::{
    Test,
    collectors::json,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{in_lab, signal, wait_until},
    look_test,
    resolving::Pids,
    sockets::{Kind, fresh_port},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![look_test("exhausted: a full pids cgroup and a stuck socket do not stop the daemon", full_pids)]
}

fn full_pids() {
    in_lab(|netns| {
        let Some(pids) = Pids::new() else { return crate::skip("needs the cgroup controller pids") };
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let head = "[stuck]\nthreshold = [\"CLOSE_WAIT=0\"]\n";
        let rotated = "[sinks.rotated]\ntype = \"file\"\npath = \"DIR/rotated/r\"\nrotate-size = \"16K\"\nzstd = true\n";
        let sinks = format!("{head}{FILE}{rotated}");
        let mut daemon = Raw::start(netns, &sinks.replace(rotated, ""), |command| {
            command.stderr(stderr);
        });
        daemon.wait_for("\"kind\":\"start\"");
        fs::create_dir(daemon.path("rotated")).expect("mkdir");
        daemon.write(&sinks);
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("the second sink begins", || daemon.path("rotated/r").exists());
        pids.take(daemon.pid());
        pids.limit("1");
        let said = || fs::read_to_string(errors.path()).expect("messages");
        let stuck = |port: u16| {
            let text = fs::read_to_string(daemon.path("out")).unwrap_or_default();
            let mut records = text.lines().filter_map(json);
            records.find(|record| record["kind"] == "stuck" && record["local"]["port"] == port)
        };
        let close_wait = || {
            let port = fresh_port();
            let (_listener, client, server) = Kind::V4.pair(port);
            drop(client);
            wait_until("the stuck socket is reported", || stuck(port).is_some());
            let found = stuck(port).expect("record");
            drop(server);
            found
        };
        // The threads that make looks are running already, and start no other threads.
        let pid = u64::from(std::process::id());
        let holders = |found: &serde_json::Value| {
            found["holders"].as_array().is_some_and(|all| all.iter().any(|holder| holder["pid"] == pid))
        };
        let found = close_wait();
        assert!(holders(&found), "{found}");
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("a reload is refused", || {
            let text = said();
            text.contains("cannot start a thread to read ") && text.contains("; going on as before")
        });
        connections(40, fresh_port());
        daemon.wait_for("\"to\":\"TIME_WAIT\"");
        wait_until("the compressor is missed", || said().contains("cannot start a thread to compress "));
        pids.limit("max");
        let found = close_wait();
        assert!(holders(&found), "{found}");
        daemon.write(&format!("{sinks}[sinks.third]\ntype = \"file\"\npath = \"DIR/third\"\n"));
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("a reload is obeyed", || daemon.path("third").exists());
        connections(40, fresh_port());
        let old = || -> Vec<String> {
            let entries = fs::read_dir(daemon.path("rotated")).expect("directory");
            let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
            names.filter(|name| name != "r").collect()
        };
        wait_until("what was not compressed is", || {
            old().len() > 1 && old().iter().all(|name| name.ends_with(".zst"))
        });
        assert!(daemon.end_now().success());
        assert!(!said().contains("panicked"), "{}", said());
    });
}
