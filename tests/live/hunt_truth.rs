//! A hunt names only functions of files that were really mapped, and says why it knows nothing. For each answer, a test
//! makes it true, and another makes it nearly true.

use std::{
    ffi::c_void,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::AsRawFd,
        unix::{fs::chown, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    ptr,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::{
    Test,
    hunt::{Program, can_hunt, command, functions, is_stuck, programs, stuck, wait_for_stuck},
    lab::{Lines, Tracer, in_lab, signal, sockstate},
    look_test, pythons,
    roles::{self, Actor, copy_to},
    schema, skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    let mapped = |name, change, capable, wanted| {
        test(format!("hunt truth: an executable {name}"), move || executable(change, capable, wanted))
    };
    vec![
        mapped("at its place has its names", Change::None, true, Wanted::Names),
        mapped("at its place, by device and inode", Change::None, false, Wanted::Names),
        mapped("replaced has its own names", Change::Replaced, true, Wanted::Names),
        mapped("removed has its names", Change::Removed, true, Wanted::Names),
        mapped("replaced has none without the capability", Change::Replaced, false, Wanted::None("replaced")),
        mapped("removed has none without the capability", Change::Removed, false, Wanted::None("removed")),
        mapped("replaced by a copy, by its build id", Change::Copied, false, Wanted::Names),
        mapped("replaced by a FIFO has none", Change::Fifo, false, Wanted::None("unreadable")),
        look_test("hunt truth: opened before, seen, not accepted", openings),
        test("hunt truth: a process that has ended, or executed another program", gone),
        test("hunt truth: a thread that has ended, with its stack", thread_gone),
        test("hunt truth: Python's functions by its own perf map only", perf_map),
        test("hunt truth: an interpreter is one line of the text", folded),
    ]
}

#[derive(Clone, Copy)]
enum Change {
    None,
    Replaced,
    Removed,
    Copied,
    Fifo,
}

#[derive(Clone, Copy)]
enum Wanted {
    Names,
    None(&'static str),
}

/// The role of a server that leaks: at each step it accepts a connection, and never closes it.
pub(crate) fn leaker(port: u16) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    listener.set_reuse_address(true).expect("reuse");
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bind");
    listener.listen(16).expect("listen");
    roles::say("listening");
    let mut forgotten = Vec::new();
    while roles::next_step() {
        forgotten.push(accept_and_forget(&listener));
        roles::say("accepted");
    }
}

#[inline(never)]
fn accept_and_forget(listener: &Socket) -> Socket {
    std::hint::black_box(listener).accept().expect("accept").0
}

/// The role of a client that connects, and then executes another program with the connection open.
pub(crate) fn connect_and_exec(port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("connect");
    socket.set_cloexec(false).expect("cloexec");
    let error =
        roles::part(&std::env::current_exe().expect("this program"), "holder", socket.as_raw_fd()).exec();
    panic!("exec: {error}");
}

/// The role of a client that connects in a thread. When the role prints its line, the stack of this thread is unmapped.
pub(crate) fn connect_in_a_thread(port: u16) {
    const STACK: usize = 256 << 10;
    extern "C" fn connect(port: *mut c_void) -> *mut c_void {
        std::mem::forget(Kind::V4.connect(port.addr() as u16).expect("connect"));
        ptr::null_mut()
    }
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the memory is the thread's as long as it lives, and then nobody's.
    unsafe {
        let stack = libc::mmap(ptr::null_mut(), STACK, protection, flags, -1, 0);
        assert_ne!(stack, libc::MAP_FAILED);
        let (mut attributes, mut thread) = (std::mem::zeroed(), std::mem::zeroed());
        assert_eq!(libc::pthread_attr_init(&raw mut attributes), 0);
        assert_eq!(libc::pthread_attr_setstack(&raw mut attributes, stack, STACK), 0);
        let argument = ptr::without_provenance_mut(port.into());
        assert_eq!(libc::pthread_create(&raw mut thread, &raw const attributes, connect, argument), 0);
        assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
        assert_eq!(libc::munmap(stack, STACK), 0);
    }
    roles::say("connected");
    while roles::next_step() {}
}

/// Drops the capabilities that opening a mapping needs.
fn without_capability(command: &mut Command) {
    // linux/capability.h
    const CAP_SYS_ADMIN: libc::c_ulong = 21;
    const CAP_CHECKPOINT_RESTORE: libc::c_ulong = 40;
    // SAFETY: prctl() may be called between fork and exec, and takes numbers only.
    unsafe {
        command.pre_exec(|| {
            for capability in [CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE] {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

fn change(how: Change, server: &Path) {
    let next = server.with_extension("new");
    match how {
        Change::None => {}
        Change::Replaced => {
            fs::copy(env!("CARGO_BIN_EXE_sockstate"), &next).expect("another program");
            fs::rename(next, server).expect("rename");
        }
        Change::Copied => {
            fs::copy(server, &next).expect("a copy");
            fs::rename(next, server).expect("rename");
        }
        Change::Removed => fs::remove_file(server).expect("remove"),
        Change::Fifo => {
            fs::remove_file(server).expect("remove");
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, server, rustix::fs::FileType::Fifo, mode, 0)
                .expect("a FIFO");
        }
    }
}

fn executable(how: Change, capable: bool, wanted: Wanted) {
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let directory = tempfile::tempdir().expect("directory");
        let server: PathBuf = directory.path().join("server");
        copy_to(&server);
        let port = fresh_port();
        let mut actor = Actor::start_as(&server, "leaker", port);
        assert_eq!(actor.hear(), "listening");
        change(how, &server);
        let mut command = command(netns, &[]);
        if !capable {
            without_capability(&mut command);
        }
        let mut tracer = Tracer::spawn(&mut command);
        let begun = tracer.first();
        let says_so = begun["degraded"].to_string().contains("CAP_CHECKPOINT_RESTORE");
        assert_eq!(says_so, !capable, "{begun}");
        let degraded = begun["degraded"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if degraded.into_iter().any(|what| what.starts_with("accepts are not seen")) {
            assert!(!capable, "{begun}");
            tracer.stop();
            actor.end();
            return skip("perf events take CAP_SYS_ADMIN here (kernel.perf_event_paranoid)");
        }
        // The client closes only after the accept: otherwise the connection could be stuck before it is accepted.
        let client = Kind::V4.connect(port).expect("connect");
        actor.go_on();
        assert_eq!(actor.hear(), "accepted");
        drop(client);
        // On a slow machine, only a later record has the call path.
        let record =
            tracer.wait_for(|record| record["kind"] == "stuck" && record["opening"] != "not_unwound");
        tracer.stop();
        actor.end();
        schema::check(&record);
        assert_eq!(record["opening"], "seen", "{begun}\n{record}");
        let name = server.to_str().expect("UTF-8");
        let frames = record["opened"]["frames"].as_array().expect("frames");
        let own: Vec<&Value> = frames.iter().filter(|frame| frame["module"] == name).collect();
        assert!(!own.is_empty(), "{record}");
        match wanted {
            Wanted::Names => {
                let found = functions(&record);
                assert!(found.iter().any(|name| name.contains("accept_and_forget")), "{found:#?}");
                assert!(own.iter().all(|frame| frame["unnamed"].is_null() != frame["function"].is_null()));
            }
            Wanted::None(why) => {
                for frame in own {
                    assert!(frame["function"].is_null() && frame["unnamed"] == why, "{frame}");
                }
            }
        }
    });
}

fn openings() {
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let mut actor = Actor::start("leaker", port);
        assert_eq!(actor.hear(), "listening");
        let mut connect = |is_accepted: bool| {
            let client = Kind::V4.connect(port).expect("connect");
            if is_accepted {
                actor.go_on();
                assert_eq!(actor.hear(), "accepted");
            }
            client.local_addr().expect("address").as_socket().expect("IPv4").port()
        };
        let before = connect(true);
        let mut tracer = Tracer::spawn(&mut command(netns, &[]));
        let wanted = [(before, "before_hunt"), (connect(true), "seen"), (connect(false), "not_accepted")];
        wait_for_stuck(&mut tracer, wanted.len());
        let story = tracer.stop();
        let records = stuck(&story.records);
        for record in &records {
            schema::check(record);
            assert_eq!(record["opened"].is_null(), record["opening"] != "seen", "{record}");
        }
        for (port, wanted) in wanted {
            let record = records.iter().find(|record| record["remote"]["port"] == port).expect("stuck");
            assert_eq!(record["opening"], wanted, "{record}");
        }
        actor.end();
    });
}

/// While the hunt is stopped, the process that has connected ends, or becomes another program.
fn gone() {
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut tracer = Tracer::spawn(&mut command(netns, &["--threshold", "FIN_WAIT2=1s"]));
        signal(tracer.pid(), libc::SIGSTOP);
        let mut ended = Actor::start("client", port);
        assert_eq!(ended.hear(), "connected");
        ended.kill();
        let mut executed = Actor::start("connect and exec", port);
        assert_eq!(executed.hear(), "here");
        executed.go_on();
        assert_eq!(executed.hear(), "closed");
        signal(tracer.pid(), libc::SIGCONT);
        // The server's sides are in CLOSE_WAIT, and no process has accepted them.
        let is_client = |record: &&Value| record["state"] == "FIN_WAIT2";
        let clients = |tracer: &Tracer| -> Vec<Value> {
            stuck(tracer.seen()).into_iter().filter(is_client).cloned().collect()
        };
        while clients(&tracer).len() < 2 {
            tracer.wait_for(is_stuck);
        }
        for record in clients(&tracer) {
            assert_eq!(record["opening"], "process_gone", "{record}");
        }
        drop(listener);
        executed.end();
        tracer.stop();
    });
}

/// While the hunt is stopped, a thread connects and ends.
fn thread_gone() {
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut tracer = Tracer::spawn(&mut command(netns, &[]));
        signal(tracer.pid(), libc::SIGSTOP);
        let mut actor = Actor::start("passing thread", port);
        assert_eq!(actor.hear(), "connected");
        drop(listener.accept().expect("accept"));
        signal(tracer.pid(), libc::SIGCONT);
        let record = tracer.wait_for(|record| is_stuck(record) && record["role"] == "client");
        schema::check(&record);
        assert_eq!(record["opening"], "stack_gone", "{record}");
        actor.end();
        tracer.stop();
    });
}

/// A Python that writes perf maps. Nothing else shows the names of its functions.
fn mapped_python() -> Option<Command> {
    let wanted = "sys.version_info[:2] == (3, 12) and sysconfig.get_config_var('PY_HAVE_PERF_TRAMPOLINE')";
    let found = pythons::all(wanted).into_iter().next();
    if found.is_none() {
        skip("needs Python 3.12");
    }
    found.map(|name| {
        let mut python = Command::new(name);
        python.args(["-X", "perf"]);
        python
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Map {
    Own,
    Old,
    OfAnother,
    Fifo,
}

fn perf_map() {
    for (map, is_used) in [(Map::Own, true), (Map::Old, false), (Map::OfAnother, false), (Map::Fifo, false)] {
        let Some(mut python) = mapped_python() else { return };
        in_lab(|netns| {
            if !can_hunt(netns) {
                return;
            }
            let port = fresh_port();
            let program = Program::start(python.arg(programs().join("leak.py")).arg(port.to_string()));
            // The program has served a connection before, so the functions that it runs are in the map.
            drop(Kind::V4.connect(port).expect("connect"));
            let path = PathBuf::from(format!("/tmp/perf-{}.map", program.0.id()));
            if map != Map::Own {
                // Python continues to write into its own file, which is no longer at this path.
                let copy = path.with_extension("copy");
                fs::copy(&path, &copy).expect("a copy");
                fs::rename(copy, &path).expect("rename");
            }
            match map {
                Map::Own => {}
                Map::Old => {
                    let file = fs::File::options().append(true).open(&path).expect("the map");
                    let before = SystemTime::now() - Duration::from_secs(24 * 3600);
                    file.set_modified(before).expect("time");
                }
                Map::OfAnother => chown(&path, Some(65534), None).expect("chown"),
                Map::Fifo => change(Change::Fifo, &path),
            }
            let mut tracer = Tracer::spawn(&mut command(netns, &[]));
            drop(Kind::V4.connect(port).expect("connect"));
            let record = tracer.wait_for(|record| is_stuck(record) && record["opening"] == "seen");
            tracer.stop();
            drop(program);
            fs::remove_file(&path).expect("the map");
            schema::check(&record);
            let found = functions(&record);
            let at = |wanted: &str| found.iter().position(|name| name == wanted);
            let of_map = crate::python::python_functions(&record);
            assert_eq!(!of_map.is_empty(), is_used, "{map:?}: {found:#?}");
            if is_used {
                assert!(at("take_one").is_some() && at("take_one") < at("<module>"), "{found:#?}");
                let source = programs().join("leak.py");
                let wanted = json!(["take_one", source.to_str(), null]);
                assert!(of_map.contains(&wanted), "{of_map:#?}");
                // The unwinder leaves the trampolines correctly and reaches the outermost frame.
                assert_eq!(record["opened"]["complete"], true, "{found:#?}");
                assert!(found.iter().any(|name| name.starts_with("Py_")), "{found:#?}");
            }
        });
    }
}

fn folded() {
    if !crate::hunt::has("python3") {
        return skip("needs python3");
    }
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let number = netns.to_string();
        let mut hunt = sockstate();
        hunt.args(["hunt", "--alongside", "--format", "text", "--threshold", "CLOSE_WAIT=1s"]);
        hunt.args(["--netns", &number]);
        hunt.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut python = Command::new("python3");
        let program = Program::start(python.arg(programs().join("leak.py")).arg(port.to_string()));
        let mut hunt = hunt.spawn().expect("sockstate");
        let mut said = Lines::of(hunt.stderr.take().expect("stderr"));
        said.wait_for("the hunt has begun");
        drop(Kind::V4.connect(port).expect("connect"));
        let mut text = Lines::of(hunt.stdout.take().expect("stdout"));
        let stuck = text.wait_for("CLOSE_WAIT");
        assert!(stuck.contains("opened by python3") && stuck.contains(" interpreter, "), "{stuck}");
        signal(hunt.id(), libc::SIGINT);
        let line = text.wait_for("[python");
        assert!(line.ends_with(" frames]"), "{line}");
        assert!(hunt.wait().expect("end").success());
        let rest = text.rest();
        assert!(!rest.contains("_PyEval"), "{rest}");
        drop(program);
    });
}
