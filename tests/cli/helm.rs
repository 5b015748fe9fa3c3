//! The Helm chart in packaging/helm: it renders what the manifests in packaging/kubernetes have.

use std::{fs, path::PathBuf, process::Command};

use testkit::{skipping::print_skipped, tools};

use crate::{manifests::checked_configuration, text};

fn packaging(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(path)
}

/// Helm's program with these arguments and the chart; `None`, and a line about it, where there is no Helm.
fn helm(arguments: &[&str]) -> Option<Command> {
    let Some(mut helm) = tools::find("helm", "cargo xtask setup") else {
        print_skipped("the chart: needs helm: cargo xtask setup");
        return None;
    };
    helm.args(arguments).arg(packaging("helm/sockstate"));
    Some(helm)
}

/// What Helm renders with these values.
fn rendered(values: &[&str]) -> Option<String> {
    let mut helm = helm(&["template", "--namespace", "sockstate", "sockstate"])?;
    helm.args(values.iter().flat_map(|value| ["--set", value]));
    let output = helm.output().expect("helm");
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(text(&output.stdout))
}

const ALL: [&str; 6] = [
    "namespace.create=true",
    "podMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "rbac.readers[0].kind=Group,rbac.readers[0].name=a,rbac.readers[0].apiGroup=rbac.authorization.k8s.io",
    "rbac.operators[0].kind=User,rbac.operators[0].name=b,rbac.operators[0].apiGroup=rbac.authorization.k8s.io",
];

/// Prints the kinds of the objects of both that are equal, and fails for a different one. Helm's own labels, the checksum
/// and the default of the pull policy are not compared.
const COMPARE: &str = "\
import sys, yaml
OWN = ('app.kubernetes.io/instance', 'app.kubernetes.io/version', 'app.kubernetes.io/managed-by', 'helm.sh/chart', 'checksum/config')
def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: plain(item) for key, item in value.items() if key not in OWN and key != 'imagePullPolicy'}
    return {key: item for key, item in kept.items() if key not in ('labels', 'annotations') or item}
def objects(paths):
    manifests = [manifest for path in paths for manifest in yaml.safe_load_all(open(path)) if manifest]
    return {(item['kind'], item['metadata']['name']): plain(item) for item in manifests}
chart, others = objects(sys.argv[1:2]), objects(sys.argv[2:])
for key, manifest in others.items():
    if key in chart:
        ours = dict(manifest, metadata=dict(manifest['metadata']))
        theirs = chart.pop(key)
        # The manifests leave out labels of some objects.
        if 'labels' not in ours['metadata'] or key[0] == 'Namespace':
            for item in (ours, theirs):
                labels = item['metadata'].pop('labels', {})
                item['metadata']['level'] = labels.get('pod-security.kubernetes.io/enforce')
        assert ours == theirs, (key, ours, theirs)
        print('same', key[0])
for kind, name in chart:
    print('more', kind, name)
";

/// Strictly: a key that Kubernetes does not know is an error. The Prometheus operator's kinds have no schema here.
const VALIDATE: &str = "\
import sys, yaml, kubernetes_validate
for manifest in yaml.safe_load_all(open(sys.argv[1])):
    if manifest and not manifest['apiVersion'].startswith('monitoring.coreos.com/'):
        kubernetes_validate.validate(manifest, '1.34', strict=True)
";

#[test]
fn the_chart_renders_the_manifests() {
    for (values, expected) in [
        (&[][..], "same ServiceAccount\nsame ConfigMap\nsame DaemonSet\n"),
        (
            &ALL,
            "same Namespace\nsame ServiceAccount\nsame ConfigMap\nsame DaemonSet\nsame PodMonitor\nsame PrometheusRule\n\
             more ConfigMap sockstate-dashboard\nmore Role sockstate-operators\nmore Role sockstate-readers\n\
             more RoleBinding sockstate-operators\nmore RoleBinding sockstate-readers\n",
        ),
    ] {
        let Some(rendered) = rendered(values) else { return };
        let Some(mut python) = tools::python("yaml") else {
            return print_skipped("the chart: needs Python's yaml");
        };
        let plain = ["sockstate.yaml", "pod-monitor.yaml", "prometheus-rule.yaml"];
        compare(&mut python, &rendered, &plain, expected);
    }
}

/// Compares with manifests, and validates.
fn compare(python: &mut Command, rendered: &str, plain: &[&str], expected: &str) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("chart.yaml");
    fs::write(&path, rendered).expect("file");
    let plain = plain.iter().map(|name| packaging("kubernetes").join(name));
    let output = python.args(["-c", COMPARE]).arg(&path).args(plain).output().expect("python");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    let mut expected: Vec<&str> = expected.lines().collect();
    lines.sort();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    let Some(mut python) = tools::python("kubernetes_validate") else { return };
    let output = python.args(["-c", VALIDATE]).arg(&path).output().expect("python");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_chart_lets_sockstate_ask_the_api_server() {
    let values = ["kubernetes.enabled=true", "kubernetes.labels={app,app.kubernetes.io/*}"];
    let Some(rendered) = rendered(&values) else { return };
    assert!(rendered.contains("automountServiceAccountToken: true"), "{rendered}");
    let config = checked_configuration(&rendered);
    let keys: toml::Table = config.parse().expect("TOML");
    let labels = keys["kubernetes"]["labels"].as_array().expect("labels");
    assert_eq!(
        labels.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>(),
        ["app", "app.kubernetes.io/*"]
    );
    let Some(without) = self::rendered(&["kubernetes.enabled=true,kubernetes.owners=false"]) else { return };
    assert!(rendered.contains("resources: [jobs]") && !without.contains("resources: [jobs]"), "{without}");
    let Some(peers) = self::rendered(&["kubernetes.enabled=true,kubernetes.peers=true"]) else { return };
    let keys: toml::Table = checked_configuration(&peers).parse().expect("TOML");
    assert_eq!(keys["kubernetes"]["peers"].as_bool(), Some(true));
    assert!(peers.contains("resources: [pods, services]") && !rendered.contains("services]"), "{peers}");
    let Some(mut python) = tools::python("yaml") else {
        return print_skipped("the chart: needs Python's yaml");
    };
    let expected = "same ClusterRole\nsame ClusterRoleBinding\nmore ServiceAccount sockstate\nmore ConfigMap sockstate\n\
                    more DaemonSet sockstate\n";
    compare(&mut python, &rendered, &["api-server.yaml"], expected);
}

#[test]
fn helm_finds_no_fault_in_the_chart() {
    let Some(mut helm) = helm(&["lint", "--strict"]) else { return };
    let output = helm.output().expect("helm");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_values_of_the_chart_are_used() {
    let values = [
        "image.repository=registry.example/sockstate,image.tag=1.2.3,image.pullPolicy=Always",
        "image.pullSecrets[0].name=secret,resources.requests.memory=123Mi",
        "paths.lock=/run/other.lock,paths.runtime=/run/other,metricsPort=9999",
        "tolerations[0].key=only,priorityClassName=mine",
        "podLabels.team=net,podAnnotations.note=x",
    ];
    let Some(rendered) = rendered(&values) else { return };
    for words in [
        "image: registry.example/sockstate:1.2.3",
        "imagePullPolicy: Always",
        "imagePullSecrets:\n        - name: secret",
        "memory: 123Mi",
        "lock = \"/run/other.lock\"",
        "name: lock, mountPath: /run/other.lock }",
        "runtime-dir = \"/run/other\"",
        "name: run, hostPath: { path: /run/other,",
        "metrics = \"0.0.0.0:9999\"",
        "containerPort: 9999",
        "- key: only",
        "priorityClassName: mine",
        "team: net",
        "note: x",
    ] {
        assert!(rendered.contains(words), "{words}: {rendered}");
    }
    assert!(!rendered.contains("Exists"), "{rendered}");
    checked_configuration(&rendered);
}

/// A chart has its own copies of what it puts into objects.
#[test]
fn the_files_of_the_chart_are_those_of_the_packages() {
    for (copy, original) in
        [("dashboard.json", "grafana/sockstate.json"), ("rules.yml", "prometheus/sockstate.rules.yml")]
    {
        let read = |path: PathBuf| fs::read_to_string(path).expect("a packaged file");
        let copy = read(packaging("helm/sockstate/files").join(copy));
        assert_eq!(copy, read(packaging(original)), "{original}: cargo xtask generate");
    }
}
