//! The daemon with [kubernetes]: what manages a pod, and its labels, from an API server. The server is one of this test: no
//! real one runs here.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
};

use serde_json::{Value, json};
use testkit::api_server::{Answer, ApiServer, Asked, list, owned, pod, wait_for_end};

use crate::{
    Test,
    lab::{Tracer, in_lab, sockstate, wait_until},
    metrics::scrape,
    owners::cgroup2_mount,
    restart::{chown_to_nobody, nobody},
    roles::Actor,
    skip,
    sockets::{Kind, fresh_port},
    test,
    workloads::{Mounts, PODS, Pods, log_directory},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("kubernetes: workload and labels of a pod, from the API server", || from_the_server(false)),
        test("kubernetes: the process of the sinks asks the API server", || from_the_server(true)),
        test("kubernetes: a daemon without an answer traces as without it", without_an_answer),
    ]
}

/// Runs a test with the cgroups and the directories of pods.
fn with_pods(work: impl FnOnce(u64, &Mounts, &Pods, &Path) + Send) {
    let Some(mount) = cgroup2_mount() else { return skip("no cgroup v2 is mounted") };
    let Some(mounts) = Mounts::new(&["/var/log"]) else { return };
    let pods = Pods::new(&mount);
    let directory = tempfile::tempdir().expect("directory");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        in_lab(|netns| work(netns, &mounts, &pods, directory.path()));
    }));
    pods.remove();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// A configuration that writes all records to standard output and to a file.
fn configure(directory: &Path, netns: u64, top: &str, kubernetes: &str) -> String {
    let config = directory.join("config.toml");
    let text = format!(
        "{top}[filter]\nnetns = {netns}\n[kernel]\nalongside = true\n[stuck]\nthreshold = [\"CLOSE_WAIT=1s\"]\n\
         [kubernetes]\n{kubernetes}[sinks.console]\ntype = \"stdout\"\nbatch-time = \"1ms\"\n\
         [sinks.file]\ntype = \"file\"\npath = \"{0}/all.json\"\n\
         [sinks.web]\ntype = \"file\"\npath = \"{0}/web.json\"\n[sinks.web.filter]\nworkload = \"deployment/w*\"\n\
         [sinks.ecs]\ntype = \"file\"\npath = \"{0}/ecs.json\"\nformat = \"ecs\"\n",
        directory.display()
    );
    fs::write(&config, text).expect("config");
    config.display().to_string()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("records");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn web(tier: &str) -> Value {
    let owner = Some(("apps/v1", "ReplicaSet", "web-7d9f"));
    pod(PODS[0], "web-7d9f-x", owner, &json!({ "app": "web", "tier": tier, "secret": "s3cr3t" }))
}

/// An API server with one pod, and with the events that the test sends.
fn server(events: Receiver<(&'static str, Value)>) -> ApiServer {
    let events = Arc::new(Mutex::new(events));
    ApiServer::start(move |asked, answer| {
        let is_of_node = asked.query.contains_key("fieldSelector");
        if asked.is_list() && is_of_node {
            answer.json(200, &list("1", "", &[web("front")]));
        } else if !is_of_node && asked.path.starts_with("/api/v1/") {
            peers(asked, answer);
        } else if asked.is_watch() {
            answer.begin();
            while let Ok((kind, object)) = events.lock().expect("lock").recv() {
                answer.event(kind, &object);
            }
            answer.hang_up();
        } else {
            answer.json(200, &owned("apps/v1", "Deployment", "web"));
        }
    })
}

/// Loopback's address belongs to a pod.
fn peers(asked: &Asked, answer: &mut Answer<'_>) {
    if asked.query.contains_key("watch") {
        answer.begin();
        return wait_for_end(answer);
    }
    let mut pod = pod("db", "db-0", Some(("apps/v1", "StatefulSet", "db")), &json!({}));
    pod["status"] = json!({ "phase": "Running", "podIP": "127.0.0.1" });
    let pods = [pod];
    answer.json(200, &list("1", "", if asked.is_list() { &pods } else { &[] }));
}

/// `apart`: the sinks have a process of their own, as the user nobody.
fn from_the_server(apart: bool) {
    if apart && nobody().is_none() {
        return skip("needs the user nobody");
    }
    with_pods(move |netns, mounts, pods, directory| {
        let (sender, events) = channel();
        let server = server(events);
        let [port, outside, metrics] = [fresh_port(), fresh_port(), fresh_port()];
        let user = if apart { "sinks-user = \"nobody\"\n" } else { "" };
        let top =
            format!("{user}metrics = \"127.0.0.1:{metrics}\"\nmetrics-by = [\"workload\", \"namespace\"]\n");
        if apart {
            chown_to_nobody(directory);
            fs::set_permissions(server.path(""), fs::Permissions::from_mode(0o711)).expect("mode");
        }
        let kubernetes = format!(
            "labels = [\"app\", \"ti*\"]\npeers = true\nnode = \"node-1\"\nserver = \"{}\"\ntoken-file = \"{}\"\ntls-ca = \"{}\"\n",
            server.url(),
            server.path("token").display(),
            server.path("ca.crt").display()
        );
        let config = configure(directory, netns, &top, &kubernetes);
        log_directory(mounts, 0, "shop_web-7d9f-x");
        // It exists before the daemon starts.
        let inside = pods.listen_in(0, port);
        let _other = Kind::V4.listen(outside);
        let mut tracer = Tracer::spawn(&mut mounts.sockstate(&["run", "--config", &config]));
        holds_no_capability(if apart { sinks_of(tracer.pid()) } else { tracer.pid() });
        let connect = || drop(Kind::V4.connect(port).expect("connect"));
        let of_pod = |tier: &str| {
            json!({
                "uid": PODS[0], "name": "web-7d9f-x", "namespace": "shop",
                "workload": { "kind": "Deployment", "name": "web" }, "labels": { "app": "web", "tier": tier },
            })
        };
        connect();
        drop(Kind::V4.connect(outside).expect("connect"));
        let accepted = |record: &Value| record["local"]["port"] == port && record["to"] == "CLOSE_WAIT";
        let record = tracer.wait_for(accepted);
        assert_eq!(record["pod"], of_pod("front"), "{record}");
        let peer = json!({
            "kind": "pod", "namespace": "shop", "name": "db-0", "workload": { "kind": "StatefulSet", "name": "db" },
        });
        assert_eq!(record["peer"], peer, "{record}");
        let stuck = tracer.wait_for(|record| record["kind"] == "stuck" && record["state"] == "CLOSE_WAIT");
        assert_eq!((&stuck["pod"], &stuck["peer"]), (&of_pod("front"), &peer), "{stuck}");
        let series = "sockstate_stuck_sockets_by{state=\"CLOSE_WAIT\",namespace=\"shop\",workload=\"web\"}";
        wait_until("the workload has a stuck socket", || {
            scrape(metrics).into_iter().any(|(name, value)| name == series && value >= 1.0)
        });
        // Labels follow their changes.
        sender.send(("MODIFIED", web("back"))).expect("the server");
        wait_until("the new label", || {
            connect();
            let record = tracer.wait_for(accepted);
            record["pod"] == of_pod("back")
        });
        // Without the server, records have what was known.
        drop(sender);
        let asked = server.asked().len();
        wait_until("the watch is tried again", || server.asked().len() > asked);
        connect();
        assert_eq!(tracer.wait_for(accepted)["pod"], of_pod("back"));
        tracer.stop();
        inside.kill();
        has_the_workload_everywhere(directory, port);
    });
}

/// The process of the sinks of a daemon.
fn sinks_of(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    children.trim().parse().expect("one child")
}

/// The thread that talks to the server has no capability.
fn holds_no_capability(pid: u32) {
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    let text = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let thread = threads().find(|thread| text(thread.path().join("comm")).trim() == "kubernetes");
    let status = text(thread.expect("the thread").path().join("status"));
    for set in ["CapInh", "CapPrm", "CapEff"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
    }
}

fn has_the_workload_everywhere(directory: &Path, port: u16) {
    let [all, of_web, ecs] = ["all.json", "web.json", "ecs.json"].map(|name| lines(&directory.join(name)));
    let is_of_web = |record: &&Value| record["pod"]["workload"]["name"] == "web";
    let is_of_connection = |record: &&Value| record["kind"] == "transition";
    let expected = all.iter().filter(is_of_web).filter(is_of_connection).count();
    let found: Vec<&Value> = of_web.iter().filter(is_of_connection).collect();
    assert!(found.iter().all(is_of_web) && found.len() == expected && expected < all.len());
    assert!(!all.iter().any(|record| record.to_string().contains("s3cr3t")), "only allowed labels");
    let document =
        ecs.iter().find(|document| document["orchestrator"]["namespace"] == "shop").expect("a document");
    assert_eq!(document["sockstate"]["peer"]["name"], "db-0", "{document}");
    let resource = &document["orchestrator"]["resource"];
    assert_eq!(resource["parent"]["type"], "Deployment", "{document}");
    assert_eq!(resource["label"], json!(["app:web", "tier:front"]), "{document}");
    assert_eq!(
        document["sockstate"]["workload"],
        json!({ "kind": "Deployment", "name": "web" }),
        "{document}"
    );

    let file = directory.join("all.json").display().to_string();
    let output = |args: &[&str]| {
        let output = sockstate().args(args).arg(&file).output().expect("sockstate");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let replayed = output(&["replay", "--format", "json", "--workload", "Deployment/web"]);
    let transitions = replayed.lines().filter(|line| line.contains("\"kind\":\"transition\""));
    assert!(transitions.clone().count() > 0);
    assert!(transitions.clone().all(|line| line.contains(&format!("\"port\":{port}"))));
    assert!(output(&["report"]).contains("<h3>By workload</h3>"));
}

/// The environment names no node, or the server does not answer.
fn without_an_answer() {
    with_pods(|netns, mounts, pods, directory| {
        let port = fresh_port();
        let config = configure(directory, netns, "", "server = \"https://127.0.0.1:9\"\n");
        let refused = sockstate().env_remove("NODE_NAME").args(["run", "--config", &config]).output();
        let refused = String::from_utf8(refused.expect("sockstate").stderr).expect("UTF-8");
        assert!(refused.contains("the name of this node is not known"), "{refused}");
        log_directory(mounts, 0, "shop_web-7d9f-x");
        let mut daemon = mounts.sockstate(&["run", "--config", &config]);
        let mut tracer = Tracer::spawn(daemon.env("NODE_NAME", "node-1"));
        let inside: Actor = pods.listen_in(0, port);
        let record = tracer.wait_for(|record| record["to"] == "LISTEN" && record["local"]["port"] == port);
        assert_eq!(record["pod"], json!({ "uid": PODS[0], "name": "web-7d9f-x", "namespace": "shop" }));
        assert_eq!(record["host"]["name"], "node-1");
        tracer.stop();
        inside.kill();
    });
}
