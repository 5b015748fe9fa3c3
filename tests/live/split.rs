//! A daemon whose sinks run in a process of their own: what that process may do, and that no record is lost between
//! the two processes without being counted.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    process::Child,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::{
    Test,
    configured::ask,
    lab::{in_lab, signal, sockstate, wait_until},
    observer,
    restart::{DaemonFiles, chown_to_nobody, end, kill, killed_again_and_again, lost, nobody},
    schema,
    sinks_service::{SinksProcess, SinksService, as_user},
    skip,
    sockets::{Kind, fresh_port},
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("split: the sinks' process is another user's, without capabilities", || {
            held(DaemonFiles::split)
        }),
        test("split: so is the one behind a named socket", || held(DaemonFiles::with_service)),
        test("split: a named socket serves no wrong user, and belongs to none", wrong_peers),
        test("split: SIGTERM ends the process behind a named socket, and the tracer with it", terminated),
        test("split: what the sinks' process must not do fails", refused),
        test("split: killed under load, again and again: delivered + lost == happened", || {
            killed(DaemonFiles::split)
        }),
        test("split: killed with a named socket: delivered + lost == happened", || {
            killed(DaemonFiles::with_service)
        }),
        test("split: the sinks' process killed: the daemon ends, and the next one counts", || {
            sinks_killed(DaemonFiles::split)
        }),
        test("split: the process behind a named socket killed: the next daemon counts", || {
            sinks_killed(DaemonFiles::with_service)
        }),
        test("split: metrics, and sinks that a reload starts and ends", || reloaded(DaemonFiles::split)),
        test("split: metrics and reloads with a named socket", || reloaded(DaemonFiles::with_service)),
        test("split: a reload that needs other directories is reported", out_of_reach),
        test("split: a reload may use the directories that systemd has made", in_state_directory),
        test("split: a full queue is counted, and a spool keeps the rest", spooled),
        test("split: what the user cannot use is reported before the start", checked),
    ]
}

/// Makes the files of a daemon.
type Files = fn(u16) -> Option<DaemonFiles>;

/// The process of the sinks of a daemon.
fn sinks_of(files: &DaemonFiles, daemon: &Child) -> u32 {
    if let Some(SinksProcess::Service(service)) = &files.sinks {
        return service.latest();
    }
    let pid = daemon.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("children");
    children.trim().parse().expect("one child")
}

/// The fields of each thread's status.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let fields = |status: String| {
        let field =
            |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        status.lines().filter_map(field).collect()
    };
    tasks.filter_map(|task| status(task.expect("thread"))).map(fields).collect()
}

fn held(files: Files) {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = files(port) else { return };
        files.configure(netns, port, "");
        let daemon = files.start(1);
        let uid = nobody().expect("a user").0.to_string();
        let pid = sinks_of(&files, &daemon);
        let all = threads(pid);
        assert!(all.len() >= 2, "{all:?}");
        for thread in &all {
            assert!(thread["Uid"].split_whitespace().all(|id| id == uid), "{thread:?}");
            assert_eq!(thread["NoNewPrivs"], "1", "{thread:?}");
            assert_eq!(thread["Seccomp"], "2", "{thread:?}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(u64::from_str_radix(&thread[set], 16), Ok(0), "{thread:?}");
            }
        }
        assert!(
            threads(daemon.id()).iter().all(|thread| thread["Seccomp"] == "2"),
            "the tracer's calls are restricted"
        );
        // The tracer's threads that serve the other process have none, either.
        for thread in threads(daemon.id()).iter().filter(|thread| thread["Name"].ends_with("-sinks")) {
            assert_eq!(u64::from_str_radix(&thread["CapPrm"], 16), Ok(0), "{thread:?}");
        }
        // A process that systemd has started is found by its parent, which the test is not.
        if matches!(files.sinks, Some(SinksProcess::User)) {
            check_doctor(daemon.id(), pid);
        }
        files.connection(port);
        end(daemon);
        wait_until("it ends with the daemon", || fs::metadata(format!("/proc/{pid}")).is_err());
        let records = files.records();
        records.iter().for_each(schema::check);
        let seqs: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=records.len() as u64).collect::<Vec<_>>(), "numbered without a gap");
        assert_eq!(records.last().map(|record| record["kind"].clone()), Some("stop".into()));
    });
}

fn check_doctor(daemon: u32, sinks: u32) {
    let mut doctor = sockstate();
    doctor.args(["doctor", "--privileges", &daemon.to_string(), "--format", "json"]);
    let report = doctor.output().expect("doctor").stdout;
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["sinks"]["pid"], sinks);
    for thread in report["sinks"]["threads"].as_array().expect("threads") {
        assert_eq!(thread["capabilities"], Value::Array(Vec::new()), "{thread}");
        assert!(!thread["purpose"].as_str().expect("a purpose").contains("not a thread"), "{thread}");
    }
}

fn wrong_peers() {
    const OTHER: u32 = 1;
    in_lab(|_| {
        let port = fresh_port();
        let Some(mut files) = DaemonFiles::split(port) else { return };
        let check = |files: &DaemonFiles| {
            files.write("[kernel]\nalongside = true\n");
            let mut command = sockstate();
            let output =
                command.args(["run", "--check", "--config"]).arg(files.config()).output().expect("sockstate");
            (output.status.code(), String::from_utf8(output.stderr).expect("text"))
        };
        let directory = files.output().parent().expect("directory").to_owned();
        let serve = |name: &str, user, mode| {
            SinksProcess::Service(SinksService::start_as(&directory.join(name), user, mode))
        };
        let nobody = nobody().expect("a user");

        // Root, the right one, is served; another user is not, even if the file lets it connect.
        files.sinks = Some(serve("right", nobody, 0o666));
        assert_eq!(check(&files), (Some(0), String::new()));
        let mut stream =
            as_user(OTHER, || UnixStream::connect(directory.join("right")).expect("the mode allows it"));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the end");
        assert_eq!(answer, b"");

        files.sinks = Some(serve("root", (0, 0), 0o600));
        let (code, said) = check(&files);
        assert!(code == Some(1) && said.contains("the process of the sinks is root"), "{said}");

        let path = directory.join("other");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&directory, open).expect("mode");
        let listener = as_user(OTHER, || UnixListener::bind(&path).expect("a socket"));
        fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        if let Some(SinksProcess::Service(service)) = &mut files.sinks {
            service.path = path;
        }
        let (code, said) = check(&files);
        assert!(code == Some(1) && said.contains("the user 1 listens at "), "{said}");
        drop(listener);
        let (code, said) = check(&files);
        assert!(code == Some(1) && said.contains("sockstate-sinks.socket"), "{said}");
    });
}

fn terminated() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::with_service(port) else { return };
        files.configure(netns, port, "");
        let mut daemon = files.start(1);
        files.connection(port);
        signal(sinks_of(&files, &daemon), libc::SIGTERM);
        assert_eq!(daemon.wait().expect("wait").code(), Some(1));
        let daemon = files.start(2);
        files.catch_up(port);
        end(daemon);
        let records = files.records();
        records.iter().for_each(schema::check);
        assert_eq!(lost(&records, "crash"), 0, "what the sinks had was delivered");
    });
}

fn refused() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::split(port) else { return };
        // A file that only root can write, and one that only root can read.
        let secret = files.config().with_file_name("secret");
        fs::write(&secret, "Bearer s3cr3t").expect("secret");
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mode");
        let sinks = format!(
            "[filter]\nnetns = {netns}\n[kernel]\nalongside = true\n[sinks.roots]\ntype = \"file\"\npath = \"{}\"\n\
             [sinks.http]\ntype = \"http\"\nurl = \"http://127.0.0.1:9\"\nauthorization-file = \"{}\"",
            files.config().with_file_name("roots").display(),
            secret.display()
        );
        files.write(&sinks);
        let mut daemon = files.spawn(sockstate());
        let status = daemon.wait().expect("wait");
        let mut said = String::new();
        daemon.stderr.take().expect("stderr").read_to_string(&mut said).expect("messages");
        assert_eq!(status.code(), Some(1), "{said}");
        for what in ["roots", "secret"] {
            let is_said = |line: &str| line.contains(what) && line.contains("Permission denied");
            assert!(said.lines().any(is_said), "{what}: {said}");
        }
        assert!(!files.config().with_file_name("roots").exists());
    });
}

fn killed(files: Files) {
    killed_again_and_again(files, |_, daemon| kill(daemon));
}

fn sinks_killed(files: Files) {
    killed_again_and_again(files, |files, mut daemon| {
        let sinks = sinks_of(files, &daemon);
        signal(sinks, libc::SIGKILL);
        let status = daemon.wait().expect("wait");
        assert_eq!(status.code(), Some(1));
        let said = BufReader::new(daemon.stderr.take().expect("stderr")).lines();
        let said: Vec<String> = said.map_while(Result::ok).collect();
        let has = |words: &str| said.iter().any(|line| line.contains(words));
        let how = match files.sinks {
            Some(SinksProcess::User) => "the process of the sinks has ended: signal: 9",
            _ => "the process of the sinks has closed its connection",
        };
        assert!(has(how), "{said:?}");
        assert!(has("records were not delivered"), "{said:?}");
    });
}

fn reloaded(files: Files) {
    in_lab(|netns| {
        let [port, metrics] = [fresh_port(), fresh_port()];
        let Some(files) = files(port) else { return };
        let head = format!(
            "metrics = \"127.0.0.1:{metrics}\"\n[filter]\nport = {port}\nnetns = {netns}\n[kernel]\nalongside = true\n"
        );
        files.write(&head);
        let daemon = files.start(1);
        files.connection(port);
        wait_until("the metrics count what is delivered", || {
            let is_count = |line: &&str| line.starts_with("sockstate_sink_delivered_total{");
            ask(metrics).lines().filter(is_count).any(|line| !line.ends_with(" 0"))
        });
        // A second sink begins.
        let other = files.output().with_file_name("other.json");
        let second = format!("{head}[sinks.other]\ntype = \"file\"\npath = \"{}\"\n", other.display());
        files.write(&second);
        signal(daemon.id(), libc::SIGHUP);
        let text = || fs::read_to_string(&other).unwrap_or_default();
        wait_until("the new sink begins", || text().contains("\"kind\":\"start\""));
        // It writes to the same file as before, after the sink before it has released the file.
        files.write(&second.replace("[sinks.other]", "[sinks.other]\nrecords = [\"stuck\"]"));
        signal(daemon.id(), libc::SIGHUP);
        wait_until("the changed sink begins", || text().matches("\"kind\":\"start\"").count() == 2);
        files.write(&head);
        let removed = fs::metadata(&other).expect("metadata").len();
        signal(daemon.id(), libc::SIGHUP);
        wait_until("the second sink ends", || {
            !ask(metrics).contains("sockstate_sink_failing{sink=\"other\"}")
        });
        Kind::V4.connect(port).expect_err("nobody listens");
        let is_refused = |record: &Value| record["from"] == "SYN_SENT" && record["to"] == "CLOSE";
        wait_until("the first sink goes on", || files.records().iter().any(is_refused));
        end(daemon);
        assert_eq!(fs::metadata(&other).expect("metadata").len(), removed, "{}", text());
        assert!(files.records().iter().all(|record| record["kind"] != "lost"));
    });
}

fn out_of_reach() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::split(port) else { return };
        let elsewhere = files.config().with_file_name("elsewhere");
        fs::create_dir(&elsewhere).expect("directory");
        chown_to_nobody(&elsewhere);
        files.configure(netns, port, "");
        let mut daemon = files.start(1);
        let sink = format!("[sinks.other]\ntype = \"file\"\npath = \"{}\"", elsewhere.join("out").display());
        files.configure(netns, port, &sink);
        signal(daemon.id(), libc::SIGHUP);
        let mut said = BufReader::new(daemon.stderr.take().expect("stderr")).lines().map_while(Result::ok);
        let missing = format!("cannot reach {} before sockstate is restarted", elsewhere.display());
        let mut has_landlock = true;
        let is_missing = |line: String| {
            has_landlock &= !line.contains("has no Landlock");
            line.contains(&missing)
        };
        assert!(said.any(is_missing));
        if has_landlock {
            let is_refused =
                |line: String| line.contains("Permission denied") && line.contains("going on without it");
            assert!(said.any(is_refused));
            assert!(!elsewhere.join("out").exists());
        }
        files.connection(port);
        end(daemon);
    });
}

fn in_state_directory() {
    in_lab(|netns| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::split(port) else { return };
        let of_service = ["state", "logs"].map(|name| files.config().with_file_name(name));
        for directory in &of_service {
            fs::create_dir(directory).expect("directory");
            chown_to_nobody(directory);
        }
        files.configure(netns, port, "");
        let mut command = sockstate();
        // systemd separates several directories by colons.
        let state = format!("{}:/var/lib/other", of_service[0].display());
        command.env("STATE_DIRECTORY", state).env("LOGS_DIRECTORY", &of_service[1]);
        let daemon = files.spawn(command);
        wait_until("it traces", || files.starts() == 1);
        let other = of_service[1].join("out");
        let sink = format!(
            "[sinks.other]\ntype = \"file\"\npath = \"{}\"\n\
             [sinks.later]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:9\"\nspool = \"{}\"",
            other.display(),
            of_service[0].display()
        );
        files.configure(netns, port, &sink);
        signal(daemon.id(), libc::SIGHUP);
        wait_until("the new sink has begun", || other.exists());
        files.connection(port);
        wait_until("the new sink has records", || {
            fs::read_to_string(&other).is_ok_and(|text| text.contains("\"to\":\"CLOSE\""))
        });
        wait_until("the new sink has a spool", || of_service[0].join("later").is_dir());
        end(daemon);
    });
}

fn spooled() {
    if observer::is_in_vm() {
        return skip("takes seconds there, and has nothing to do with the kernel");
    }
    in_lab(|netns| {
        let [port, collector] = [fresh_port(), fresh_port()];
        let Some(files) = DaemonFiles::split(port) else { return };
        let spool = files.output().with_file_name("spool");
        fs::create_dir(&spool).expect("directory");
        chown_to_nobody(&spool);
        let sections = format!(
            "[filter]\nport = {port}\nnetns = {netns}\n[kernel]\nalongside = true\n\
             [sinks.small]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{collector}\"\nqueue = \"4k\"\nretry = \"100ms\"\n\
             [sinks.spooled]\ntype = \"socket\"\naddress = \"tcp://127.0.0.1:{collector}\"\nqueue = \"4k\"\nretry = \"100ms\"\n\
             spool = \"{}\"\n",
            spool.display()
        );
        files.write(&sections);
        let daemon = files.start(1);
        let refused = |records: &[Value]| records.iter().filter(|record| record["to"] == "CLOSE").count();
        // A batch is taken however large it is, so each connection is to be a batch.
        for nth in 1..=20 {
            Kind::V4.connect(port).expect_err("nobody listens");
            wait_until("it is recorded", || refused(&files.records()) == nth);
        }
        let listener = TcpListener::bind(("127.0.0.1", collector)).expect("a collector");
        let received: Arc<Mutex<Vec<Value>>> = Arc::default();
        let read = |stream: TcpStream| {
            let received = Arc::clone(&received);
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            let records = lines.map(|line| serde_json::from_str(&line).expect("JSON"));
            let noted = move |record: &Value| received.lock().expect("lock").push(record.clone());
            std::thread::spawn(move || records.inspect(noted).collect::<Vec<Value>>())
        };
        let accept = || listener.accept().expect("a sink").0;
        let readers = [accept(), accept()].map(read);
        // A stream reports what its queue had no room for with the next records.
        let is_reported = || received.lock().expect("lock").iter().any(|record| record["place"] == "sink");
        let mut nth = 20;
        while !is_reported() {
            Kind::V4.connect(port).expect_err("nobody listens");
            nth += 1;
            wait_until("it is recorded", || refused(&files.records()) == nth);
        }
        end(daemon);
        let [one, other] = readers.map(|reader| reader.join().expect("a reader"));
        let all = files.records().len() as u64;
        // The sink with the spool lost nothing; the other one reports what it has lost.
        let is_whole = |records: &[Value]| lost(records, "sink") == 0;
        assert!(is_whole(&one) != is_whole(&other), "{} and {} records", one.len(), other.len());
        let (whole, part) = if is_whole(&one) { (one, other) } else { (other, one) };
        assert_eq!(whole.len() as u64, all);
        let reports = part.iter().filter(|record| record["kind"] == "lost").count() as u64;
        assert_eq!(part.len() as u64 - reports + lost(&part, "sink"), all);
    });
}

fn checked() {
    in_lab(|_| {
        let port = fresh_port();
        let Some(files) = DaemonFiles::split(port) else { return };
        let check = |user: &str| {
            files.write("[kernel]\nalongside = true\n");
            let text = fs::read_to_string(files.config()).expect("config");
            let text = text.replace("sinks-user = \"nobody\"", &format!("sinks-user = \"{user}\""));
            fs::write(files.config(), text).expect("config");
            let mut command = sockstate();
            let output =
                command.args(["run", "--check", "--config"]).arg(files.config()).output().expect("sockstate");
            (output.status.code(), String::from_utf8(output.stderr).expect("text"))
        };
        assert_eq!(check("nobody"), (Some(0), String::new()));
        let (code, said) = check("root");
        assert!(code == Some(1) && said.contains("1:14: 'root' is root"), "{said}");
        let (code, said) = check("no such user");
        assert!(code == Some(1) && said.contains("there is no user 'no such user'"), "{said}");
    });
}
