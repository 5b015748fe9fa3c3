//! What a look can see: it answers "OK" only if no socket can be missing.

mod confinement;

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use confinement::{apply, c_string, confined_run};
pub(crate) use confinement::{confined, drop_capability, mount};
use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    holders::ring_with,
    lab::{Tracer, can_list_holders, in_lab, own_netns, sockstate},
    look_test,
    observer::{patience, wait_for_states},
    roles::Actor,
    schema,
    sockets::{Kind, fresh_port, with_own_table},
    stuck::holders,
    test,
};

const CAP_SYS_PTRACE: &str = "drop 19";
const CAP_SYS_ADMIN: &str = "drop 21";

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        look_test("visibility: everything can be seen, also where it looks otherwise", all_is_seen),
        look_test("visibility: of one namespace everything can be seen without capabilities", one_namespace),
        look_test("visibility: a namespace that lives by sockets only", sockets_only),
        look_test("visibility: a namespace that lives by sockets of a thread", || sockets_of_a_thread(false)),
        look_test("visibility: a namespace that a descriptor of a thread leads to", || {
            sockets_of_a_thread(true)
        }),
        look_test("visibility: a namespace that lives by sockets of io_uring", sockets_of_a_ring),
        look_test("visibility: a namespace that lives by MPTCP sockets", mptcp_sockets),
        look_test("visibility: a namespace that a descriptor or a mount leads to", by_descriptor_and_mount),
        look_test("visibility: a closed socket is in no table, and no gap", closed_sockets),
        look_test("visibility: a stale name is not a gap, and a covered name is one", names),
        look_test("visibility: the trace and doctor report gaps, too", trace_and_doctor),
        test("visibility: the thread that walks namespaces stays in none", walker),
    ];
    for (name, confinement, reason) in [
        ("root of a user namespace", &["user"][..], "descriptors"),
        ("root of a user and network namespace", &["user", "net"], "network_namespaces"),
        ("a rootless container", &["user", "net", "mount", "pid", "proc"], "processes"),
        ("a privileged container with a pid namespace", &["mount", "pid", "proc"], "processes"),
        ("without CAP_SYS_PTRACE", &[CAP_SYS_PTRACE], "descriptors"),
        ("without CAP_SYS_ADMIN", &[CAP_SYS_ADMIN], "network_namespaces"),
        ("without any capability", &["drop all"], "descriptors"),
        ("hidepid=2", &["mount", "proc hidepid=2", CAP_SYS_PTRACE], "processes"),
        ("hidepid=1", &["mount", "proc hidepid=1", CAP_SYS_PTRACE], "descriptors"),
    ] {
        tests.push(look_test(format!("visibility: {name}"), move || blind(confinement, reason)));
    }
    tests
}

/// The output of a look by a confined process.
struct Answer {
    code: Option<i32>,
    text: String,
    errors: String,
}

impl Answer {
    fn by(confinement: &[&str], args: &[&str]) -> Self {
        let output = confined_run(confinement, args);
        Self {
            code: output.status.code(),
            text: String::from_utf8(output.stdout).expect("UTF-8"),
            errors: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The records, checked against the schema.
    fn records(&self) -> Vec<Value> {
        let records: Vec<Value> =
            self.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        records.iter().for_each(schema::check);
        records
    }
}

/// The reasons in the record of an incomplete look.
fn reasons(records: &[Value]) -> Vec<String> {
    let looks = records.iter().filter(|record| record["kind"] == "look");
    let reasons = looks.flat_map(|record| record["reasons"].as_array().expect("reasons"));
    reasons.map(|record| record["reason"].as_str().expect("reason").to_owned()).collect()
}

/// Runs `work` in a namespace that has a leak on a port.
fn with_leak<T: Send>(work: impl FnOnce(u64, u16) -> T + Send) -> T {
    let port = fresh_port();
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let result = work(netns, port);
        drop(server);
        result
    })
}

fn check_of(port: &str) -> [&str; 6] {
    ["close-wait", "--check", "--older-than", "0", "--port", port]
}

/// The look cannot see the namespace with the leak. It must not answer OK.
fn blind(confinement: &[&str], reason: &str) {
    with_leak(|_, port| {
        let port = port.to_string();
        // The look runs in another namespace than the leak.
        in_lab(|_| {
            let answer = Answer::by(confinement, &check_of(&port));
            assert_eq!(answer.code, Some(3), "{}{}", answer.text, answer.errors);
            assert!(answer.text.starts_with("SOCKSTATE UNKNOWN - 0 sockets stuck"), "{}", answer.text);
            assert!(!answer.errors.is_empty());

            let args = ["close-wait", "--older-than", "0", "--port", &port, "--format"];
            let answer = Answer::by(confinement, &[&args[..], &["json"]].concat());
            let records = answer.records();
            assert!(answer.code == Some(0) && !answer.errors.is_empty(), "{}", answer.errors);
            assert_eq!(
                records
                    .iter()
                    .filter(|record| record["kind"] == "stuck" && record["age_ns"].is_u64())
                    .count(),
                0
            );
            let last = records.last().expect("a record");
            assert_eq!((&last["kind"], &last["complete"]), (&"look".into(), &false.into()));
            assert!(reasons(&records).contains(&reason.to_owned()), "{last}");

            let answer = Answer::by(confinement, &[&args[..], &["table"]].concat());
            assert!(answer.text.contains("this is not all"), "{}", answer.text);
        });
    });
}

/// Waits until a check of an unused port answers `OK`: a namespace of another test may still exist because of its
/// sockets.
fn assert_ok(confinement: &[&str], args: &[&str]) {
    let unused = fresh_port().to_string();
    let mut last = String::new();
    let deadline = Instant::now() + patience();
    loop {
        let answer = Answer::by(confinement, &[&check_of(&unused)[..], args].concat());
        if answer.code == Some(0) {
            assert!(answer.text.starts_with("SOCKSTATE OK - 0 "), "{}", answer.text);
            assert!(answer.errors.is_empty(), "{}", answer.errors);
            return;
        }
        last.clone_from(&answer.text);
        assert!(Instant::now() < deadline, "{confinement:?}: {last}");
    }
}

/// The confinements are nearly the same, but the look sees everything.
fn all_is_seen() {
    if !can_list_holders() {
        // A closed socket of any process makes the look incomplete there.
        return crate::skip("this kernel does not list which namespace a held socket is in (needs 5.11)");
    }
    with_leak(|_, port| {
        let port = port.to_string();
        in_lab(|_| {
            for confinement in [
                &[][..],
                &["mount"],
                // This mount option does not restrict root.
                &["mount", "proc hidepid=2"],
                // This mount option hides files, and no processes.
                &["mount", "proc subset=pid"],
            ] {
                let answer = Answer::by(confinement, &check_of(&port));
                assert_eq!(answer.code, Some(1), "{confinement:?}: {}{}", answer.text, answer.errors);
                assert!(answer.text.starts_with("SOCKSTATE WARNING - 1 "), "{}", answer.text);
                assert_ok(confinement, &[]);
            }
            // The process is in another pid namespace, and its /proc shows all processes of the host.
            if fs::read_link("/proc/1/ns/net").is_ok() {
                assert_eq!(Answer::by(&["pid"], &check_of(&port)).code, Some(1));
            }
        });
    });
}

/// A process without capabilities can list all sockets of its own namespace.
fn one_namespace() {
    with_leak(|netns, port| {
        let (netns, port) = (netns.to_string(), port.to_string());
        for confinement in [&[CAP_SYS_ADMIN][..], &[CAP_SYS_PTRACE], &["drop all"], &["user"]] {
            assert_ok(confinement, &["--netns", &netns]);
            // A stuck socket has the same exit code, although the look may not see its holder.
            let check = [&check_of(&port)[..], &["--netns", &netns]].concat();
            assert_eq!(Answer::by(confinement, &check).code, Some(1), "{confinement:?}");
        }
        let args = ["close-wait", "--older-than", "0", "--netns", &netns, "--format", "json"];
        let answer = Answer::by(&["mount", "pid", "proc"], &args);
        let records = answer.records();
        assert_eq!(reasons(&records), ["processes"], "the holder cannot be seen");
        assert_eq!((&records[0]["reason"], holders(&records[0]).len()), (&"holder_hidden".into(), 0));
    });
}

/// The sockets of a namespace that this thread has left, and perhaps a descriptor of the namespace.
struct Left {
    netns: u64,
    sockets: (Socket, Socket),
    namespace: Option<OwnedFd>,
}

/// Makes a leak in a new namespace, and returns to the old namespace.
fn leave_namespace(port: u16, keep: bool) -> Left {
    visit_namespace(|| {
        let (listener, client, server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let namespace = keep.then(|| fs::File::open("/proc/thread-self/ns/net").expect("namespace").into());
        Left { netns: own_netns(), sockets: (listener, server), namespace }
    })
}

/// Runs `work` in a new namespace, and returns to the old namespace.
fn visit_namespace<T>(work: impl FnOnce() -> T) -> T {
    let home = fs::File::open("/proc/thread-self/ns/net").expect("namespace");
    // SAFETY: takes a number; only this thread moves.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    crate::netns::loopback_up().expect("loopback");
    let done = work();
    // SAFETY: takes an open descriptor and a number; only this thread moves.
    assert_eq!(unsafe { libc::setns(home.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
    done
}

fn sockets_only() {
    in_lab(|_| {
        let port = fresh_port();
        let left = leave_namespace(port, false);
        let (number, port) = (left.netns.to_string(), port.to_string());
        let answer = Answer::by(&[], &check_of(&port));
        assert_eq!(answer.code, Some(3), "{}{}", answer.text, answer.errors);
        let args = ["close-wait", "--older-than", "1h", "--port", &port, "--format", "json"];
        let found = Answer::by(&[], &args);
        assert!(reasons(&found.records()).contains(&"sockets".to_owned()), "{}", found.text);
        let of_namespace = Answer::by(&[], &[&args[..], &["--netns", &number]].concat());
        if !can_list_holders() {
            assert!(
                of_namespace.errors.contains(&number),
                "it says that it cannot look there: {}",
                of_namespace.errors
            );
            return;
        }
        assert!(answer.text.contains("stuck; 1 may be"), "{}", answer.text);
        for answer in [found, of_namespace] {
            let records = answer.records();
            assert_eq!(records.len(), 2, "the socket, and that it is not all: {records:?}");
            let record = &records[0];
            assert_eq!((&record["state"], &record["netns"]), (&"CLOSE_WAIT".into(), &left.netns.into()));
            let fd = left.sockets.1.as_raw_fd() as u64;
            assert_eq!(holders(record), [(u64::from(std::process::id()), fd)]);
            // Without evidence, the value is null.
            for unknown in ["age_ns", "unread_bytes", "unsent_bytes", "retransmits", "timer"] {
                assert_eq!(record[unknown], Value::Null, "{unknown}: {record}");
            }
            assert_eq!(record["reason"], "unknown");
            let commands = record["commands"].as_array().expect("commands");
            assert!(
                commands.iter().all(|record| !record.as_str().is_some_and(|record| record.contains("ss -K"))),
                "{record}"
            );
        }
        // The namespace ends with its last socket.
        drop(left);
        assert_ok(&[], &[]);
    });
}

/// The sockets or the descriptor of the namespace are in the descriptor table of one thread only.
fn sockets_of_a_thread(keep: bool) {
    in_lab(|_| {
        let port = fresh_port();
        let left = leave_namespace(port, keep);
        let (netns, fd, text) = (left.netns, left.sockets.1.as_raw_fd(), port.to_string());
        let descriptors: Vec<i32> = [left.sockets.0.as_raw_fd(), fd]
            .into_iter()
            .chain(left.namespace.iter().map(AsRawFd::as_raw_fd))
            .collect();
        with_own_table(descriptors, |tid| {
            drop(left);
            let answer = Answer::by(&[], &check_of(&text));
            let (code, begin) = if keep { (1, "SOCKSTATE WARNING") } else { (3, "SOCKSTATE UNKNOWN") };
            assert!(
                answer.code == Some(code) && answer.text.starts_with(begin),
                "{}{}",
                answer.text,
                answer.errors
            );
            if keep || can_list_holders() {
                let older = if keep { "0" } else { "1h" };
                let args = ["close-wait", "--older-than", older, "--port", &text, "--format", "json"];
                let records = Answer::by(&[], &args).records();
                assert_eq!(
                    (&records[0]["netns"], &records[0]["state"]),
                    (&netns.into(), &"CLOSE_WAIT".into())
                );
                let holder = &records[0]["holders"][0];
                let expected = (std::process::id().into(), tid.into(), fd.into());
                assert_eq!(
                    (&holder["pid"], &holder["tid"], &holder["fd"]),
                    (&expected.0, &expected.1, &expected.2)
                );
            }
        });
        if can_list_holders() {
            assert_ok(&[], &[]);
        }
    });
}

/// Only an io_uring instance holds the sockets of the namespace.
fn sockets_of_a_ring() {
    if !can_list_holders() {
        return crate::skip("this kernel does not list which namespace a held socket is in (needs 5.11)");
    }
    in_lab(|_| {
        let port = fresh_port();
        let left = leave_namespace(port, false);
        let ring = match ring_with(left.sockets.1.as_raw_fd()) {
            Ok(ring) => ring,
            Err(error) => return crate::skip(&format!("io_uring does not work here: {error}")),
        };
        drop(left);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.as_raw_fd())).expect("fdinfo");
        if !info.contains("socket:[") {
            return crate::skip("this kernel does not show which sockets a ring has (needs 6.13)");
        }
        let answer = Answer::by(&[], &check_of(&port.to_string()));
        assert_eq!(answer.code, Some(3), "{}{}", answer.text, answer.errors);
        assert!(answer.errors.contains("io_uring"), "{}", answer.errors);
        drop(ring);
        // Sockets that are in a table, or that use another protocol, are not a gap.
        let (listener, client, server) = Kind::V4.pair(port);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("UDP");
        // Any user can give a unix socket a name that is not UTF-8. Such a name must not hide the rest of the table.
        let name =
            format!("sockstate-{port}-").into_bytes().into_iter().chain([0xff, 0xfe]).collect::<Vec<_>>();
        let name =
            <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
                .expect("name");
        let named = std::os::unix::net::UnixDatagram::bind_addr(&name).expect("unix socket");
        let unix = std::os::unix::net::UnixDatagram::unbound().expect("unix socket");
        let all = [server.as_raw_fd(), udp.as_raw_fd(), unix.as_raw_fd()];
        let rings = all.map(|fd| ring_with(fd).expect("io_uring"));
        drop((client, server, udp, unix));
        assert_ok(&[], &[]);
        drop((listener, rings, named));
    });
}

/// MPTCP sockets are not in the kernel's list of held TCP sockets.
fn mptcp_sockets() {
    if !can_list_holders() {
        return crate::skip("this kernel does not list which namespace a held socket is in (needs 5.11)");
    }
    in_lab(|_| {
        let port = fresh_port();
        let Some(left) = visit_namespace(|| crate::mptcp::pair(port)) else {
            return crate::skip("this kernel has no MPTCP");
        };
        let answer = Answer::by(&[], &check_of(&port.to_string()));
        assert_eq!(answer.code, Some(3), "{}{}", answer.text, answer.errors);
        assert!(answer.errors.contains("MPTCP"), "{}", answer.errors);
        drop(left);
        let here = crate::mptcp::pair(port);
        assert_ok(&[], &[]);
        drop(here);
    });
}

fn by_descriptor_and_mount() {
    in_lab(|_| {
        let port = fresh_port();
        let text = port.to_string();
        let args = ["close-wait", "--older-than", "0", "--port", &text, "--format", "json"];
        let left = leave_namespace(port, true);
        let found = Answer::by(&[], &args).records();
        assert_eq!((&found[0]["netns"], &found[0]["unread_bytes"]), (&left.netns.into(), &0.into()));
        assert_eq!(found[0]["reason"], "eof_unread");
        assert!(left.namespace.is_some());
        drop(left);

        // The namespace is mounted in a mount namespace that only one process is in.
        let mut actor = Actor::start("namespace mounter", port);
        let netns: u64 = actor.hear().parse().expect("a namespace");
        let found = Answer::by(&[], &args).records();
        assert_eq!((&found[0]["netns"], &found[0]["unread_bytes"]), (&netns.into(), &0.into()));
        actor.end();
    });
}

/// The role of a process that leaks in a network namespace to which only a mount leads. The mount is in the mount
/// namespace of this process.
pub(crate) fn mount_namespace(port: u16) {
    apply("mount").expect("a mount namespace");
    let directory = tempfile::tempdir().expect("directory");
    let name = directory.path().join("a name");
    fs::write(&name, "").expect("file");
    let left = leave_namespace(port, true);
    let namespace = left.namespace.as_ref().expect("kept").as_raw_fd();
    let name = name.to_str().expect("UTF-8");
    mount(&format!("/proc/self/fd/{namespace}"), name, "", libc::MS_BIND, "").expect("mount");
    let Left { netns, sockets, namespace } = left;
    drop(namespace);
    println!("{netns}");
    while io::Read::read(&mut io::stdin(), &mut [0]).expect("stdin") == 1 {}
    drop(sockets);
    // SAFETY: the path is a C string.
    unsafe { libc::umount2(c_string(name).as_ptr(), libc::MNT_DETACH) };
}

fn closed_sockets() {
    if !can_list_holders() {
        return crate::skip("this kernel does not list which namespace a held socket is in (needs 5.11)");
    }
    in_lab(|_| {
        let closed: Vec<Socket> = (0..3)
            .map(|_| Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).expect("socket"))
            .collect();
        assert_ok(&[], &[]);
        drop(closed);
    });
}

fn names() {
    if !can_list_holders() {
        return crate::skip("this kernel does not list which namespace a held socket is in (needs 5.11)");
    }
    in_lab(|_| {
        assert_ok(&["mount", "stale name"], &[]);
        let unused = fresh_port().to_string();
        let answer = Answer::by(&["mount", "covered name"], &check_of(&unused));
        assert_eq!(answer.code, Some(3), "{}{}", answer.text, answer.errors);
        assert!(answer.text.contains("/run/netns/covered"), "{}", answer.text);
        // A process leads to the namespace, so its name is not needed.
        assert_ok(&["mount", "covered own name"], &[]);
    });
}

fn trace_and_doctor() {
    let pid_namespace = ["mount", "pid", "proc"];
    let doctor = |confinement: &[&str]| -> Value {
        serde_json::from_str(&Answer::by(confinement, &["doctor", "--format", "json"]).text).expect("JSON")
    };
    let found = doctor(&pid_namespace);
    assert_eq!(found["look"]["complete"], false, "{found}");
    assert_eq!(found["look"]["reasons"][0]["reason"], "processes", "{found}");
    let why = found["look"]["reasons"][0]["why"].as_str().expect("why").to_owned();
    assert!(found["degraded"].as_array().expect("degraded").contains(&why.clone().into()));

    let trace = ["trace", "--alongside", "--format", "json", "--duration", "0.1"];
    let degraded = |confinement: &[&str]| {
        let answer = Answer::by(confinement, &trace);
        let start: Value =
            serde_json::from_str(answer.text.lines().next().unwrap_or_default()).expect("JSON");
        assert_eq!(start["kind"], "start", "{}", answer.errors);
        schema::check(&start);
        (start["degraded"].as_array().expect("degraded").clone(), answer.errors)
    };
    let (answer, errors) = degraded(&pid_namespace);
    assert!(answer.contains(&why.clone().into()), "{answer:?}");
    assert!(errors.contains(&why), "{errors}");
    let (answer, _) = degraded(&["mount"]);
    assert!(!answer.contains(&why.into()), "{answer:?}");
}

fn walker() {
    in_lab(|other| {
        // A process in another namespace, so that the tracer enters a namespace.
        let _somebody = Actor::start("late listener", fresh_port());
        in_lab(|_| {
            let mut command = sockstate();
            command.args(["trace", "--format", "json", "--alongside", "--resync", "50ms", "--port", "1"]);
            let tracer = Tracer::spawn(&mut command);
            let threads = format!("/proc/{}/task", tracer.pid());
            let at_home = own_netns();
            let begin = Instant::now();
            let mut looks = 0;
            while begin.elapsed() < Duration::from_secs(2) {
                for thread in fs::read_dir(&threads).expect("threads").flatten() {
                    let path = thread.path();
                    let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                    if name.trim() == "namespaces" {
                        let namespace = fs::metadata(path.join("ns/net")).expect("namespace");
                        let namespace = std::os::unix::fs::MetadataExt::ino(&namespace);
                        assert_eq!(namespace, at_home, "in {namespace}, the other one is {other}");
                        looks += 1;
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
            assert!(looks > 10, "the thread was seen {looks} times");
            tracer.stop();
        });
    });
}
