//! What the daemon must not do: destroy other programs' files, or lose records without counting them when its sinks
//! change.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    io::Read,
    net::TcpListener,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Test,
    collectors::json,
    daemon::{Daemon, connections},
    hostile::{FILE, Raw},
    lab::{Tracer, in_lab, signal, sockstate, wait_until},
    load::{Load, Mode},
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("harmless: pins are removed, and nothing else", foreign_pins),
        test("harmless: reloads of a rotated file under load lose nothing", reload_storm),
        test("harmless: the successor reports what a replaced sink lost", replaced_sink),
        test("harmless: a certificate or a secret that is renewed is read at SIGHUP", renewed_secret),
        test("harmless: a certificate that is another user's is read at SIGHUP", foreign_certificate),
        test("harmless: the programs follow no null pointer", null_pointers),
        test("harmless: other users cannot read the daemon's files, for any umask", modes),
    ]
}

/// Traces the kernel's page faults at addresses of the first page with ftrace, until the value is dropped.
struct NullFaults(PathBuf);

impl NullFaults {
    fn watch() -> Option<Self> {
        let instance = format!("/sys/kernel/tracing/instances/sockstate-faults-{}", std::process::id());
        fs::create_dir(&instance).ok()?;
        let faults = Self(instance.into());
        let event = faults.0.join("events/exceptions/page_fault_kernel");
        fs::write(event.join("filter"), "address < 4096").ok()?;
        fs::write(event.join("enable"), "1").ok()?;
        Some(faults)
    }

    fn seen(&self) -> Vec<String> {
        let trace = fs::read_to_string(self.0.join("trace")).expect("trace");
        // Rust's library detects statx() by a call with a null path. The kernel expects this fault.
        let is_of_program = |line: &&str| {
            let ip = line.split_once(" ip=").and_then(|(_, ip)| ip.split(' ').next());
            ip.is_some_and(|ip| !ip.contains("_user"))
        };
        let faults = trace.lines().filter(|line| line.contains("page_fault_kernel:"));
        faults.filter(is_of_program).map(str::to_owned).collect()
    }
}

impl Drop for NullFaults {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("events/exceptions/page_fault_kernel/enable"), "0");
        let _ = fs::remove_dir(&self.0);
    }
}

/// Such a load reads as zero, but kernels before 6.5 may panic. Newer x86-64 ones check the address first and take no fault.
fn null_pointers() {
    in_lab(|netns| {
        let Some(faults) = NullFaults::watch() else {
            return crate::skip("this kernel does not trace its own page faults");
        };
        let living = Kind::V6.pair(fresh_port());
        let mut tracer = Tracer::start(netns, &["--snapshot"]);
        let mut hunt = sockstate()
            .args(["hunt", "--duration", "2s"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hunt");
        for kind in Kind::ALL {
            let port = fresh_port();
            let (listener, client, mut server) = kind.pair(port);
            drop(client);
            assert_eq!(server.read(&mut [0]).expect("read"), 0);
            // An orphan in LAST_ACK has no `struct socket`.
            drop(server);
            tracer.wait_for(|record| record["local"]["port"] == port && record["from"] == "LAST_ACK");
            let (client, server) =
                (kind.connect(port).expect("connect"), listener.accept().expect("accept").0);
            crate::sockets::disconnect(&client);
            drop((listener, client, server));
            assert!(kind.connect(port).is_err(), "nobody listens");
        }
        drop(living);
        let listed = sockstate().arg("sockets").stdout(Stdio::null()).status().expect("sockstate");
        assert_eq!(listed.success(), crate::sockets::has_tcp_diag());
        hunt.wait().expect("hunt");
        tracer.stop();
        assert_eq!(faults.seen(), [""; 0]);
    });
}

/// A directory in the BPF file system, which is removed at the end of the test.
struct BpfDirectory(PathBuf);

impl BpfDirectory {
    fn new() -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/bpf/sockstate-harmless-{}", std::process::id()));
        fs::create_dir(&path).ok().map(|()| Self(path))
    }
}

impl Drop for BpfDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("another"));
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn foreign_pins() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let key = directory.path().join("key.pem");
        fs::write(&key, "precious").expect("file");
        // A directory with the names of pins is not a directory with pins.
        for name in ["link-0", "ring", "program"] {
            fs::write(directory.path().join(name), name).expect("file");
        }
        let refused = |pin: &Path, words: &str| {
            let was_there = pin.exists();
            let detach = sockstate().args(["detach", "--pin"]).arg(pin).output().expect("sockstate");
            // `detach` removes nothing if nothing is pinned.
            assert_eq!(detach.status.code(), Some(i32::from(was_there)));
            let config = directory.path().join("config.toml");
            let text = format!(
                "pin = \"{}\"\n[filter]\nnetns = {netns}\n[kernel]\nalongside = true\n[sinks.out]\ntype = \"stdout\"\n",
                pin.display()
            );
            fs::write(&config, text).expect("config");
            let run = sockstate().args(["run", "--config"]).arg(&config).output().expect("sockstate");
            for output in [run].into_iter().chain(was_there.then_some(detach)) {
                let error = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{error}");
                assert!(error.contains(words), "{error}");
            }
        };
        refused(directory.path(), "BPF file system");
        refused(&directory.path().join("new"), "BPF file system");
        assert!(!directory.path().join("new").exists());
        assert_eq!(fs::read_to_string(&key).expect("file"), "precious");
        assert_eq!(fs::read_dir(directory.path()).expect("directory").count(), 5, "with the configuration");
        let Some(pins) = BpfDirectory::new() else { return crate::skip("needs a BPF file system") };
        fs::create_dir(pins.0.join("another")).expect("directory");
        refused(&pins.0, "another");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&pins.0, &link).expect("symlink");
        refused(&link, "cannot use");
        assert!(pins.0.join("another").exists());
        fs::remove_dir(pins.0.join("another")).expect("rmdir");
        // The types are BPF_MAP_TYPE_HASH, _ARRAY and _RINGBUF. The name, the type, or both differ from those of
        // sockstate's map.
        let foreign = [
            ("ring", 1, "EVENTS"),
            ("ring", 27, "events"),
            ("counters", 2, "PER_CPU"),
            ("processes", 1, "processes"),
            ("program", 1, "set_state"),
            ("link-0", 1, "set_state"),
        ];
        for (pin, kind, name) in foreign {
            pin_map(&pins.0.join(pin), kind, name);
            refused(&pins.0, &format!("contains {pin},"));
            assert!(pins.0.join(pin).exists(), "{pin} {kind} {name}");
            fs::remove_file(pins.0.join(pin)).expect("remove");
        }
        // The same beside pins of sockstate.
        pin_map(&pins.0.join("ring"), 27, "EVENTS");
        pin_map(&pins.0.join("link-0"), 1, "set_state");
        refused(&pins.0, "contains link-0,");
        assert!(pins.0.join("ring").exists() && pins.0.join("link-0").exists());
    });
}

/// Makes a BPF map, and pins it.
fn pin_map(path: &Path, kind: u32, name: &str) {
    #[repr(C)]
    #[derive(Default)]
    struct Create {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
        inner: u32,
        numa: u32,
        name: [u8; 16],
    }
    #[repr(C)]
    struct Pin {
        path: u64,
        fd: u32,
        flags: u32,
    }
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_OBJ_PIN: libc::c_int = 6;
    let is_ring = kind == 27;
    let mut create = Create { kind, entries: if is_ring { 4096 } else { 1 }, ..Create::default() };
    (create.key, create.value) = if is_ring { (0, 0) } else { (4, 8) };
    create.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the structure is as long as it says, and outlives the call; the descriptor is nobody else's.
    let map = unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, &raw const create, size_of::<Create>());
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    };
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path");
    let pin = Pin { path: name.as_ptr() as u64, fd: map.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the same; the path ends with a zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const pin, size_of::<Pin>()) };
    assert_eq!(result, 0, "{}: {}", path.display(), std::io::Error::last_os_error());
}

fn without_umask(command: &mut Command) {
    // SAFETY: sets a number of the child's.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0);
            Ok(())
        });
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
}

fn modes() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let [recording, output] = ["recording.zst", "trace.json"].map(|name| directory.path().join(name));
        let netns_of = format!("/proc/{}/task/{}/ns/net", std::process::id(), rustix::thread::gettid());
        for (arguments, file) in [(&["record"][..], &recording), (&["trace", "--output"], &output)] {
            let mut command = sockstate();
            command.args(arguments).arg(file).args([
                "--alongside",
                "--duration",
                "10ms",
                "--netns",
                &netns_of,
            ]);
            without_umask(&mut command);
            let done = command.output().expect("sockstate");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert_eq!(mode(file), 0o640, "{arguments:?}");
        }
        let Some(pins) = BpfDirectory::new() else { return crate::skip("needs a BPF file system") };
        let pin = pins.0.join("another");
        let top = format!("pin = \"{}\"\n", pin.display());
        let mut daemon = Raw::start_with(&top, netns, FILE, without_umask);
        daemon.wait_for("\"kind\":\"start\"");
        wait_until("it is pinned", || fs::read_dir(&pin).is_ok_and(|pins| pins.count() > 0));
        assert_eq!((mode(&pin), mode(&daemon.path("out"))), (0o700, 0o640));
        assert!(daemon.end_now().success());
        let detach = sockstate().args(["detach", "--pin"]).arg(&pin).status().expect("sockstate");
        assert!(detach.success() && !pin.exists());
    });
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| json(line).expect("whole lines only")).collect()
}

fn reload_storm() {
    in_lab(|netns| {
        let port = fresh_port();
        // The records of the next sink wait in the queue until the previous sink has compressed its file.
        let file = |more: &str| {
            format!("[sinks.file]\ntype = \"file\"\npath = \"DIR/out\"\nqueue = \"256M\"\n{more}\n")
        };
        // Each reload changes the sink, and some reloads change its name.
        let variants = [
            file("rotate-size = \"300K\"\nzstd = true"),
            file("rotate-size = \"200K\""),
            file("rotate-size = \"300K\"\nzstd = true").replace("sinks.file", "sinks.other"),
            file("batch = \"64K\""),
        ];
        let mut daemon = Daemon::start(netns, port, &variants[0]);
        let load = Load { mode: Mode::Fin, threads: 1, count: 3000, acceptors: false, gap_us: 0, port };
        let pid = daemon.tracer.pid();
        thread::scope(|scope| {
            let worker = scope.spawn(|| load.run().expect("load"));
            let mut seen = 0;
            for reload in 1..24 {
                seen += 1000;
                daemon.tracer.wait_for(|record| record["seq"].as_u64() > Some(seen));
                daemon.configure(&variants[reload % variants.len()]);
                signal(pid, libc::SIGHUP);
            }
            worker.join().expect("load");
        });
        connections(3, port);
        let (story, directory) = daemon.stop();
        let mut found: Vec<Value> = Vec::new();
        for entry in fs::read_dir(directory.path()).expect("directory") {
            let path = entry.expect("entry").path();
            let name = path.file_name().expect("name").to_string_lossy().into_owned();
            assert!(!name.ends_with(".part"), "{name}");
            if name.starts_with("out") {
                let bytes = fs::read(&path).expect("file");
                let bytes =
                    if name.ends_with(".zst") { zstd::decode_all(&bytes[..]).expect("zstd") } else { bytes };
                found.extend(records(&String::from_utf8(bytes).expect("UTF-8")));
            }
        }
        let lost: Vec<&Value> = found.iter().filter(|record| record["kind"] == "lost").collect();
        assert!(lost.is_empty(), "{lost:?}");
        let key = |record: &Value| {
            format!("{} {} {} {}", record["conn"], record["time"], record["from"], record["to"])
        };
        let transitions = |records: &[Value]| -> Vec<String> {
            let mut keys: Vec<String> =
                records.iter().filter(|record| record["kind"] == "transition").map(key).collect();
            keys.sort_unstable();
            keys
        };
        let (said, found) = (transitions(&story.records), transitions(&found));
        assert_eq!(found.len(), said.len(), "each once");
        assert!(found == said);
    });
}

fn replaced_sink() {
    in_lab(|netns| {
        let [dead, port] = [fresh_port(), fresh_port()];
        let to = |target: String| format!("[sinks.out]\nqueue = \"64M\"\n{target}\n");
        let mut daemon = Daemon::start(
            netns,
            port,
            &to(format!("type = \"http\"\nurl = \"http://127.0.0.1:{dead}\"\nretry = \"100ms\"")),
        );
        connections(50, port);
        daemon.tracer.wait_for(|record| record["from"] == "LISTEN" && record["to"] == "CLOSE");
        daemon.configure(&to("type = \"file\"\npath = \"DIR/out\"".to_owned()));
        signal(daemon.tracer.pid(), libc::SIGHUP);
        wait_until("the successor begins", || daemon.path("out").exists());
        let text = || fs::read_to_string(daemon.path("out")).unwrap_or_default();
        wait_until("the loss is reported", || text().contains("\"kind\":\"lost\""));
        connections(1, port);
        let (story, directory) = daemon.stop();
        let found = records(&fs::read_to_string(directory.path().join("out")).expect("out"));
        let of_kind = |kind: &'static str| found.iter().filter(move |record| record["kind"] == kind);
        let counted: u64 = of_kind("lost").map(|record| record["count"].as_u64().expect("count")).sum();
        assert!(of_kind("lost").all(|record| record["place"] == "sink"));
        // The `start` record of the next sink and the `lost` records are not among the records of the console.
        let own = 1 + of_kind("lost").count();
        assert_eq!(counted + (found.len() - own) as u64, story.records.len() as u64);
        let seqs: Vec<u64> = found.iter().map(|record| record["seq"].as_u64().expect("seq")).collect();
        assert_eq!(seqs.first(), Some(&(counted + 1)));
        assert_eq!(seqs.iter().collect::<BTreeSet<_>>().len(), seqs.len());
    });
}

/// A sink that a reload starts reads its files with the capabilities that the daemon has kept for that.
fn foreign_certificate() {
    in_lab(|netns| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        listener.set_nonblocking(true).expect("nonblocking");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
        let mut daemon = Raw::start(netns, FILE, |command| {
            command.stderr(Stdio::null());
        });
        daemon.wait_for("\"kind\":\"start\"");
        let ca = daemon.path("ca.pem");
        fs::write(&ca, made.cert.pem()).expect("certificate");
        fs::set_permissions(&ca, fs::Permissions::from_mode(0o600)).expect("mode");
        std::os::unix::fs::chown(&ca, Some(12_345), Some(12_345)).expect("chown");
        daemon.write(&format!(
            "{FILE}[sinks.tls]\ntype = \"socket\"\naddress = \"tls://{address}\"\ntls-name = \"localhost\"\ntls-ca = \"{}\"\n",
            ca.display()
        ));
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("it connects", || listener.accept().is_ok());
        assert!(daemon.end_now().success());
    });
}

fn renewed_secret() {
    in_lab(|netns| {
        let port = fresh_port();
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        let directory = tempfile::tempdir().expect("directory");
        let secret = directory.path().join("secret");
        fs::write(&secret, "Bearer first").expect("secret");
        let (send, requests) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut text = [0; 4096];
                let count = stream.read(&mut text).unwrap_or(0);
                // The connection ends without an answer, so the sink sends the records again.
                if send.send(String::from_utf8_lossy(&text[..count]).into_owned()).is_err() {
                    return;
                }
            }
        });
        let sink = format!(
            "[sinks.out]\ntype = \"http\"\nurl = \"http://{address}\"\nretry = \"50ms\"\nauthorization-file = \"{}\"\n",
            secret.display()
        );
        let daemon = Daemon::start(netns, port, &sink);
        let wait_for = |words: &str| {
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while std::time::Instant::now() < end {
                if requests.recv_timeout(Duration::from_secs(60)).is_ok_and(|request| request.contains(words))
                {
                    return;
                }
            }
            panic!("no request with {words}");
        };
        connections(1, port);
        wait_for("Bearer first");
        fs::write(&secret, "Bearer second").expect("secret");
        signal(daemon.tracer.pid(), libc::SIGHUP);
        connections(1, port);
        wait_for("Bearer second");
        // A pipe without a writer does not block the thread that reads records.
        fs::remove_file(&secret).expect("remove");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &secret, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        signal(daemon.tracer.pid(), libc::SIGHUP);
        connections(1, port);
        wait_for("Bearer second");
        drop(daemon.stop());
    });
}
