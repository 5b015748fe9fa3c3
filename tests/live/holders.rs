//! The holders of a socket: registered files of io_uring, mappings, descriptor tables of threads, units, queues of unix
//! sockets.

use std::{
    fs,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    process,
};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{in_lab, wait_until},
    look_test,
    observer::wait_for_states,
    reasons::{only, text},
    roles::Actor,
    sockets::{Kind, fresh_port, keep_over_exec, with_own_table},
    stuck::{holders, look},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("reasons: socket activation, whose unit", activation),
        look_test("holders: a registered file of io_uring", registered),
        look_test("holders: a mapping", mapped),
        look_test("holders: a thread's own table, and a leader that has ended", threads),
        look_test("holders: none, while a message holds another socket", unrelated),
    ]
}

/// Makes an io_uring instance and registers this file. Returns the descriptor of the instance.
pub(crate) fn ring_with(fd: i32) -> std::io::Result<OwnedFd> {
    const IORING_REGISTER_FILES: u32 = 2;
    // `struct io_uring_params`.
    let mut parameters = [0_u32; 30];
    // SAFETY: the kernel writes the parameters, which are as long as it expects.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    if ring < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just opened, and owned by nobody else.
    let ring = unsafe { OwnedFd::from_raw_fd(ring as i32) };
    let number = ring.as_raw_fd();
    // SAFETY: the array has one descriptor.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, number, IORING_REGISTER_FILES, &raw const fd, 1)
    };
    if done == 0 { Ok(ring) } else { Err(std::io::Error::last_os_error()) }
}

fn registered() {
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        let ring = match ring_with(server.as_raw_fd()) {
            Ok(ring) => ring,
            Err(error) => return crate::skip(&format!("io_uring does not work here: {error}")),
        };
        drop((client, server));
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.as_raw_fd())).expect("fdinfo");
        let record = only(netns);
        if info.contains("socket:[") {
            let holder = &record["holders"][0];
            assert_eq!(
                (&holder["pid"], &holder["via"]),
                (&process::id().into(), &"io_uring".into()),
                "{record}"
            );
            assert_eq!(
                (&holder["ring_fd"], &holder["fd"]),
                (&ring.as_raw_fd().into(), &Value::Null),
                "{record}"
            );
            assert_eq!(record["reason"], "eof_unread");
            let groups = look(netns, &["close-wait", "--older-than", "0", "--group-by", "process"]);
            assert!(text(&groups[0], "key").ends_with(&format!("({})", process::id())), "{groups:?}");
        } else {
            // Before Linux 6.13, the kernel does not show which socket a registered file is.
            assert_eq!(record["reason"], "unknown", "{record}");
            assert!(text(&record, "why").contains(&format!("({})", process::id())), "{record}");
        }
    });
}

fn mapped() {
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        // SAFETY: a new mapping of an open descriptor; nobody reads it.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, server.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return crate::skip(&format!("a socket cannot be mapped: {}", std::io::Error::last_os_error()));
        }
        drop((client, server));
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let record = only(netns);
        // SAFETY: mapped above, and used by nobody.
        unsafe { libc::munmap(address, 4096) };
        let holder = &record["holders"][0];
        assert_eq!((&holder["pid"], &holder["via"]), (&process::id().into(), &"mapping".into()), "{record}");
        assert_eq!(record["reason"], "eof_unread", "{record}");
    });
}

fn threads() {
    in_lab(|netns| {
        let (_listener, client, server) = Kind::V4.pair(fresh_port());
        let fd = server.as_raw_fd() as u64;
        with_own_table(vec![fd as i32], |tid| {
            drop((client, server));
            // The thread has copies of all descriptors, so no FIN of the client is sent.
            let found = look(netns, &["sockets", "--state", "ESTABLISHED"]);
            assert_eq!(found.len(), 2, "{found:?}");
            for record in &found {
                let holder = &record["holders"][0];
                assert_eq!(
                    (&holder["pid"], &holder["tid"]),
                    (&process::id().into(), &tid.into()),
                    "{record}"
                );
            }
        });
        // A process whose leader has ended. Its threads still have the descriptors.
        let (_other, client, server) = Kind::V4.pair(fresh_port());
        let number = keep_over_exec(&server);
        let mut actor = Actor::start("headless holder", number);
        actor.hear();
        drop((client, server));
        let mut found = Vec::new();
        wait_until("its leader ends", || {
            found = look(netns, &["close-wait", "--older-than", "0"]);
            let status = fs::read_to_string(format!("/proc/{}/status", actor.pid())).expect("status");
            status.contains("State:\tZ") && found.len() == 1
        });
        assert_eq!(holders(&found[0]), [(actor.pid().into(), number as u64)], "{found:?}");
        assert_eq!(found[0]["reason"], "eof_unread", "{found:?}");
    });
}

/// The cgroups of a test, which are removed at its end.
struct Units(Vec<PathBuf>);

impl Units {
    /// A cgroup in the mounted hierarchy; `None` if there is no hierarchy that can be written to.
    fn make(names: &[&str]) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mount =
            mounts.lines().map(fields).find(|fields| fields.get(2).is_some_and(|kind| kind == "cgroup2"))?;
        let mut made = Self(Vec::new());
        for name in names {
            let path = Path::new(&mount[1]).join(format!("{}-{name}", process::id()));
            fs::create_dir(&path).ok()?;
            made.0.push(path);
        }
        Some(made)
    }

    fn enter(&self, at: usize, pid: u32) {
        fs::write(self.0[at].join("cgroup.procs"), pid.to_string()).expect("cgroup.procs");
    }

    fn name(&self, at: usize) -> &str {
        self.0[at].file_name().and_then(|name| name.to_str()).expect("UTF-8")
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        // A process that has ended leaves its cgroup a moment later.
        wait_until("empty cgroups", || {
            self.0.iter().all(|path| !path.exists() || fs::remove_dir(path).is_ok())
        });
    }
}

/// A process gets its only socket from the test, as from a service manager.
pub(crate) fn only_socket_of(pid: u32) -> Socket {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").flatten();
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let fd = fds.filter(is_socket).find_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // SAFETY: takes numbers; the process is our child.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the same.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, fd.expect("a socket"), 0) };
    assert!(process >= 0 && copy >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were just opened, and are owned by nobody else.
    unsafe {
        drop(OwnedFd::from_raw_fd(process as i32));
        Socket::from_raw_fd(copy as i32)
    }
}

fn activation() {
    let Some(units) = Units::make(&["activator.service", "web.service"]) else {
        return crate::skip("needs a cgroup v2 hierarchy that can be written to");
    };
    in_lab(|netns| {
        let port = fresh_port();
        let mut activator = Actor::start("late listener", port);
        units.enter(0, activator.pid());
        activator.go_on();
        assert_eq!(activator.hear(), "listening");
        drop(Kind::V4.connect(port).expect("connect"));
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let waiting = only(netns);
        // No process holds the socket, so the record has the unit in which the socket was created.
        assert_eq!((&waiting["unit"], waiting.get("made_in")), (&units.name(0).into(), None), "{waiting}");
        assert_eq!(waiting["creator"]["pid"], activator.pid());
        let listener = only_socket_of(activator.pid());
        let mut web = Actor::start("accepter", keep_over_exec(&listener));
        drop(listener);
        units.enter(1, web.pid());
        assert_eq!(web.hear(), "accepted");
        let held = only(netns);
        assert_eq!(holders(&held)[0].0, u64::from(web.pid()), "{held}");
        assert_eq!(
            (&held["unit"], &held["holders"][0]["unit"]),
            (&units.name(1).into(), &units.name(1).into())
        );
        assert_eq!(held["made_in"]["unit"], units.name(0), "{held}");
        let groups = look(netns, &["close-wait", "--older-than", "0", "--group-by", "container"]);
        assert_eq!((&groups[0]["key"], groups.len()), (&units.name(1).into(), 1), "{groups:?}");
        for (path, count) in [(&units.0[0], 1), (&units.0[1], 1), (&units.0[1].join("below"), 0)] {
            if count == 0 {
                fs::create_dir(path).expect("a cgroup");
            }
            let path = path.to_str().expect("UTF-8");
            let found = look(netns, &["close-wait", "--older-than", "0", "--cgroup", path]);
            assert_eq!(found.len(), count, "{path}: {found:?}");
        }
        fs::remove_dir(units.0[1].join("below")).expect("empty");
        web.end();
        activator.end();
    });
}

/// A message with descriptors is in a queue, but it is no evidence about a connection whose holder is known.
fn unrelated() {
    use std::os::{fd::AsFd, unix::net::UnixStream};
    in_lab(|netns| {
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        let (near, far) = UnixStream::pair().expect("pair");
        crate::roles::send_fd(&near, listener.as_fd());
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let held = only(netns);
        assert_eq!((&held["reason"], held.get("in_flight_in")), (&"eof_unread".into(), None), "{held}");
        crate::roles::send_fd(&near, server.as_fd());
        drop(server);
        let sent = only(netns);
        assert_eq!(sent["reason"], "in_flight", "{sent}");
        let places = sent["in_flight_in"].as_array().expect("a list");
        let is_ours = |place: &&Value| place["fd"] == far.as_raw_fd() && place["pid"] == process::id();
        assert_eq!(places.iter().find(is_ours).expect("our queue")["descriptors"], 2, "{sent}");
    });
}
