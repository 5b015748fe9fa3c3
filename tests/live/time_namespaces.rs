//! What sockstate concludes in a time namespace, whose clocks differ from the kernel's own.

use std::{
    ffi::c_void,
    fs,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::PathBuf,
    process::Command,
    ptr, thread,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::{
    Test,
    hunt::{can_hunt, command, functions, is_stuck},
    lab::{Tracer, in_lab, sockstate},
    look_test,
    observer::wait_for_states,
    reasons::port_of,
    roles::{self, Actor, Sleeper, copy_to},
    schema, skip,
    sockets::{Kind, fresh_port, keep_over_exec},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("time namespace: a hunt uses a perf map of the process itself, by a clock behind", || {
            perf_map(Clock::Behind, false);
        }),
        test("time namespace: a hunt uses no perf map older than the process, by a clock ahead", || {
            perf_map(Clock::Ahead, true);
        }),
        look_test("time namespace: a look tells who is younger than a connection, by a clock behind", || {
            younger(Clock::Behind);
        }),
        look_test("time namespace: a look tells who is younger than a connection, by a clock ahead", || {
            younger(Clock::Ahead);
        }),
    ]
}

/// The clocks of a time namespace, relative to the kernel's own clocks.
#[derive(Clone, Copy)]
enum Clock {
    /// Behind by half of the uptime, because no clock may be below 0.
    Behind,
    /// Ahead by one day and by two days.
    Ahead,
}

impl Clock {
    fn offsets(self) -> String {
        let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
        let seconds: i64 = uptime.split('.').next().and_then(|text| text.parse().ok()).expect("seconds");
        match self {
            Self::Behind => format!("monotonic -{0} 0\nboottime -{0} 0\n", (seconds / 2).max(1)),
            Self::Ahead => "monotonic 86400 0\nboottime 172800 0\n".to_owned(),
        }
    }
}

/// Whether this kernel has time namespaces; skips the test otherwise.
pub(crate) fn exist() -> bool {
    let exist = fs::exists("/proc/self/ns/time").unwrap_or(false);
    if !exist {
        skip("this kernel has no time namespaces");
    }
    exist
}

/// Makes the command start in a new time namespace with these offsets of its clocks.
pub(crate) fn enter(command: &mut Command, offsets: String) {
    let enter = move || {
        // SAFETY: takes a number; this process runs nothing else.
        if unsafe { libc::unshare(libc::CLONE_NEWTIME) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        fs::write("/proc/self/timens_offsets", &offsets)?;
        let there = fs::File::open("/proc/self/ns/time_for_children")?;
        // SAFETY: an open descriptor of a namespace, and a process of one thread.
        match unsafe { libc::setns(there.as_raw_fd(), libc::CLONE_NEWTIME) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec there is one thread; no lock that another one held is asked for here.
    unsafe { command.pre_exec(enter) };
}

/// Machine code of a function that calls its argument, like code that is compiled at run time: with a frame pointer,
/// and without unwind tables.
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3];
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0x00, 0x91, 0x00, 0x00, 0x3f, 0xd6, 0xfd, 0x7b, 0xc1, 0xa8, 0xc0,
    0x03, 0x5f, 0xd6,
];

/// The role of a program that generates code and a perf map of it ("PORT"). It connects through this code when the test
/// lets it go on.
pub(crate) fn generate(port: u16) {
    static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    extern "C" fn connect() {
        let port = PORT.load(std::sync::atomic::Ordering::Relaxed);
        std::mem::forget(Kind::V4.connect(port).expect("connect"));
    }
    PORT.store(port, std::sync::atomic::Ordering::Relaxed);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory, large enough for the code, and executable only when that is there.
    let code = unsafe {
        let code = libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(code, libc::MAP_FAILED);
        ptr::copy_nonoverlapping(CODE.as_ptr(), code.cast(), CODE.len());
        assert_eq!(libc::mprotect(code, 4096, libc::PROT_READ | libc::PROT_EXEC), 0);
        code
    };
    let map = format!("/tmp/perf-{}.map", std::process::id());
    fs::write(map, format!("{:x} {:x} made_at_run_time\n", code.addr(), CODE.len())).expect("map");
    roles::say("here");
    while roles::next_step() {
        // SAFETY: the code above, of a function with this argument; nothing was executed there before it was written.
        let call: extern "C" fn(extern "C" fn()) = unsafe { std::mem::transmute::<*mut c_void, _>(code) };
        call(connect);
        roles::say("connected");
    }
}

fn perf_map(clock: Clock, is_old: bool) {
    if !exist() {
        return;
    }
    in_lab(|netns| {
        if !can_hunt(netns) {
            return;
        }
        let port = fresh_port();
        let listener = Kind::V4.listen(port);
        let mut actor = Actor::start("code generator", port);
        assert_eq!(actor.hear(), "here");
        let map = PathBuf::from(format!("/tmp/perf-{}.map", actor.pid()));
        if is_old {
            let file = fs::File::options().append(true).open(&map).expect("the map");
            file.set_modified(SystemTime::now() - Duration::from_secs(24 * 3600)).expect("time");
        }
        let mut hunt = command(netns, &[]);
        enter(&mut hunt, clock.offsets());
        let mut tracer = Tracer::spawn(&mut hunt);
        actor.go_on();
        assert_eq!(actor.hear(), "connected");
        drop(listener.accept().expect("accept"));
        let record = tracer.wait_for(|record| is_stuck(record) && record["opening"] == "seen");
        tracer.stop();
        actor.end();
        fs::remove_file(&map).expect("the map");
        schema::check(&record);
        let found = functions(&record);
        assert_eq!(found.iter().any(|name| name == "made_at_run_time"), !is_old, "{found:#?}\n{record}");
        let frames = record["opened"]["frames"].as_array().expect("frames");
        let is_unnamed = frames.iter().any(|frame| frame["unnamed"] == "generated");
        assert_eq!(is_unnamed, is_old, "{record}");
    });
}

/// A process that has inherited a client's connection is younger than the connection. A process that has opened a
/// connection is older. Both run another program than their parent.
fn younger(clock: Clock) {
    if !exist() {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let program = directory.path().join("another");
    copy_to(&program);
    in_lab(|netns| {
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        let port = listener.local_addr().expect("address").as_socket().expect("IP").port();
        let inherited = port_of(&client);
        drop(server);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        // The age of the connection is known only as the age of its state. A process that is older by less than 50 ms
        // may be as old as the connection.
        thread::sleep(Duration::from_secs(1));
        keep_over_exec(&client);
        let heir = Sleeper::start();
        drop(client);
        let mut opener = Actor::start_as(&program, "client", port);
        assert_eq!(opener.hear(), "connected");
        drop(listener.accept().expect("accept"));
        drop(listener);
        wait_for_states(&["FIN_WAIT2", "FIN_WAIT2", "CLOSE_WAIT", "CLOSE_WAIT"]);
        let mut look = sockstate();
        look.args(["close-wait", "--older-than", "0", "--format", "json", "--netns", &netns.to_string()]);
        enter(&mut look, clock.offsets());
        let output = look.output().expect("sockstate");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let records: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(records.len(), 2, "{text}");
        for record in &records {
            schema::check(record);
            let (pid, reason) = if record["local"]["port"] == inherited {
                (heir.pid(), "held_by_child")
            } else {
                (opener.pid(), "eof_unread")
            };
            assert_eq!(
                (&record["holders"][0]["pid"], &record["reason"]),
                (&pid.into(), &reason.into()),
                "{record}"
            );
            let age = Duration::from_nanos(record["age_ns"].as_u64().expect("age"));
            assert!(age < Duration::from_secs(600), "{record}");
        }
        drop(heir);
        opener.end();
    });
}
