//! Trees of files as the kubelet and container runtimes write them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex, mpsc::channel},
    thread,
    time::Duration,
};

use super::{Catalog, NamesThread, WorkloadIds, WorkloadNames};
use crate::{
    enrich::{Enricher, container::CgroupNames},
    model::{Identify, OwnerKey, OwnerSource, SubjectKey, Task},
};

const ID: &str = "3f1c0e6ad1f7c2f5c1d64c4a50b6f3a0a9b64c5d3c3b0c6e8d4cbb4b1a2f9e77";
const OTHER: &str = "b0b47276ea66ee9f44cc53afa94d7980b57a52c3f306f68cb034e58d9fbd3c60";
const POD: &str = "abcd1234-12ab-34cd-56ef-0123456789ab";
/// The uid of a static pod is the hash of its manifest.
const STATIC: &str = "0123456789abcdef0123456789abcdef";
const CONTAINERD: &str = "run/containerd/io.containerd.runtime.v2.task";

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
    fs::write(path, content).expect("file");
}

/// Name and image of the container, name and namespace of the pod.
type Found = [Option<String>; 4];

fn found(catalog: &mut Catalog, cgroup: &str) -> Found {
    let mut names = CgroupNames::of(cgroup);
    catalog.complete(&mut names);
    let container = names.container.map(|container| (container.name, container.image));
    let pod = names.pod.map(|pod| (pod.name, pod.namespace));
    let (name, image) = container.unwrap_or_default();
    let (pod, namespace) = pod.unwrap_or_default();
    [name, image, pod, namespace]
}

fn texts(texts: [&str; 4]) -> Found {
    texts.map(|text| (!text.is_empty()).then(|| text.to_owned()))
}

/// A tree of files, and what it says about the workload of a cgroup.
struct Tree {
    about: &'static str,
    cgroup: String,
    files: Vec<(String, String)>,
    found: [&'static str; 4],
}

fn tree(about: &'static str, cgroup: String, files: &[(String, String)], found: [&'static str; 4]) -> Tree {
    Tree { about, cgroup, files: files.to_vec(), found }
}

fn in_pod() -> String {
    format!("/kubepods/burstable/pod{POD}/{ID}")
}

/// A directory of the kubelet for a container of the pod.
fn logs(container: &str) -> (String, String) {
    (format!("var/log/pods/shop_web-1_{POD}/{container}/0.log"), String::new())
}

fn link(container: &str, id: &str) -> (String, String) {
    (format!("var/log/containers/web-1_shop_{container}-{id}.log"), String::new())
}

fn containerd(kind: &str, uid: &str) -> (String, String) {
    let config = format!(
        r#"{{"ociVersion":"1.2.1","process":{{"env":["TOKEN=secret"]}},"annotations":{{
        "io.kubernetes.cri.container-name":"app","io.kubernetes.cri.container-type":"{kind}",
        "io.kubernetes.cri.image-name":"docker.io/library/nginx:1.27","io.kubernetes.cri.sandbox-name":"web-1",
        "io.kubernetes.cri.sandbox-namespace":"shop","io.kubernetes.cri.sandbox-uid":"{uid}"}}}}"#
    );
    (format!("{CONTAINERD}/k8s.io/{ID}/config.json"), config)
}

/// What docker writes, with these labels.
fn docker(name: &str, image: &str, labels: &str) -> (String, String) {
    let config = format!(r#""Config":{{"Image":"{image}","Labels":{labels},"Env":["TOKEN=secret"]}}"#);
    let path = format!("var/lib/docker/containers/{ID}/config.v2.json");
    (path, format!(r#"{{"State":{{"Running":true}},"ID":"{ID}","Name":"/{name}",{config}}}"#))
}

fn cri_dockerd(kind: &str, name: &str) -> (String, String) {
    let labels = format!(
        r#"{{"io.kubernetes.container.name":"{name}","io.kubernetes.docker.type":"{kind}",
        "io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"{POD}"}}"#
    );
    docker(&format!("k8s_{name}_web-1_shop_{POD}_0"), "sha256:5ef7", &labels)
}

/// A list of containers/storage.
fn stored(list: &str, name: &str, is_sandbox: bool) -> (String, String) {
    let metadata =
        format!(r#"{{\"image-name\":\"quay.io/web:2\",\"name\":\"{name}\",\"pod\":{is_sandbox}}}"#);
    let own = format!(r#"{{"id":"{ID}","names":["{name}"],"metadata":"{metadata}","flags":{{}}}}"#);
    (format!("var/lib/containers/storage/{list}"), format!(r#"[{{"id":"{OTHER}"}},{own}]"#))
}

fn of_the_kubelet() -> Vec<Tree> {
    let static_pod = format!("/kubepods.slice/kubepods-pod{STATIC}.slice/cri-containerd-{ID}.scope");
    let nested = format!("/kubepods/burstable/pod{POD}/{OTHER}/docker/{ID}");
    let pod = |name: &str, uid: &str| (format!("var/log/pods/{name}_{uid}/app/0.log"), String::new());
    let two = [logs("app"), logs("proxy")];
    let linked = [logs("app"), logs("proxy"), link("proxy", OTHER), link("app-server", ID)];
    let unusual = [pod("shop_web_1", POD), pod("_web-1", POD), link("", ID)];
    let etcd = pod("kube-system_etcd-node.example.org", STATIC);
    vec![
        tree("nothing", in_pod(), &[], [""; 4]),
        tree("one container", in_pod(), &[logs("app")], ["app", "", "web-1", "shop"]),
        tree("another pod", in_pod(), &[pod("shop_web-2", "1234")], [""; 4]),
        tree("two containers", in_pod(), &two, ["", "", "web-1", "shop"]),
        tree("two containers and links", in_pod(), &linked, ["app-server", "", "web-1", "shop"]),
        tree("a static pod", static_pod, &[etcd], ["app", "", "etcd-node.example.org", "kube-system"]),
        tree("a container in a container", nested, &[logs("app")], ["", "", "web-1", "shop"]),
        tree("names that the kubelet does not make", in_pod(), &unusual, [""; 4]),
    ]
}

fn of_runtimes_in_pods() -> Vec<Tree> {
    let all = ["app", "docker.io/library/nginx:1.27", "web-1", "shop"];
    let k3s = containerd("container", POD);
    let k3s = (k3s.0.replace("run/", "run/k3s/"), k3s.1);
    let sandbox = [containerd("sandbox", POD), logs("app")];
    let other = [containerd("container", "another"), logs("server")];
    let docker_sandbox = [cri_dockerd("podsandbox", "POD"), logs("app")];
    let list = "overlay-containers/containers.json";
    let crio = |name: &str, is_sandbox| stored(list, &format!("k8s_{name}_web-1_shop_{POD}_0"), is_sandbox);
    let crio_sandbox = [crio("POD", true), logs("app")];
    let no_json = [
        (containerd("", "").0, "{".into()),
        (docker("", "", "").0, r#"{"Name":["/web"]}"#.into()),
        (stored(list, "", false).0, "null".into()),
        logs("app"),
    ];
    vec![
        tree("containerd", in_pod(), &[containerd("container", POD)], all),
        tree("k3s", in_pod(), &[k3s], all),
        tree("a sandbox of containerd", in_pod(), &sandbox, ["", all[1], "web-1", "shop"]),
        tree("a runtime that has another pod", in_pod(), &other, ["server", "", "web-1", "shop"]),
        tree(
            "cri-dockerd",
            in_pod(),
            &[cri_dockerd("container", "app")],
            ["app", "sha256:5ef7", "web-1", "shop"],
        ),
        tree("its sandbox", in_pod(), &docker_sandbox, ["", "sha256:5ef7", "web-1", "shop"]),
        tree("CRI-O", in_pod(), &[crio("app", false)], ["app", "quay.io/web:2", "web-1", "shop"]),
        tree("its sandbox", in_pod(), &crio_sandbox, ["", "quay.io/web:2", "web-1", "shop"]),
        tree("files that are no JSON", in_pod(), &no_json, ["app", "", "web-1", "shop"]),
    ]
}

fn of_runtimes_alone() -> Vec<Tree> {
    let libpod = format!("/machine.slice/libpod-{ID}.scope/container");
    let nerdctl = r#"{"annotations":{"nerdctl/name":"web","nerdctl/namespace":"default"}}"#;
    let nerdctl = [(format!("{CONTAINERD}/default/{ID}/config.json"), nerdctl.to_owned())];
    let list = "vfs-containers/containers.json";
    let volatile = "vfs-containers/volatile-containers.json";
    let removed = [(stored(list, "", false).0, "[]".to_owned()), stored(volatile, "web", false)];
    let web = docker("web", "nginx:1.27", "null");
    let named = (web.0.replace(ID, "web"), web.1.clone());
    vec![
        tree("nerdctl", format!("/system.slice/nerdctl-{ID}.scope"), &nerdctl, ["web", "", "", ""]),
        tree("docker", format!("/system.slice/docker-{ID}.scope"), &[web], ["web", "nginx:1.27", "", ""]),
        tree("podman", libpod.clone(), &[stored(list, "web", false)], ["web", "quay.io/web:2", "", ""]),
        tree("podman run --rm", libpod, &removed, ["web", "quay.io/web:2", "", ""]),
        tree("an id that is a name", "/lxc.payload.web/system.slice".into(), &[named], [""; 4]),
    ]
}

/// In a container with the host's pid namespace, as of a DaemonSet.
fn of_process_1() -> Vec<Tree> {
    let of_host = |(path, content): (String, String)| (format!("proc/1/root/{path}"), content);
    let all = [of_host(containerd("container", POD)), of_host(logs("app"))];
    let image = [logs("app"), of_host(docker("app", "nginx:1.27", "{}"))];
    vec![
        tree("all", in_pod(), &all, ["app", "docker.io/library/nginx:1.27", "web-1", "shop"]),
        tree("only the image", in_pod(), &image, ["app", "nginx:1.27", "web-1", "shop"]),
    ]
}

#[test]
fn what_each_tree_says() {
    for part in [of_the_kubelet, of_runtimes_in_pods, of_runtimes_alone, of_process_1] {
        for Tree { about, cgroup, files, found: expected } in part() {
            let directory = tempfile::tempdir().expect("directory");
            for (path, content) in files {
                write(directory.path(), &path, &content);
            }
            assert_eq!(found(&mut Catalog::new(directory.path()), &cgroup), texts(expected), "{about}");
        }
    }
}

#[test]
fn what_comes_later_is_found() {
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path();
    let mut catalog = Catalog::new(root);
    let in_pod = |uid: &str, id: &str| format!("/kubepods/burstable/pod{uid}/{id}");
    assert_eq!(found(&mut catalog, &in_pod(POD, ID)), texts([""; 4]));
    write(root, &format!("var/log/pods/shop_web-1_{POD}/app/0.log"), "");
    assert_eq!(found(&mut catalog, &in_pod(POD, ID)), texts(["app", "", "web-1", "shop"]));
    write(root, &format!("var/log/pods/shop_web-2_{STATIC}/app/0.log"), "");
    assert_eq!(found(&mut catalog, &in_pod(STATIC, OTHER)), texts(["app", "", "web-2", "shop"]));
    // A pod that is gone keeps its names, as long as no other pod comes.
    fs::remove_dir_all(root.join(format!("var/log/pods/shop_web-1_{POD}"))).expect("gone");
    assert_eq!(found(&mut catalog, &in_pod(POD, ID)), texts(["", "", "web-1", "shop"]));
    let list = "var/lib/containers/storage/vfs-containers/containers.json";
    let podman = |id: &str| format!("/machine.slice/libpod-{id}.scope");
    write(root, list, &format!(r#"[{{"id":"{ID}","names":["one"]}}]"#));
    assert_eq!(found(&mut catalog, &podman(ID)), texts(["one", "", "", ""]));
    write(root, list, &format!(r#"[{{"id":"{ID}","names":["one"]}},{{"id":"{OTHER}","names":["two"]}}]"#));
    assert_eq!(found(&mut catalog, &podman(OTHER)), texts(["two", "", "", ""]));
}

#[test]
fn a_name_is_bounded_and_a_file_that_is_no_file_is_not_read() {
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path();
    let docker = format!("var/lib/docker/containers/{ID}");
    let (name, image) = ("n".repeat(1 << 20), "\u{1b}".repeat(1 << 18));
    let config = serde_json::json!({ "Name": name, "Config": { "Image": image, "Labels": null } });
    write(root, &format!("{docker}/config.v2.json"), &config.to_string());
    let cgroup = format!("/docker/{ID}");
    let [name, image, ..] = found(&mut Catalog::new(root), &cgroup).map(Option::unwrap_or_default);
    assert_eq!((name.len(), image.len()), (257, 86), "one character more than a record shows");
    let too_large = format!("{config}{}", " ".repeat(4 << 20));
    write(root, &format!("{docker}/config.v2.json"), &too_large);
    assert_eq!(found(&mut Catalog::new(root), &cgroup), texts([""; 4]));
    // A pipe would block the reader.
    fs::remove_file(root.join(&docker).join("config.v2.json")).expect("file");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join(&docker).join("config.v2.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("pipe");
    assert_eq!(found(&mut Catalog::new(root), &cgroup), texts([""; 4]));
}

#[test]
fn the_files_of_one_root_are_read_once() {
    let directory = tempfile::tempdir().expect("directory");
    fs::create_dir_all(directory.path().join("proc/1")).expect("directory");
    symlink(directory.path(), directory.path().join("proc/1/root")).expect("link");
    assert_eq!(Catalog::new(directory.path()).hosts.len(), 1);
}

/// A subject gets a name that is found later, and is another subject then: formats keep texts by its number.
#[test]
fn later_connections_have_a_name_that_is_found_later() {
    let directory = tempfile::tempdir().expect("directory");
    let root = directory.path();
    write(root, "proc/42/stat", "42 (app) S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 5000 0 0\n");
    write(root, "proc/42/cgroup", &format!("0::/kubepods/burstable/pod{POD}/{ID}\n"));
    let mut enricher = Enricher::new(root.to_owned(), false);
    enricher.read_names_in_thread(|| {}).expect("thread");
    let task = Task { pid: 42, exec_id: 1, start_ns: 0, comm: *b"app\0\0\0\0\0\0\0\0\0\0\0\0\0" };
    let owner = Some(OwnerKey { task: task.into(), source: OwnerSource::Connect });
    let key = SubjectKey { owner, uid: None, netns: None, cgroup: None };
    let first = enricher.identify(key.clone());
    let pod = first.pod.as_ref().expect("a pod");
    assert_eq!((&*pod.uid, &pod.name), (POD, &None));
    write(root, &format!("var/log/pods/shop_web-1_{POD}/app/0.log"), "");
    let mut later = enricher.identify(key.clone());
    while later.pod == first.pod {
        thread::yield_now();
        later = enricher.identify(key.clone());
    }
    let pod = later.pod.as_ref().expect("a pod");
    assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-1"), Some("shop")));
    assert_ne!(later.id, first.id);
    fs::remove_dir_all(root.join("var")).expect("gone");
    assert_eq!(enricher.identify(key), later, "names stay");
}

fn ids(id: &str) -> WorkloadIds {
    WorkloadIds { container: Some(id.to_owned()), pod: None, is_of_pod: false }
}

fn named(name: &str) -> WorkloadNames {
    WorkloadNames { container: Some(name.into()), image: Some("image".into()), ..WorkloadNames::default() }
}

#[test]
fn the_thread_answers_at_once_and_once() {
    let asked = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&asked);
    let mut names = NamesThread::with(move || {
        move |ids: &WorkloadIds| {
            *counted.lock().expect("lock") += 1;
            named(ids.container.as_deref().unwrap_or_default())
        }
    })
    .expect("thread");
    // The first answer may take longer than a caller waits, on a busy machine.
    while names.find(&ids("a")).0 == WorkloadNames::default() {
        thread::yield_now();
    }
    assert_eq!(names.find(&ids("a")), (named("a"), None));
    assert_eq!(*asked.lock().expect("lock"), 1);
}

#[test]
fn a_slow_disk_stops_nobody() {
    let (release, gate) = channel::<()>();
    let mut names = NamesThread::with(move || {
        move |ids: &WorkloadIds| {
            let _ = gate.recv();
            named(ids.container.as_deref().unwrap_or_default())
        }
    })
    .expect("thread");
    let mut waited = Duration::ZERO;
    for number in 0..2000 {
        let began = std::time::Instant::now();
        let (found, again) = names.find(&ids(&number.to_string()));
        assert_eq!(found, WorkloadNames::default());
        assert!(again.is_some(), "{number} may be found later");
        waited += began.elapsed();
    }
    // Together 500 ms, and a share of the time.
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    drop(release);
    while names.find(&ids("0")).0 == WorkloadNames::default() {
        thread::yield_now();
    }
    assert_eq!(names.find(&ids("0")), (named("0"), None));
}
