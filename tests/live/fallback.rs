//! Kernels without BTF or tp_btf: the classic tracepoint.

use std::process::Command;

use crate::{
    Test,
    lab::{Tracer, in_lab, path},
    observer::{self, wait_for_states},
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("fallback: the classic tracepoint gives the same records", classic),
        test("fallback: without BTF, what is not known is null", without_btf),
        test(
            "fallback: with hidden kernel addresses there are no timers, and the start says so",
            hidden_addresses,
        ),
    ]
}

fn traffic(port: u16) {
    let (listener, client, server) = Kind::Mapped.pair(port);
    drop(client);
    wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
    drop(server);
    drop(listener);
}

fn classic() {
    observer::watch();
    let port = fresh_port();
    in_lab(|netns| {
        let best = Tracer::start(netns, &["--tier", "none"]);
        let classic = Tracer::start(netns, &["--hook", "tracepoint", "--tier", "none"]);
        traffic(port);
        let (best, classic) = (best.stop(), classic.stop());
        assert_eq!(classic.records[0]["hook"], "tracepoint");
        for (a, b) in best.transitions().zip(classic.transitions()) {
            for key in [
                "from", "to", "role", "local", "remote", "network", "owner", "netns", "cgroup", "exact",
                "errno",
            ] {
                assert_eq!(a[key], b[key], "{key}");
            }
        }
        assert_eq!(best.transitions().count(), classic.transitions().count());
        if !observer::is_there() {
            return;
        }
        let mut paths: Vec<_> = classic.connections().iter().map(|connection| path(connection)).collect();
        paths.sort();
        assert_eq!(paths, observer::paths(port, best.transitions().count()));
    });
}

/// Runs sockstate in a mount namespace that hides the kernel's BTF.
fn without_btf() {
    let port = fresh_port();
    in_lab(|_| {
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$0\" \"$@\"";
        command.args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_sockstate")]);
        let filter = port.to_string();
        let mut tracer = Tracer::spawn(command.args(["--alongside", "--format", "json", "--port", &filter]));
        traffic(port);
        tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        let story = tracer.stop();
        let start = &story.records[0];
        assert_eq!(start["hook"], "tracepoint");
        assert!(start["degraded"][0].as_str().is_some_and(|text| text.contains("no BTF")), "{start}");
        let client = story.only("client");
        assert_eq!(path(&client), ["CLOSE", "SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "CLOSE"]);
        for record in story.transitions() {
            assert!(record["netns"].is_null() && record["cgroup"].is_null(), "{record}");
        }
        assert_eq!(client[0]["owner"]["pid"], std::process::id());
        assert_eq!(client[0]["owner"]["uid"], serde_json::Value::Null);
        assert_eq!(client[0]["network"]["type"], "ipv4");
        // Without the address of the listener, the port is no evidence of the owner of a connection.
        assert!(story.only("server")[0]["owner"].is_null());
    });
}

/// A sysctl of the whole host. Its old value is restored also if the test fails.
struct HostSysctl(&'static str, String);

impl HostSysctl {
    fn set(path: &'static str, value: &str) -> Self {
        let before = std::fs::read_to_string(path).expect("sysctl");
        std::fs::write(path, value).expect("sysctl");
        Self(path, before)
    }
}

impl Drop for HostSysctl {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0, &self.1);
    }
}

fn hidden_addresses() {
    let _hidden = HostSysctl::set("/proc/sys/kernel/kptr_restrict", "2");
    let port = fresh_port();
    in_lab(|netns| {
        let tracer = Tracer::start(netns, &[]);
        traffic(port);
        let story = tracer.stop();
        let start = &story.records[0];
        if start["tier"] == "estimate" {
            let why = start["degraded"].to_string();
            assert!(why.contains("kptr_restrict"), "{start}");
        } else {
            assert!(start["tier"] == "fentry" || start["tier"] == "kprobe", "{start}");
        }
        assert_eq!(path(&story.only("client"))[..3], ["CLOSE", "SYN_SENT", "ESTABLISHED"]);
        let mut command = crate::lab::sockstate();
        command.args(["trace", "--alongside", "--tier", "timers", "--duration", "1"]);
        let output = command.output().expect("sockstate");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("kptr_restrict"), "{output:?}");
    });
}
