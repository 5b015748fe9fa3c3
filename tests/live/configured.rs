//! What a configuration says is shown to nobody whom it does not concern, and a wrong one changes nothing.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Stdio,
};

use crate::{
    Test,
    daemon::connections,
    hostile::{FILE, Raw},
    lab::{in_lab, signal, wait_until},
    sockets::fresh_port,
    test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("configured: no secret in messages, records and metrics", secrets),
        test("configured: a reload of a configuration with a fault changes nothing", wrong_reload),
    ]
}

fn ask(port: u16) -> String {
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("request");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("answer");
    answer
}

fn secrets() {
    in_lab(|netns| {
        let [dead, port, metrics] = [fresh_port(), fresh_port(), fresh_port()];
        let secret = tempfile::NamedTempFile::new().expect("file");
        fs::write(secret.path(), "Bearer s3cr3t").expect("secret");
        let sinks = format!(
            "{FILE}[sinks.http]\ntype = \"http\"\nurl = \"http://127.0.0.1:{dead}/in?token=s3cr3t\"\n\
             authorization-file = \"{}\"\nretry = \"100ms\"\n[sinks.http.headers]\nX-Key = \"s3cr3t\"\n",
            secret.path().display()
        );
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let mut daemon =
            Raw::start_with(&format!("metrics = \"127.0.0.1:{metrics}\"\n"), netns, &sinks, |command| {
                command.stderr(stderr).stdout(Stdio::null());
            });
        daemon.wait_for("\"kind\":\"start\"");
        connections(2, port);
        let said = || fs::read_to_string(errors.path()).expect("messages");
        wait_until("the collector is missed", || said().contains("sink http: "));
        let numbers = ask(metrics);
        assert!(numbers.contains("sockstate_") && !numbers.contains("s3cr3t"), "{numbers}");
        let seen = said().len();
        daemon.write(&sinks.replace("url = \"http://", "url = \"http://user:s3cr3t@"));
        signal(daemon.pid(), libc::SIGHUP);
        wait_until("the reload is refused", || said()[seen..].contains("user or a password"));
        assert!(daemon.end_now().success());
        let records = fs::read_to_string(daemon.path("out")).expect("records");
        assert!(records.contains("\"to\":\"TIME_WAIT\""));
        for text in [said(), records] {
            assert!(!text.contains("s3cr3t"), "{text}");
        }
    });
}

fn wrong_reload() {
    in_lab(|netns| {
        let port = fresh_port();
        let errors = tempfile::NamedTempFile::new().expect("file");
        let stderr = errors.reopen().expect("file");
        let mut daemon = Raw::start(netns, FILE, |command| {
            command.stderr(stderr);
        });
        daemon.wait_for("\"kind\":\"start\"");
        let said = || fs::read_to_string(errors.path()).expect("messages");
        for (sinks, words) in [
            (format!("{FILE}[sinks.b]\ntype = \"tape\"\n[sinks.c]\ntype = \"file\"\n"), "'path' is missing"),
            (format!("{FILE}[sinks.b]\ntype = \"file\"\npath = \"DIR/out\"\n"), "write to the same file"),
        ] {
            daemon.write(&sinks);
            signal(daemon.pid(), libc::SIGHUP);
            wait_until(words, || said().contains(words));
        }
        assert_eq!(said().matches("going on as before").count(), 2, "{}", said());
        connections(1, port);
        daemon.wait_for("\"to\":\"TIME_WAIT\"");
        assert!(daemon.end_now().success());
        let records = fs::read_to_string(daemon.path("out")).expect("records");
        assert_eq!(records.matches("\"kind\":\"start\"").count(), 1, "the sink went on");
    });
}
