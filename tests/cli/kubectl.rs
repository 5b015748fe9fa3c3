//! The plugin of kubectl in packaging/kubectl, with a kubectl that writes down what it is asked.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use testkit::{
    lab::{signal, wait_until},
    skipping::print_skipped,
    tools,
};

use crate::text;

/// Answers from the files of its directory; `logs` waits as long as there is a file `hold`.
const KUBECTL: &str = r#"#!/bin/sh
cd "${0%/*}" || exit 1
printf '%s\n' "$*" >>asked
case $* in
*daemonset*) cat image ;;
*nodeName*) printf 'shop worker-1' ;;
*create*) cat >manifest ;;
*jsonpath=*phase*) cat state ;;
*logs*)
    echo $$ >pid
    [ ! -e hold ] || exec sleep 600
    echo answer
    ;;
esac
"#;

/// A directory with that kubectl and its answers.
struct Cluster(tempfile::TempDir);

impl Cluster {
    fn new(state: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        for (name, content) in
            [("kubectl", KUBECTL), ("image", "registry.example/sockstate:1"), ("state", state)]
        {
            fs::write(directory.path().join(name), content).expect("file");
        }
        let program = directory.path().join("kubectl");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("mode");
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn plugin(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("env");
        // A shell cannot trap a signal that this process ignores, as one that runs in the background does.
        command.args(["--default-signal=HUP,INT,TERM", "sh"]);
        command.arg(plugin()).args(arguments).env("KUBECTL", self.path("kubectl"));
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.plugin(arguments).output().expect("sh")
    }

    /// The plugin has made one pod, and has asked to remove it as the last thing.
    fn assert_removed(&self) {
        let manifest: Value = serde_json::from_str(&self.read("manifest")).expect("JSON");
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        let asked = self.read("asked");
        let delete = format!("--namespace sockstate delete pod {name} --ignore-not-found --wait=false");
        assert_eq!(asked.lines().last(), Some(delete.as_str()), "{asked}");
        assert_eq!(asked.matches(" delete ").count(), 1, "{asked}");
    }
}

fn plugin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubectl/kubectl-sockstate")
}

#[test]
fn a_question_about_a_pod_is_asked_on_its_node() {
    let cluster = Cluster::new("Succeeded 0");
    let output =
        cluster.ask(&["-n", "shop", "--pod=web-0", "--context", "test", "close-wait", "--comm", "a\"b\\c d"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "answer\n");
    let manifest: Value = serde_json::from_str(&cluster.read("manifest")).expect("JSON");
    let pod = &manifest["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["nodeName"], "worker-1");
    assert_eq!(container["image"], "registry.example/sockstate:1");
    let expected = ["close-wait", "--comm", "a\"b\\c d", "--pod", "shop/web-0"];
    assert_eq!(container["args"], serde_json::json!(expected));
    // The cluster ends the pod, too.
    assert_eq!((&pod["activeDeadlineSeconds"], &pod["restartPolicy"]), (&900.into(), &"Never".into()));
    let daemon =
        fs::read_to_string(plugin().with_file_name("../kubernetes/sockstate.yaml")).expect("manifest");
    for capability in container["securityContext"]["capabilities"]["add"].as_array().expect("capabilities") {
        let line = format!("- {}\n", capability.as_str().expect("a name"));
        assert!(daemon.contains(&line), "{line}");
    }
    assert!(cluster.read("asked").lines().all(|line| line.starts_with("--context=test ")));
    let asked = cluster.read("asked").replace("--context=test ", "");
    fs::write(cluster.path("asked"), asked).expect("file");
    cluster.assert_removed();
    let Some(mut python) = tools::python("kubernetes_validate") else {
        return print_skipped(
            "the pod of kubectl sockstate: needs Python's kubernetes_validate: cargo xtask setup",
        );
    };
    let check = "import json, sys, kubernetes_validate\n\
                 kubernetes_validate.validate(json.load(open(sys.argv[1])), '1.34', strict=True)";
    let output = python.args(["-c", check]).arg(cluster.path("manifest")).output().expect("python");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_exit_status_is_that_of_sockstate() {
    for (state, code) in [("Succeeded 0", 0), ("Failed 3", 3)] {
        let cluster = Cluster::new(state);
        let output = cluster.ask(&["--node", "n", "--image", "mine:1", "--in", "sockstate"]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let manifest: Value = serde_json::from_str(&cluster.read("manifest")).expect("JSON");
        assert_eq!(manifest["spec"]["containers"][0]["args"], serde_json::json!(["stuck"]));
        assert_eq!(manifest["spec"]["containers"][0]["image"], "mine:1");
        assert!(!cluster.read("asked").contains("daemonset"));
        cluster.assert_removed();
    }
}

#[test]
fn the_pod_is_removed_when_the_plugin_is_interrupted() {
    for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let cluster = Cluster::new("Running ");
        fs::write(cluster.path("hold"), "").expect("file");
        let mut command = cluster.plugin(&["--node", "n", "trace"]);
        let plugin = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("sh");
        wait_until("it follows the output", || cluster.read("pid").ends_with('\n'));
        signal(plugin.id(), number);
        let output = plugin.wait_with_output().expect("wait");
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        cluster.assert_removed();
        let follower = Path::new("/proc").join(cluster.read("pid").trim());
        wait_until("kubectl logs has ended", || !follower.exists());
    }
}

#[test]
fn a_pod_that_does_not_start_is_removed_with_the_reason() {
    for (state, options, words) in [
        (
            "Pending ImagePullBackOff",
            &[][..],
            "does not start on n: ImagePullBackOff (image registry.example",
        ),
        ("Pending CreateContainerConfigError", &[], "CreateContainerConfigError"),
        (
            "Pending ContainerCreating",
            &["--wait", "0"],
            "has not started on n after 0 s (Pending ContainerCreating)",
        ),
        ("Failed ", &[], "the pod was ended (Failed )"),
    ] {
        let cluster = Cluster::new(state);
        let output = cluster.ask(&[options, &["--node", "n"]].concat());
        assert_eq!(output.status.code(), Some(1), "{state}");
        assert!(text(&output.stderr).contains(words), "{words}: {}", text(&output.stderr));
        cluster.assert_removed();
    }
}

#[test]
fn bad_arguments_reach_no_cluster() {
    let cluster = Cluster::new("Succeeded 0");
    for arguments in [
        &[][..],
        &["stuck"],
        &["--node"],
        &["--node", "n", "--pod", "p"],
        &["--node", "n", "--wait", "1m"],
        &["--nodes", "n"],
        &["--node", "n", "--image", "i", "stuck", "a\nb"],
    ] {
        let output = cluster.ask(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).starts_with("kubectl sockstate: "), "{arguments:?}");
    }
    assert_eq!(cluster.read("asked"), "");
    let help = cluster.ask(&["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("Usage: kubectl sockstate"));
}

#[test]
fn shellcheck_finds_no_fault_in_the_plugin() {
    let Some(mut shellcheck) = tools::find("shellcheck", "shellcheck") else {
        return print_skipped("the plugin of kubectl: needs shellcheck");
    };
    let output = shellcheck.arg("--shell=sh").arg(plugin()).output().expect("shellcheck");
    assert!(output.status.success(), "{}", text(&output.stdout));
}
