//! The manifests for Kubernetes in packaging/kubernetes.

use std::{fs, path::PathBuf, process::Command};

use testkit::{skipping::print_skipped, tools};

use crate::text;

fn manifests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes")
}

/// Strictly: a key that Kubernetes does not know is an error.
const VALIDATE: &str = "\
import sys, yaml, kubernetes_validate
for manifest in yaml.safe_load_all(open(sys.argv[1])):
    kubernetes_validate.validate(manifest, '1.34', strict=True)
    print(manifest['kind'])
";

/// The Prometheus operator's kinds have no schema here.
#[test]
fn the_manifests_are_valid() {
    for (name, kinds) in [
        ("sockstate.yaml", "Namespace\nServiceAccount\nConfigMap\nDaemonSet\n"),
        ("api-server.yaml", "ClusterRole\nClusterRoleBinding\n"),
    ] {
        let Some(mut python) = tools::python("kubernetes_validate") else {
            return print_skipped("the manifests: needs Python's kubernetes_validate: cargo xtask setup");
        };
        let output = python.args(["-c", VALIDATE]).arg(manifests().join(name)).output().expect("python");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), kinds, "{name}");
    }
}

/// The configuration in the ConfigMap of `manifest`, which sockstate takes.
pub(crate) fn checked_configuration(manifest: &str) -> String {
    let block = manifest.split("  sockstate.toml: |\n").nth(1).expect("a configuration");
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let config: String = lines.map(|line| format!("{}\n", line.trim_start())).collect();
    assert!(config.contains("metrics = "), "{config}");
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("sockstate.toml");
    fs::write(&path, &config).expect("configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockstate"));
    command.args(["run", "--check", "--config", &path.to_string_lossy()]);
    // As in a pod.
    let environment = [
        ("NODE_NAME", "node-1"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];
    let output = command.envs(environment).output().expect("sockstate");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    config
}

#[test]
fn sockstate_takes_the_configuration_of_the_manifest() {
    let manifest = fs::read_to_string(manifests().join("sockstate.yaml")).expect("manifest");
    let config = checked_configuration(&manifest);
    // The pods of an update find what these keys name at the same place of the node.
    let keys: toml::Table = config.parse().expect("TOML");
    for path in [&keys["runtime-dir"], &keys["kernel"]["lock"]].map(|path| path.as_str().expect("a path")) {
        let volume = |part: &str| manifest.lines().find(|line| line.contains(part)).expect("a line").trim();
        let mount = volume(&format!("mountPath: {path} }}"));
        let name = mount.trim_start_matches("- { name: ").split(',').next().expect("a name");
        assert!(volume(&format!("{{ name: {name}, hostPath")).contains(&format!("path: {path},")), "{path}");
    }
}
