//! Network namespaces and cgroups by name: made after the start, made again, and others with similar names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    Test,
    daemon::connections,
    lab::{Story, Tracer, in_lab, sockstate, wait_until},
    netns::in_new_netns,
    owners::cgroup2_mount,
    roles::Actor,
    skip,
    sockets::fresh_port,
    test,
    visibility::mount,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("names: a network namespace that is made again", remade),
        test("names: a network namespace that is made later", || made_later(&trace, true)),
        test("names: the same for a daemon", || made_later(&daemon, true)),
        test("names: the same for one sink of a daemon", || made_later(&sink, false)),
        test("names: a name of ip netns that is made later", in_run),
        test("names: a cgroup that is made later", later_cgroup),
    ]
}

/// Runs `work` in a network namespace that has this name until `work` returns.
fn with_name<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    let mut name = None;
    let done = in_new_netns(|| {
        name = Some(Name::of("thread-self", path));
        work()
    });
    drop(name);
    done.expect("a network namespace")
}

/// The name of a network namespace, which is removed also if the test fails.
pub(crate) struct Name(PathBuf);

impl Name {
    /// Gives the namespace of this task the name. `task` is the task's directory in /proc.
    pub(crate) fn of(task: &str, path: &Path) -> Self {
        fs::write(path, "").expect("file");
        let name = Self(path.to_owned());
        let (from, to) = (format!("/proc/{task}/ns/net"), path.display().to_string());
        mount(&from, &to, "", libc::MS_BIND, "").expect("mount");
        name
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.0.display().to_string()).expect("no NUL");
        // SAFETY: a string that lives until it returns.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        let _ = fs::remove_file(&self.0);
    }
}

fn trace(netns: &str) -> Tracer {
    Tracer::spawn(sockstate().args(["trace", "--format", "json", "--alongside", "--netns", netns]))
}

fn is_end_of(record: &Value, port: u16) -> bool {
    record["from"] == "LISTEN" && record["to"] == "CLOSE" && record["local"]["port"] == port
}

/// Makes one connection on `port`, and waits for the record of its end.
fn connect_and_wait(tracer: &mut Tracer, port: u16) {
    connections(1, port);
    tracer.wait_for(|record| is_end_of(record, port));
}

/// Checks that the stream has all transitions on `port`: those of the listener, and of both sides of the connection.
fn check_whole(story: &Story, port: u16) {
    let is_of = |connection: &&Vec<&Value>| {
        connection
            .iter()
            .any(|connection| connection["local"]["port"] == port || connection["remote"]["port"] == port)
    };
    let found: Vec<_> = story.connections().into_iter().filter(|connection| is_of(&connection)).collect();
    assert_eq!(found.len(), 3, "{found:#?}");
    let mut begins: Vec<_> =
        found.iter().map(|connection| connection[0]["from"].as_str().expect("from")).collect();
    begins.sort_unstable();
    assert_eq!(begins, ["CLOSE", "CLOSE", "LISTEN"], "{found:#?}");
}

fn check_nothing(story: &Story, port: u16) {
    for record in story.transitions() {
        assert!(
            record["local"]["port"] != port && record["remote"]["port"] != port,
            "of another namespace: {record}"
        );
    }
}

fn remade() {
    let directory = tempfile::tempdir().expect("directory");
    let (path, near) = (directory.path().join("web"), directory.path().join("web2"));
    let [first, other, second] = [0; 3].map(|_| fresh_port());
    let mut tracer = with_name(&path, || {
        let mut tracer = trace(&path.display().to_string());
        connect_and_wait(&mut tracer, first);
        tracer
    });
    // The new namespace may get the inode of the one that has ended.
    with_name(&near, || connections(1, other));
    with_name(&path, || connect_and_wait(&mut tracer, second));
    with_name(&near, || connections(1, other));
    with_name(&path, || connect_and_wait(&mut tracer, second + 1));
    let story = tracer.stop();
    [first, second, second + 1].into_iter().for_each(|port| check_whole(&story, port));
    check_nothing(&story, other);
}

fn config(directory: &Path, filter: &str, sink_filter: &str) -> Tracer {
    let path = directory.join("config.toml");
    let text = format!(
        "{filter}\n[kernel]\nalongside = true\n[sinks.console]\ntype = \"stdout\"\nbatch-time = \"1ms\"\n{sink_filter}"
    );
    fs::write(&path, text).expect("config");
    Tracer::spawn(sockstate().args(["run", "--config"]).arg(&path))
}

fn daemon(netns: &str) -> Tracer {
    let directory = tempfile::tempdir().expect("directory");
    config(directory.path(), &format!("[filter]\nnetns = \"{netns}\""), "")
}

fn sink(netns: &str) -> Tracer {
    let directory = tempfile::tempdir().expect("directory");
    config(directory.path(), "", &format!("[sinks.console.filter]\nnetns = \"{netns}\"\n"))
}

/// If the filter of a sink waits for a name, only standard error says so, and no record.
fn made_later(start: &dyn Fn(&str) -> Tracer, start_says_so: bool) {
    let directory = tempfile::tempdir().expect("directory");
    later(&directory.path().join("web"), &directory.path().join("web2"), start, start_says_so);
}

fn later(path: &Path, near: &Path, start: &dyn Fn(&str) -> Tracer, start_says_so: bool) {
    let [port, other] = [0; 2].map(|_| fresh_port());
    let named = if path.starts_with("/run/netns") { path.file_name().map(Path::new) } else { None };
    let mut tracer = start(&named.unwrap_or(path).display().to_string());
    let degraded = tracer.first()["degraded"].to_string();
    let waits = format!("waiting for network namespace {}", path.display());
    assert_eq!(degraded.contains(&waits), start_says_so, "{degraded}");
    assert_eq!(degraded.contains("waiting"), start_says_so, "{degraded}");
    with_name(near, || connections(1, other));
    with_name(path, || connect_and_wait(&mut tracer, port));
    let story = tracer.stop();
    check_whole(&story, port);
    check_nothing(&story, other);
}

fn in_run() {
    let directory = Path::new("/run/netns");
    fs::create_dir_all(directory).expect("directory");
    let name = format!("sockstate-{}", std::process::id());
    later(&directory.join(&name), &directory.join(format!("{name}-2")), &trace, true);
    let mut degraded = trace(&name);
    let first = degraded.first();
    assert!(
        first["degraded"].to_string().contains(&format!("waiting for network namespace /run/netns/{name}"))
    );
    degraded.poll(|_| true);
    drop(degraded.stop());
}

/// A listener of a process in this cgroup.
fn listen_in(group: &Path, port: u16) {
    let mut inside = Actor::start("late listener", port);
    fs::write(group.join("cgroup.procs"), inside.pid().to_string()).expect("move into it");
    inside.go_on();
    assert_eq!(inside.hear(), "listening");
    inside.kill();
}

fn later_cgroup() {
    let Some(mount) = cgroup2_mount() else { return skip("no cgroup v2 is mounted") };
    let name = format!("sockstate-later-{}", std::process::id());
    let (group, near) = (mount.join(&name), mount.join(format!("{name}-2")));
    let [port, other] = [0; 2].map(|_| fresh_port());
    let result = std::panic::catch_unwind(|| {
        in_lab(|netns| {
            let mut tracer = Tracer::start(netns, &["--cgroup", &format!("/{name}")]);
            let degraded = tracer.first()["degraded"].to_string();
            assert!(degraded.contains(&format!("waiting for cgroup /{name}")), "{degraded}");
            fs::create_dir(&near).expect("make a cgroup");
            listen_in(&near, other);
            fs::create_dir(&group).expect("make the cgroup");
            listen_in(&group, port);
            tracer.wait_for(|record| is_end_of(record, port));
            let story = tracer.stop();
            assert_eq!(story.transitions().count(), 2);
            check_nothing(&story, other);
        });
    });
    let remove =
        |path: &Path| -> io::Result<()> { if path.exists() { fs::remove_dir(path) } else { Ok(()) } };
    wait_until("the cgroups are empty", || remove(&group).is_ok() && remove(&near).is_ok());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
