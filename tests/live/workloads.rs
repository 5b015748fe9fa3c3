//! Names of pods and containers: from directories as the kubelet makes them, and of a real container.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    Test, fleet,
    hunt::programs,
    kubernetes,
    lab::{Tracer, in_lab, own_netns, sockstate, wait_until},
    metrics::scrape,
    owners::cgroup2_mount,
    roles::Actor,
    skip,
    sockets::{Kind, fresh_port},
    test, tools,
};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = kubernetes::tests();
    tests.extend([
        test("workloads: a pod, by the kubelet's directories", by_directories),
        test("workloads: which pod leaks, in metrics, counts, a report and queries", leaks),
        test("workloads: a container of podman", by_podman),
    ]);
    tests
}

const IDS: [&str; 2] = [
    "3f1c0e6ad1f7c2f5c1d64c4a50b6f3a0a9b64c5d3c3b0c6e8d4cbb4b1a2f9e77",
    "b0b47276ea66ee9f44cc53afa94d7980b57a52c3f306f68cb034e58d9fbd3c60",
];
pub(crate) const PODS: [&str; 2] =
    ["abcd1234-12ab-34cd-56ef-0123456789ab", "dcba1234-12ab-34cd-56ef-0123456789ab"];

/// A mount namespace with empty file systems at some directories of the host. A shell in it waits for the end of the test.
pub(crate) struct Mounts {
    shell: Actor,
}

impl Mounts {
    /// `None` where this cannot be made.
    pub(crate) fn new(directories: &[&str]) -> Option<Self> {
        for program in ["unshare", "nsenter"] {
            tools::find(program, "util-linux")?;
        }
        let mount = |path: &&str| format!("mkdir -p {path} && mount -t tmpfs none {path} && ");
        let mounts: String = directories.iter().map(mount).collect();
        let script = format!("{mounts} echo ready && exec cat");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut shell = Actor::of(&mut command);
        if shell.hear() != "ready" {
            skip("cannot mount a tmpfs in a mount namespace");
            return None;
        }
        Some(Self { shell })
    }

    /// A path in this namespace, as it is seen from outside.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{path}", self.shell.pid()))
    }

    /// `command` in this namespace.
    fn run(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.shell.pid())).arg("--");
        inside.arg(command.get_program()).args(command.get_args()).env_remove("NO_COLOR");
        inside
    }

    pub(crate) fn sockstate(&self, args: &[&str]) -> Command {
        self.run(sockstate().args(args))
    }
}

/// Cgroups as the kubelet makes them, and a directory of logs for each pod.
pub(crate) struct Pods {
    top: PathBuf,
}

impl Pods {
    pub(crate) fn new(mount: &Path) -> Self {
        Self { top: mount.join(format!("sockstate-test-{}", std::process::id())) }
    }

    /// A process that listens in this pod.
    pub(crate) fn listen_in(&self, pod: usize, port: u16) -> Actor {
        let group = self.top.join(format!("kubepods/burstable/pod{}/{}", PODS[pod], IDS[pod]));
        fs::create_dir_all(&group).expect("cgroup");
        let mut inside = Actor::start("late listener", port);
        fs::write(group.join("cgroup.procs"), inside.pid().to_string()).expect("move into it");
        inside.go_on();
        assert_eq!(inside.hear(), "listening");
        inside
    }

    pub(crate) fn remove(&self) {
        let remove = |path: &str| {
            let path = self.top.join(path);
            !path.exists() || fs::remove_dir(path).is_ok()
        };
        wait_until("the cgroups are empty", || {
            let all = PODS.iter().zip(IDS).all(|(pod, id)| {
                remove(&format!("kubepods/burstable/pod{pod}/{id}"))
                    && remove(&format!("kubepods/burstable/pod{pod}"))
            });
            all && remove("kubepods/burstable") && remove("kubepods") && remove("")
        });
    }
}

fn by_directories() {
    let Some(mount) = cgroup2_mount() else { return skip("no cgroup v2 is mounted") };
    let Some(mounts) = Mounts::new(&["/var/log"]) else { return };
    let pods = Pods::new(&mount);
    let result = std::panic::catch_unwind(|| {
        in_lab(|netns| {
            let ports = [fresh_port(), fresh_port(), fresh_port()];
            let netns = netns.to_string();
            let all = ["trace", "--format", "json", "--alongside", "--netns", &netns];
            let mut tracer = Tracer::spawn(&mut mounts.sockstate(&all));
            let mut of_shop =
                Tracer::spawn(&mut mounts.sockstate(&[&all[..], &["--pod", "shop/web-*"]].concat()));
            let _outside = Kind::V4.listen(ports[2]);
            // A pod that comes after the start.
            log_directory(&mounts, 0, "shop_web-7d9f");
            let inside = pods.listen_in(0, ports[0]);
            let listens =
                |record: &Value, port: u16| record["to"] == "LISTEN" && record["local"]["port"] == port;
            let record = tracer.wait_for(|record| listens(record, ports[0]));
            let pod = json!({ "uid": PODS[0], "name": "web-7d9f", "namespace": "shop" });
            assert_eq!(record["pod"], pod, "{record}");
            assert_eq!(
                record["container"],
                json!({ "id": IDS[0], "runtime": "cri", "name": "app" }),
                "{record}"
            );
            log_directory(&mounts, 1, "kube-system_etcd");
            let other = pods.listen_in(1, ports[1]);
            let record = tracer.wait_for(|record| listens(record, ports[1]));
            assert_eq!(record["pod"]["namespace"], "kube-system", "{record}");

            let look = |args: &[&str]| -> Vec<Value> {
                let args = [args, &["--format", "json", "--netns", &netns]].concat();
                let output = mounts.sockstate(&args).output().expect("sockstate");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
            };
            let found = look(&["sockets", "--namespace", "shop", "--container", "app"]);
            let [found] = &found[..] else { panic!("one socket: {found:?}") };
            assert_eq!((&found["holders"][0]["pid"], &found["pod"]), (&inside.pid().into(), &pod), "{found}");
            // Nobody accepts these connections.
            ports[..2].iter().for_each(|port| drop(Kind::V4.connect(*port).expect("connect")));
            for (by, keys) in [
                ("pod", ["kube-system/etcd", "shop/web-7d9f"]),
                ("namespace", ["kube-system", "shop"]),
                ("container", ["kube-system/etcd/app", "shop/web-7d9f/app"]),
            ] {
                wait_until("both are stuck", || {
                    let groups = look(&["close-wait", "--older-than", "0", "--group-by", by]);
                    let found: Vec<&str> = groups.iter().filter_map(|group| group["key"].as_str()).collect();
                    let mut found = found;
                    found.sort_unstable();
                    found == keys
                });
            }
            inside.kill();
            other.kill();
            let ends = |record: &Value| record["role"] == "listener" && record["to"] == "CLOSE";
            of_shop.wait_for(ends);
            let (story, of_shop) = (tracer.stop(), of_shop.stop());
            let expected = story.transitions().filter(|record| record["pod"] == pod).count();
            assert!(expected > 2, "the listener and the connection that it never accepted");
            assert!(of_shop.transitions().all(|record| record["pod"] == pod), "only the pod's");
            assert_eq!(of_shop.transitions().count(), expected);
        });
    });
    pods.remove();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// The directory of a pod's logs, as the kubelet makes it.
pub(crate) fn log_directory(mounts: &Mounts, pod: usize, name: &str) {
    let logs = format!("var/log/pods/{name}_{}/app", PODS[pod]);
    fs::create_dir_all(mounts.path(&logs)).expect("logs");
}

/// Two pods that accept no connection: three stuck ones in one, and one in the other.
fn leaks() {
    let Some(mount) = cgroup2_mount() else { return skip("no cgroup v2 is mounted") };
    let Some(mounts) = Mounts::new(&["/var/log"]) else { return };
    let pods = Pods::new(&mount);
    let directory = tempfile::tempdir().expect("directory");
    let result = std::panic::catch_unwind(|| {
        in_lab(|netns| daemon_names_leakers(netns, &mounts, &pods, directory.path()));
    });
    pods.remove();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let records = directory.path().join("all.json");
    has_both_pods_in_the_report(&records);
    fleet::rows_of_each_engine(&[&records], |engine, rows| {
        let found = rows["pods"].as_array().expect("rows").iter().map(|row| {
            // ClickHouse writes 64-bit numbers as texts.
            let count = row["connections"].to_string().trim_matches('"').to_owned();
            [&row["namespace"], &row["pod"], &row["container"], &count.into()].map(Value::to_string).join(" ")
        });
        let expected = [r#""shop" "web-7d9f" "app" "3""#, r#""kube-system" "etcd" "app" "1""#];
        assert_eq!(found.collect::<Vec<_>>(), expected, "{engine}");
    });
}

fn daemon_names_leakers(netns: u64, mounts: &Mounts, pods: &Pods, directory: &Path) {
    let [metrics, shop, system] = [fresh_port(), fresh_port(), fresh_port()];
    let config = directory.join("config.toml");
    let here = directory.display();
    let text = format!(
        "metrics = \"127.0.0.1:{metrics}\"\nmetrics-by = [\"pod\", \"namespace\", \"container\"]\n\
         metrics-by-limit = 1\n[filter]\nport = [\"{shop}\", \"{system}\"]\nnetns = {netns}\n\
         [kernel]\nalongside = true\n[stuck]\nthreshold = [\"CLOSE_WAIT=1s\"]\n\
         [sinks.console]\ntype = \"stdout\"\nbatch-time = \"1ms\"\n\
         [sinks.file]\ntype = \"file\"\npath = \"{here}/all.json\"\n\
         [sinks.counts]\ntype = \"file\"\npath = \"{here}/counts.json\"\naggregate = \"1h\"\n"
    );
    fs::write(&config, text).expect("config");
    let mut tracer = Tracer::spawn(&mut mounts.sockstate(&["run", "--config", &config.to_string_lossy()]));
    log_directory(mounts, 0, "shop_web-7d9f");
    log_directory(mounts, 1, "kube-system_etcd");
    let inside = [pods.listen_in(0, shop), pods.listen_in(1, system)];
    [shop, shop, shop, system].iter().for_each(|port| drop(Kind::V4.connect(*port).expect("connect")));
    let mut stuck = 0;
    while stuck < 4 {
        let record = tracer.wait_for(|record| record["kind"] == "stuck");
        stuck += usize::from(record["state"] == "CLOSE_WAIT");
    }
    let by = scrape(metrics).into_iter().filter(|(name, _)| name.starts_with("sockstate_stuck_sockets_by{"));
    let by: Vec<(String, f64)> = by.collect();
    let series = |namespace: &str, pod: &str, container: &str, other: &str| {
        let labels = format!("namespace=\"{namespace}\",pod=\"{pod}\",container=\"{container}\"{other}");
        format!("sockstate_stuck_sockets_by{{state=\"CLOSE_WAIT\",{labels}}}")
    };
    let expected =
        [(series("", "", "", ",other=\"true\""), 1.0), (series("shop", "web-7d9f", "app", ""), 3.0)];
    assert_eq!(by, expected);
    tracer.stop();
    let counts = fs::read_to_string(directory.join("counts.json")).expect("counts");
    let counts: Vec<Value> = counts.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let leaked = |record: &&Value| record["kind"] == "aggregate" && record["to"] == "CLOSE_WAIT";
    for (uid, name, namespace, count) in
        [(PODS[0], "web-7d9f", "shop", 3), (PODS[1], "etcd", "kube-system", 1)]
    {
        let pod = json!({ "uid": uid, "name": name, "namespace": namespace });
        let of_pod = counts.iter().filter(leaked).find(|record| record["pod"] == pod);
        let of_pod = of_pod.expect("counts of the pod");
        let found = (&of_pod["count"], &of_pod["container"]["name"]);
        assert_eq!(found, (&count.into(), &"app".into()), "{of_pod}");
    }
    inside.into_iter().for_each(Actor::kill);
}

fn has_both_pods_in_the_report(records: &Path) {
    let output = sockstate().arg("report").arg(records).output().expect("sockstate");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = String::from_utf8(output.stdout).expect("UTF-8");
    let section = |title: &str| {
        let rest = page.split(&format!("<h2>{title}</h2>")).nth(1).expect("the section");
        rest.split("</section>").next().expect("its end").split("<h3>").collect::<Vec<_>>()
    };
    let rows = |table: &str| -> Vec<Vec<String>> {
        let text = |cell: &str| cell.split('<').next().unwrap_or_default().to_owned();
        let cells = |row: &str| row.split("<span>").skip(1).map(text).collect();
        table.split("<tr>").skip(2).map(cells).collect()
    };
    let picked = |table: &str, columns: &[usize]| -> Vec<Vec<String>> {
        rows(table).iter().map(|row| columns.iter().map(|at| row[*at].clone()).collect()).collect()
    };
    let [_, by_container, by_namespace] = section("What was stuck")[..] else {
        panic!("tables by process, container and namespace: {page}")
    };
    let expected = [["shop", "web-7d9f", "app", "3"], ["kube-system", "etcd", "app", "1"]];
    assert_eq!(picked(by_container, &[0, 1, 2, 4]), expected);
    assert_eq!(picked(by_namespace, &[0, 2]), [["shop", "3"], ["kube-system", "1"]]);
    let [_, by_container] = section("Who has the most connections")[..] else {
        panic!("tables by process and container: {page}")
    };
    assert_eq!(picked(by_container, &[0, 1, 2, 3]), expected);
}

/// A container of podman that listens. Its image has one static program.
fn by_podman() {
    if tools::find("podman", "podman").is_none() || tools::find("runc", "runc").is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let program = directory.path().join("leak");
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-O1", "-o"]).arg(&program).arg(programs().join("leak.c"));
    if !compiler.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skip("needs gcc and a static C library");
    }
    let Some(mounts) = Mounts::new(&["/var/lib/containers", "/run/containers"]) else { return };
    let podman = |args: &[&str]| {
        let mut podman = Command::new("podman");
        podman
            .args(["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"])
            .args(args);
        mounts.run(&podman)
    };
    let archive = directory.path().join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("cf").arg(&archive).arg("-C").arg(directory.path()).arg("leak");
    assert!(tar.status().is_ok_and(|status| status.success()), "tar");
    let image = "localhost/sockstate-test:1";
    let made = podman(&["import", "--quiet", &archive.to_string_lossy(), image]).output().expect("podman");
    if !made.status.success() {
        return skip(&format!("podman cannot make an image: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let mut tracer = Tracer::spawn(&mut mounts.sockstate(&[
        "trace",
        "--format",
        "json",
        "--alongside",
        "--container",
        "sockstate-*",
    ]));
    let mut run = podman(&["run", "--rm", "--interactive", "--name", "sockstate-web", "--network", "none"]);
    run.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", image, "/leak", "7777"]);
    let mut container = Actor::of(&mut run);
    if container.hear() != "ready" {
        drop(tracer.stop());
        return skip("podman cannot run a container here");
    }
    let record = tracer.wait_for(|record| record["kind"] == "transition");
    let found = &record["container"];
    let expected = json!({ "runtime": "podman", "name": "sockstate-web", "image": image, "id": found["id"] });
    assert_eq!((&record["to"], found), (&"LISTEN".into(), &expected), "{record}");
    container.end();
    tracer.wait_for(|record| record["to"] == "CLOSE");
    let story = tracer.stop();
    assert!(story.transitions().all(|record| record["container"] == expected), "only the container's");
    assert_ne!(own_netns().to_string(), record["netns"].to_string(), "a namespace of its own");
}
