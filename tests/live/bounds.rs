//! Long arguments, long paths, and many processes. No record becomes larger than a datagram, and sockstate takes no
//! more memory than with ordinary processes.

use std::{
    fs,
    net::UdpSocket,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use serde_json::{Value, json};

use crate::{
    Test,
    daemon::Daemon,
    lab::{in_lab, wait_until},
    look_test,
    observer::{patience, wait_for_states},
    roles::{Actor, Sleeper, next_step, part, say},
    schema,
    sockets::{Kind, fresh_port, keep_over_exec},
    stuck::look,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("bounds: arguments of 1.8 MB are read and written in part", huge_arguments),
        look_test("bounds: hundreds of holders with long paths fit into a datagram", many_holders),
    ]
}

/// Payload of UDP over IPv4.
const DATAGRAM: usize = 65_507;

/// Connects COUNT times to PORT and closes each connection. Then the process stays.
pub(crate) fn connector(value: &str) {
    let (port, count) = value.split_once(' ').expect("port and count");
    for _ in 0..count.parse().expect("count") {
        drop(Kind::V4.connect(port.parse().expect("port")).expect("connect"));
    }
    say("connected");
    while next_step() {}
}

/// The peak memory of a process, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn huge_arguments() {
    const CONNECTIONS: usize = 100;
    in_lab(|netns| {
        let port = fresh_port();
        let sinks = "[sinks.file]\ntype = \"file\"\npath = \"DIR/out\"\n";
        let mut daemon = Daemon::start_with("cmdline = true", netns, port, sinks);
        let _listener = Kind::V4.listen_for(port, 1024);
        let before = peak_kib(daemon.tracer.pid());
        let program = std::env::current_exe().expect("this program");
        let mut command = part(&program, "connector", format!("{port} {CONNECTIONS}"));
        // The kernel takes up to 128 KiB for one of them.
        let argument = "é".repeat(60_000);
        let mut actor = Actor::of(command.args(vec![&argument; 15]));
        assert_eq!(actor.hear(), "connected");
        let bytes = fs::read(format!("/proc/{}/cmdline", actor.pid())).expect("cmdline").len();
        assert!(bytes > 1_800_000, "{bytes}");
        let is_close = |record: &Value| record["role"] == "client" && record["from"] == "ESTABLISHED";
        for _ in 0..CONNECTIONS {
            daemon.tracer.wait_for(is_close);
        }
        let grown = peak_kib(daemon.tracer.pid()).saturating_sub(before);
        assert!(grown < 48 << 10, "{grown} KiB more");
        actor.end();
        let (story, directory) = daemon.stop();
        let file = fs::metadata(directory.path().join("out")).expect("file").len();
        let records = story.records.len() as u64;
        assert!(file < records * 8192, "{file} bytes for {records} records");
        let mut of_client = 0;
        for record in story.transitions().filter(|record| record["role"] == "client") {
            let line = record["owner"]["cmdline"].as_str().expect("a command line");
            assert!((4000..=4096).contains(&line.len()), "{}", line.len());
            assert!(line.starts_with(program.to_str().expect("path")) && line.ends_with('é'), "{line}");
            assert_eq!(record["truncated"], json!([{"field": "owner.cmdline"}]), "{record}");
            of_client += 1;
        }
        assert!(of_client >= 2 * CONNECTIONS, "{of_client}");
    });
}

/// A copy of `sleep` with a path of about 3,500 bytes.
fn far_away(directory: &Path) -> PathBuf {
    let paths = std::env::var_os("PATH").expect("PATH");
    let sleep = std::env::split_paths(&paths).map(|path| path.join("sleep")).find(|path| path.exists());
    let mut place = directory.to_owned();
    while place.as_os_str().as_bytes().len() < 3500 - 241 {
        place.push("d".repeat(240));
    }
    fs::create_dir_all(&place).expect("directories");
    place.push("sleep");
    fs::copy(sleep.expect("a program that sleeps"), &place).expect("a copy");
    place
}

fn many_holders() {
    const PROCESSES: usize = 150;
    in_lab(|netns| {
        let port = fresh_port();
        let collector = UdpSocket::bind("127.0.0.1:0").expect("collector");
        collector.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
        let address = collector.local_addr().expect("address");
        let sinks = format!(
            "[stuck]\nthreshold = [\"CLOSE_WAIT=1s\"]\n[sinks.syslog]\ntype = \"syslog\"\naddress = \"udp://{address}\"\n\
             batch-time = \"1ms\"\n"
        );
        let mut daemon = Daemon::start(netns, port, &sinks);
        let (listener, client, server) = Kind::V4.pair(port);
        keep_over_exec(&server);
        let second = fcntl_dupfd_cloexec(&server, 0).expect("dup");
        fcntl_setfd(&second, FdFlags::empty()).expect("flags");
        let directory = tempfile::tempdir().expect("directory");
        let program = far_away(directory.path());
        let start = |_| Sleeper::spawn(Command::new(&program).arg("600").stdin(Stdio::null()));
        let children: Vec<Sleeper> = (0..PROCESSES).map(start).collect();
        drop(second);
        drop(server);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let stuck = daemon.tracer.wait_for(|record| record["kind"] == "stuck");
        check(&stuck, 2 * PROCESSES, false);
        // A datagram with this record is complete, and so is the next one.
        drop(Kind::V4.connect(port));
        drop(listener.accept().expect("accept"));
        let (mut seen, mut buffer, end) = (Vec::new(), vec![0; 1 << 17], Instant::now() + patience());
        while !(seen.contains(&"stuck".to_owned()) && seen.last().is_some_and(|kind| kind == "transition")) {
            assert!(Instant::now() < end, "{seen:?}");
            let Ok(bytes) = collector.recv(&mut buffer) else { continue };
            assert!(bytes <= DATAGRAM);
            let text = std::str::from_utf8(&buffer[..bytes]).expect("UTF-8");
            let at = text.find('{').expect("JSON");
            let record: Value = serde_json::from_str(&text[at..]).expect("JSON");
            if record["kind"] == "stuck" {
                check(&record, 2 * PROCESSES, false);
            }
            seen.push(record["kind"].as_str().expect("a kind").to_owned());
        }
        // A look lists more holders than a record of the trace, and counts all of them.
        let looked = look(netns, &["close-wait", "--older-than", "0"]);
        check(&looked[0], 2 * PROCESSES, true);
        let groups = look(netns, &["close-wait", "--older-than", "0", "--group-by", "process"]);
        assert_eq!(groups.len(), PROCESSES, "each process that holds it");
        drop(children);
        wait_until("it closes", || look(netns, &["close-wait", "--older-than", "0"]).is_empty());
        daemon.stop();
    });
}

/// How many holders the record lists, and how many it counts.
fn check(record: &Value, total: usize, is_look: bool) {
    schema::check(record);
    let holders = record["holders"].as_array().expect("holders");
    let cuts = record["truncated"].as_array().expect("truncated");
    assert!(cuts.contains(&json!({"field": "holders[].exe"})), "{cuts:?}");
    if is_look {
        assert_eq!(holders.len(), total, "{cuts:?}");
    } else {
        assert!((10..=64).contains(&holders.len()), "{}", holders.len());
        assert!(cuts.contains(&json!({"field": "holders", "total": total})), "{cuts:?}");
        assert!(record.to_string().len() <= DATAGRAM);
    }
    for holder in holders {
        let exe = holder["exe"].as_str().expect("an executable");
        assert!((1000..=1024).contains(&exe.len()), "{}", exe.len());
    }
}
