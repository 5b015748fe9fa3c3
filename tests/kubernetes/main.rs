//! The thread that asks the API server of Kubernetes, against a server that fails in every way. No real API server runs here:
//! the server of these tests speaks what https://kubernetes.io/docs/reference/using-api/api-concepts/ documents.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use serde_json::{Value, json};
use sockstate::{
    enrich::{KnownCluster, KnownPods},
    kubernetes::{KubernetesArgs, watch_cluster},
    model::PodFacts,
};
use testkit::{
    api_server::{Answer, ApiServer, Asked, list, owned, pod, status, wait_for_end},
    lab::wait_until,
};

const WAIT: Duration = Duration::from_secs(180);

/// Asks `server`; a message comes when the first attempt is over. Records have the labels `app` and those that begin with `app.kubernetes.io/`.
fn ask(server: &ApiServer) -> (KnownPods, Receiver<()>) {
    ask_at(server, &server.url())
}

fn ask_at(server: &ApiServer, url: &str) -> (KnownPods, Receiver<()>) {
    let (KnownCluster { pods, .. }, asked) = watch(server, url, false);
    (pods, asked)
}

fn watch(server: &ApiServer, url: &str, peers: bool) -> (KnownCluster, Receiver<()>) {
    let args = KubernetesArgs {
        labels: vec!["app".into(), "app.kubernetes.io/*".into()],
        peers,
        node: Some("node-1".into()),
        server: Some(url.to_owned()),
        token_file: server.path("token"),
        ca: server.path("ca.crt"),
    };
    let cluster = KnownCluster::default();
    let (sender, asked) = channel();
    let done = move || {
        let _ = sender.send(());
    };
    watch_cluster(args.settings().expect("settings"), cluster.clone(), done).expect("thread");
    (cluster, asked)
}

/// What is known about a pod: kind and name of its workload, and its labels.
fn facts(pods: &KnownPods, uid: &str) -> Option<(String, Vec<String>)> {
    let PodFacts { workload, labels, .. } = (*pods.find(uid)?).clone();
    let workload = workload.map(|workload| format!("{}/{}", workload.kind, workload.name));
    let labels = labels.into_iter().map(|(name, value)| format!("{name}={value}"));
    Some((workload.unwrap_or_default(), labels.collect()))
}

fn knows(pods: &KnownPods, uid: &str, workload: &str, labels: &[&str]) {
    let expected = Some((workload.to_owned(), labels.iter().map(|label| (*label).to_owned()).collect()));
    wait_until(&format!("{uid}: {expected:?}"), || facts(pods, uid) == expected);
}

const WEB: Option<(&str, &str, &str)> = Some(("apps/v1", "ReplicaSet", "web-5b8"));

fn web(uid: &str) -> Value {
    pod(uid, "web-5b8-x", WEB, &json!({ "pod-template-hash": "5b8", "app": uid }))
}

/// Answers for owners as a cluster does that lets sockstate read them.
fn owners(asked: &Asked, answer: &mut Answer<'_>) {
    match asked.path.as_str() {
        "/apis/apps/v1/namespaces/shop/replicasets/web-5b8" => {
            answer.json(200, &owned("apps/v1", "Deployment", "web"));
        }
        "/apis/batch/v1/namespaces/shop/jobs/backup-29" => {
            answer.json(200, &owned("batch/v1", "CronJob", "backup"));
        }
        "/apis/batch/v1/namespaces/shop/jobs/once" => {
            answer.json(200, &json!({ "metadata": { "name": "once", "ownerReferences": null } }));
        }
        _ => answer.error(404),
    }
}

/// Events that a test sends, one watch after the other.
type Events = Arc<Mutex<Receiver<(&'static str, Value)>>>;

/// A watch of the events that the test sends.
fn follow(events: &Events, answer: &mut Answer<'_>) {
    answer.begin();
    while answer.is_open()
        && let Ok((kind, object)) = events.lock().expect("lock").recv()
    {
        answer.event(kind, &object);
    }
}

#[test]
fn pods_are_listed_and_followed() {
    let (sender, events) = channel();
    let events: Events = Arc::new(Mutex::new(events));
    let server = ApiServer::start(move |asked, answer| {
        let of_pods = [
            web("a"),
            pod(
                "b",
                "db-0",
                Some(("apps/v1", "StatefulSet", "db")),
                &json!({ "app.kubernetes.io/name": "db", "x": "y" }),
            ),
            pod("c", "backup-29-x", Some(("batch/v1", "Job", "backup-29")), &Value::Null),
            pod("d", "once-x", Some(("batch/v1", "Job", "once")), &json!({})),
            pod("e", "alone", None, &json!({})),
            pod("f", "game-x", Some(("example.org/v1", "GameServer", "game")), &json!({})),
        ];
        match (asked.is_list(), asked.query.contains_key("continue")) {
            (true, false) => answer.json(200, &list("10", "next one", &of_pods[..3])),
            (true, true) => answer.json(200, &list("10", "", &of_pods[3..])),
            _ if asked.is_watch() => follow(&events, answer),
            _ => owners(asked, answer),
        }
    });
    let (pods, asked) = ask(&server);
    asked.recv_timeout(WAIT).expect("the first answer");
    assert_eq!(pods.count(), 6, "the first list is complete");
    knows(&pods, "a", "Deployment/web", &["app=a"]);
    knows(&pods, "b", "StatefulSet/db", &["app.kubernetes.io/name=db"]);
    knows(&pods, "c", "CronJob/backup", &[]);
    knows(&pods, "d", "Job/once", &[]);
    knows(&pods, "e", "", &[]);
    knows(&pods, "f", "GameServer/game", &[]);
    let send = |kind, object| sender.send((kind, object)).expect("the server");
    // The kubelet makes a static pod before the API server knows it: the cgroup has the hash of its manifest.
    let mut fixed = pod("g", "etcd-node-1", Some(("v1", "Node", "node-1")), &json!({ "app": "etcd" }));
    fixed["metadata"]["annotations"] = json!({ "kubernetes.io/config.hash": "0123" });
    send("ADDED", fixed);
    knows(&pods, "0123", "", &["app=etcd"]);
    send("BOOKMARK", json!({ "metadata": { "resourceVersion": "20" } }));
    send("MODIFIED", pod("a", "web-5b8-x", WEB, &json!({ "app": "new" })));
    knows(&pods, "a", "Deployment/web", &["app=new"]);
    send("DELETED", web("a"));
    wait_until("the pod is forgotten", || pods.find("a").is_none());

    let asked = server.asked();
    assert!(
        asked
            .iter()
            .all(|asked| asked.token == "first" && asked.accept.starts_with("application/json;as=Partial"))
    );
    let of_pods: Vec<&Asked> = asked.iter().filter(|asked| asked.path == "/api/v1/pods").collect();
    assert!(
        of_pods.iter().all(|asked| asked.query["fieldSelector"] == "spec.nodeName=node-1"),
        "{of_pods:?}"
    );
    assert_eq!((of_pods[0].version(), &*of_pods[1].query["continue"]), ("0", "next%20one"));
    assert_eq!((of_pods[2].version(), &*of_pods[2].query["allowWatchBookmarks"]), ("10", "true"));
    let of_owners = asked.iter().filter(|asked| asked.path.contains("replicasets")).count();
    assert_eq!(of_owners, 1, "an owner is asked for once");
}

/// Answers lists with one pod, and the watch with the number `n` with what `watch` does.
fn watches(watch: impl Fn(usize, &Asked, &mut Answer<'_>) + Send + Sync + 'static) -> ApiServer {
    let (lists, number) = (AtomicUsize::new(0), AtomicUsize::new(0));
    ApiServer::start(move |asked, answer| {
        if asked.is_list() {
            let at = lists.fetch_add(1, Ordering::SeqCst);
            let uid = format!("listed-{at}");
            answer.json(200, &list(&format!("{}", 100 * (at + 1)), "", &[web(&uid)]));
        } else if asked.is_watch() {
            watch(number.fetch_add(1, Ordering::SeqCst), asked, answer);
        } else {
            owners(asked, answer);
        }
    })
}

#[test]
fn a_version_that_the_server_has_forgotten_is_listed_again() {
    let server = watches(|number, _, answer| match number {
        0 => answer.error(410),
        1 => {
            answer.begin();
            answer.event("ERROR", &status(410));
            wait_for_end(answer);
        }
        _ => {
            answer.begin();
            wait_for_end(answer);
        }
    });
    let (pods, _asked) = ask(&server);
    knows(&pods, "listed-2", "Deployment/web", &["app=listed-2"]);
    assert_eq!(pods.count(), 1, "pods that are not listed any more are forgotten");
    let asked = server.asked();
    let versions = asked.iter().filter(|asked| asked.is_list()).map(Asked::version);
    // The cache of the server was too old, so it must read the store.
    assert_eq!(versions.collect::<Vec<_>>(), ["0", "", ""]);
}

#[test]
fn a_watch_that_breaks_goes_on_where_it_was() {
    let server = watches(|number, asked, answer| {
        answer.begin();
        let version = asked.version().to_owned();
        let added = |uid: &str, version: &str| {
            let mut pod = web(uid);
            pod["metadata"]["resourceVersion"] = version.into();
            pod
        };
        match (number, &*version) {
            (0, "100") => {
                answer.event("ADDED", &added("one", "101"));
                // A line comes in pieces, and the connection breaks in the middle of another.
                let line = format!("{}\n", json!({ "type": "ADDED", "object": added("two", "102") }));
                line.as_bytes().chunks(7).for_each(|piece| answer.piece(&String::from_utf8_lossy(piece)));
                answer.piece("{\"type\":\"ADDED\",\"obj");
                answer.hang_up();
            }
            (1, "102") => {
                answer.event("BOOKMARK", &json!({ "metadata": { "resourceVersion": "110" } }));
                answer.end();
            }
            (2, "110") => {
                answer.piece("no JSON\n");
                wait_for_end(answer);
            }
            (3, "110") => {
                answer.event("ADDED", &added("three", "111"));
                wait_for_end(answer);
            }
            unexpected => panic!("{unexpected:?}"),
        }
    });
    let (pods, _asked) = ask(&server);
    for uid in ["listed-0", "one", "two", "three"] {
        knows(&pods, uid, "Deployment/web", &[&format!("app={uid}")]);
    }
    assert_eq!(server.asked().iter().filter(|asked| asked.is_list()).count(), 1);
}

#[test]
fn a_token_that_expires_is_read_again() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let server = ApiServer::start(move |asked, answer| {
        if asked.token != "second" {
            count.fetch_add(1, Ordering::SeqCst);
            answer.error(401);
        } else if asked.is_list() {
            answer.json(200, &list("1", "", &[web("a")]));
        } else if asked.is_watch() {
            answer.begin();
            wait_for_end(answer);
        } else {
            owners(asked, answer);
        }
    });
    let (pods, asked) = ask(&server);
    asked.recv_timeout(WAIT).expect("the first answer");
    assert!(pods.count() == 0 && refused.load(Ordering::SeqCst) > 0, "the first failure ends the wait");
    server.set_token("second");
    knows(&pods, "a", "Deployment/web", &["app=a"]);
}

#[test]
fn without_permission_for_owners_the_pod_names_its_deployment() {
    let server = ApiServer::start(|asked, answer| match asked.is_list() {
        true => {
            let other = pod(
                "b",
                "old-x",
                Some(("apps/v1", "ReplicaSet", "old")),
                &json!({ "pod-template-hash": "5b8" }),
            );
            let job = pod("c", "backup-29-x", Some(("batch/v1", "Job", "backup-29")), &json!({}));
            answer.json(200, &list("1", "", &[web("a"), other, job]));
        }
        false if asked.is_watch() => {
            answer.begin();
            wait_for_end(answer);
        }
        false => answer.error(403),
    });
    let (pods, asked) = ask(&server);
    asked.recv_timeout(WAIT).expect("the first answer");
    knows(&pods, "a", "Deployment/web", &["app=a"]);
    knows(&pods, "b", "ReplicaSet/old", &[]);
    knows(&pods, "c", "Job/backup-29", &[]);
    let asked = server.asked();
    let of = |resource: &str| asked.iter().filter(|asked| asked.path.contains(resource)).count();
    assert_eq!((of("replicasets"), of("jobs")), (1, 1), "a refusal is not asked for again");
}

#[test]
fn an_owner_is_asked_for_until_the_server_answers() {
    let failures = AtomicUsize::new(0);
    let server = ApiServer::start(move |asked, answer| {
        let job = |uid: &str| pod(uid, "backup-29-x", Some(("batch/v1", "Job", "backup-29")), &json!({}));
        if asked.is_list() {
            answer.json(200, &list("1", "", &[job("a")]));
        } else if asked.is_watch() {
            answer.begin();
            answer.event("ADDED", &web("b"));
            wait_for_end(answer);
        } else {
            match failures.fetch_add(1, Ordering::SeqCst) {
                0 | 2 => answer.error(503),
                _ => owners(asked, answer),
            }
        }
    });
    let (pods, _asked) = ask(&server);
    knows(&pods, "b", "Deployment/web", &["app=b"]);
    knows(&pods, "a", "CronJob/backup", &[]);
}

#[test]
fn failures_pass_and_what_was_known_stays() {
    let failures = AtomicUsize::new(0);
    let server = watches(move |_, _, answer| match failures.fetch_add(1, Ordering::SeqCst) {
        0 => answer.error(403),
        1 => answer.error(500),
        2 => answer.hang_up(),
        _ => {
            answer.begin();
            answer.event("ADDED", &web("late"));
            wait_for_end(answer);
        }
    });
    let (pods, _asked) = ask(&server);
    wait_until("the list", || pods.find("listed-0").is_some());
    knows(&pods, "late", "Deployment/web", &["app=late"]);
    assert!(pods.find("listed-0").is_some());
    assert_eq!(server.asked().iter().filter(|asked| asked.is_list()).count(), 1);
}

#[test]
fn a_server_that_comes_later_is_found() {
    let files = ApiServer::start(|_, _| {});
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("address").port();
    drop(free);
    let (pods, asked) = ask_at(&files, &format!("https://localhost:{port}"));
    asked.recv_timeout(WAIT).expect("the first answer");
    assert_eq!(pods.count(), 0);
    let server = ApiServer::at(port, |asked, answer| match asked.is_list() {
        true => answer.json(200, &list("1", "", &[web("a")])),
        false if asked.is_watch() => {
            answer.begin();
            wait_for_end(answer);
        }
        false => owners(asked, answer),
    });
    // Another certificate: that of the authority is read again, too.
    std::fs::copy(server.path("ca.crt"), files.path("ca.crt")).expect("certificate");
    knows(&pods, "a", "Deployment/web", &["app=a"]);
}

#[test]
fn what_is_too_large_is_left_out() {
    let lists = AtomicUsize::new(0);
    let server = ApiServer::start(move |asked, answer| {
        let padded = |uid: &str, bytes: usize| {
            let mut pod = web(uid);
            pod["metadata"]["annotations"] = json!({ "x": "y".repeat(bytes) });
            pod
        };
        if asked.is_list() {
            match lists.fetch_add(1, Ordering::SeqCst) {
                0 => answer.json(200, &list("1", "", &[padded("huge", 33 << 20)])),
                1 => {
                    let many: Vec<Value> = (0..5000).map(|number| web(&format!("many-{number}"))).collect();
                    answer.json(200, &list("2", "", &many));
                }
                _ => answer.error(500),
            }
        } else if asked.is_watch() {
            answer.begin();
            answer.event("DELETED", &web("many-0"));
            answer.event("ADDED", &padded("huge", 5 << 20));
            let labels: HashMap<String, String> =
                (0..40).map(|number| (format!("app.kubernetes.io/{number:03}"), "v".repeat(63))).collect();
            answer.event("ADDED", &pod("labels", "x", None, &json!(labels)));
            answer.event("ADDED", &web("one too many"));
            answer.event("BOOKMARK", &json!({ "metadata": { "resourceVersion": "9" } }));
            answer.event("MODIFIED", &pod("many-1", "x", None, &json!({ "app": "last" })));
            wait_for_end(answer);
        } else {
            owners(asked, answer);
        }
    });
    let (pods, _asked) = ask(&server);
    knows(&pods, "many-1", "", &["app=last"]);
    assert_eq!(pods.count(), 4096);
    assert!(pods.find("huge").is_none() && pods.find("one too many").is_none());
    assert_eq!(pods.find("labels").expect("the pod").labels.len(), 8);
}

/// A pod with its addresses, as the API server shows whole pods.
fn whole(uid: &str, name: &str, addresses: &[&str], phase: &str) -> Value {
    let mut pod = pod(uid, name, WEB, &json!({ "pod-template-hash": "5b8" }));
    let all: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
    pod["kind"] = "Pod".into();
    pod["spec"] = json!({ "hostNetwork": name.starts_with("node"), "containers": [{ "image": "x" }] });
    pod["status"] = json!({ "phase": phase, "podIP": addresses.first(), "podIPs": all });
    pod
}

fn service(uid: &str, name: &str, spec: Value, balanced: &[&str]) -> Value {
    let ingress: Vec<Value> = balanced.iter().map(|address| json!({ "ip": address })).collect();
    json!({
        "metadata": { "uid": uid, "name": name, "namespace": "shop", "resourceVersion": "9" },
        "spec": spec, "status": { "loadBalancer": { "ingress": ingress } },
    })
}

/// Kind, name and workload of what is known at an address.
fn at(cluster: &KnownCluster, address: &str) -> Option<String> {
    let peer = cluster.peers.find(address.parse().expect("address"))?;
    let workload = peer.workload.as_ref();
    let workload = workload.map(|workload| format!(" of {}/{}", workload.kind, workload.name));
    Some(format!("{} {}/{}{}", peer.kind.name(), peer.namespace, peer.name, workload.unwrap_or_default()))
}

#[test]
fn peers_are_pods_and_services_by_their_addresses() {
    let (sender, events) = channel();
    let events: Events = Arc::new(Mutex::new(events));
    let server = ApiServer::start(move |asked, answer| {
        let is_of_node = asked.query.contains_key("fieldSelector");
        let is_watch = asked.query.contains_key("watch");
        match (asked.path.as_str(), is_of_node, is_watch) {
            ("/api/v1/pods", true, false) => answer.json(200, &list("1", "", &[web("a")])),
            ("/api/v1/pods", false, false) => {
                let pods = [
                    whole("p1", "web-5b8-x", &["10.1.0.1", "fd00::1"], "Running"),
                    whole("p2", "node-exporter", &["192.168.0.1"], "Running"),
                    whole("p3", "done", &["10.1.0.3"], "Succeeded"),
                    whole("p4", "starting", &[], "Pending"),
                ];
                let next = if asked.query.contains_key("continue") { 2 } else { 0 };
                let rest = if next == 0 { "more" } else { "" };
                answer.json(200, &list("1", rest, &pods[next..next + 2]));
            }
            ("/api/v1/services", _, false) => {
                let addresses = json!({
                    "clusterIP": "10.2.0.1", "clusterIPs": ["10.2.0.1", "fd01::1"], "externalIPs": ["203.0.113.1"],
                });
                let services = [
                    service("s1", "web", addresses, &["203.0.113.2"]),
                    service("s2", "headless", json!({ "clusterIP": "None", "externalIPs": null }), &[]),
                ];
                answer.json(200, &list("1", "", &services));
            }
            ("/api/v1/pods", false, true) => follow(&events, answer),
            (_, _, true) => {
                answer.begin();
                wait_for_end(answer);
            }
            _ => owners(asked, answer),
        }
    });
    let (cluster, asked) = watch(&server, &server.url(), true);
    asked.recv_timeout(WAIT).expect("the first answers");
    let (web, service) =
        (Some("pod shop/web-5b8-x of Deployment/web".to_owned()), Some("service shop/web".to_owned()));
    for (address, expected) in [
        ("10.1.0.1", &web),
        ("fd00::1", &web),
        ("10.2.0.1", &service),
        ("fd01::1", &service),
        ("203.0.113.1", &service),
        ("203.0.113.2", &service),
        // A pod in the network of its node, one that has ended, and nothing.
        ("192.168.0.1", &None),
        ("10.1.0.3", &None),
        ("10.1.0.9", &None),
    ] {
        assert_eq!(&at(&cluster, address), expected, "{address}");
    }
    assert_eq!(cluster.pods.count(), 1, "the pods of the node are asked for, too");
    let send = |kind, object| sender.send((kind, object)).expect("the server");
    let becomes = |address: &str, expected: &str| {
        wait_until(&format!("{address}: {expected}"), || at(&cluster, address).as_deref() == Some(expected));
    };
    send("MODIFIED", whole("p4", "starting", &["10.1.0.4"], "Running"));
    becomes("10.1.0.4", "pod shop/starting of Deployment/web");
    // The address of a pod that has ended keeps its name until another pod has it.
    send("DELETED", whole("p1", "web-5b8-x", &["10.1.0.1", "fd00::1"], "Running"));
    send("ADDED", whole("p5", "next", &["fd00::1"], "Running"));
    becomes("fd00::1", "pod shop/next of Deployment/web");
    assert_eq!(at(&cluster, "10.1.0.1"), web);
    let asked = server.asked();
    let of_peers = asked.iter().filter(|asked| !asked.query.contains_key("fieldSelector"));
    assert!(of_peers.clone().all(|asked| asked.token == "first"));
    let of_lists = of_peers.filter(|asked| asked.query.contains_key("limit"));
    assert!(
        of_lists.clone().count() == 3 && of_lists.clone().all(|asked| asked.accept == "application/json")
    );
}

#[test]
fn without_permission_for_peers_the_pods_of_the_node_are_known() {
    let server = ApiServer::start(|asked, answer| match asked.query.contains_key("fieldSelector") {
        true if asked.is_list() => answer.json(200, &list("1", "", &[web("a")])),
        true => {
            answer.begin();
            wait_for_end(answer);
        }
        false if asked.path.starts_with("/api/v1/") => answer.error(403),
        false => owners(asked, answer),
    });
    let (cluster, asked) = watch(&server, &server.url(), true);
    asked.recv_timeout(WAIT).expect("the first answers");
    knows(&cluster.pods, "a", "Deployment/web", &["app=a"]);
    assert_eq!(at(&cluster, "10.1.0.1"), None);
}
