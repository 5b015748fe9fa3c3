//! A sink for a topic of a broker that speaks Kafka's protocol. The broker is killed during the test, and another
//! project's client reads the topic.

use std::{net::TcpStream, path::Path, process::Command, process::Stdio};

use serde_json::Value;

use crate::{
    Test,
    daemon::{Daemon, SPLIT, connections},
    lab::{in_lab, wait_until},
    sockets::fresh_port,
    test,
    tools::{self, Running},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("feature kafka: a topic, with a broker that is away for a while", || topic("")),
        test("feature kafka: the same, from the sinks' process", || topic(SPLIT)),
    ]
}

fn broker(port: u16, store: &Path) -> Option<Running> {
    let mut broker = tools::find("tansu", "cargo xtask setup --kafka")?;
    let address = format!("tcp://127.0.0.1:{port}");
    broker.args(["broker", "--silent", "--listener-url", &address, "--advertised-listener-url", &address]);
    let broker = Running::start(broker.current_dir(store).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_until("the broker listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Some(broker)
}

/// Makes the topic, or reads all of its records, with kafka-python.
const CLIENT: &str = r#"
import sys
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
what, server = sys.argv[1], "127.0.0.1:" + sys.argv[2]
if what == "make":
    KafkaAdminClient(bootstrap_servers=server).create_topics([NewTopic("tcp", 1, 1)])
else:
    consumer = KafkaConsumer(bootstrap_servers=server)
    partition = TopicPartition("tcp", 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    # Until nothing comes: the end that this broker tells is sometimes the one before the last batch.
    while found := consumer.poll(timeout_ms=1000).get(partition, []):
        for message in found:
            sys.stdout.buffer.write(message.key + b" " + message.value + b"\n")
"#;

fn client(python: &Command, what: &str, port: u16) -> String {
    let mut python = Command::new(python.get_program());
    let output = python.args(["-c", CLIENT, what, &port.to_string()]).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn topic(top: &'static str) {
    let Some(python) = tools::python("kafka") else { return };
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let [kafka, port] = [fresh_port(), fresh_port()];
        let sink = format!(
            "[sinks.kafka]\ntype = \"kafka\"\nurl = \"127.0.0.1:{kafka}\"\ntopic = \"tcp\"\nretry = \"200ms\"\n\
             timeout = \"2s\"\n[sinks.kafka.properties]\n\"compression.type\" = \"none\"\n"
        );
        let daemon = Daemon::start_with(top, netns, port, &sink);
        let lines = || client(&python, "read", kafka);
        // First there is no broker, and then no topic.
        connections(50, port);
        let Some(broker) = broker(kafka, directory.path()) else { return };
        client(&python, "make", kafka);
        wait_until("some arrive", || lines().lines().count() > 100);
        // The broker hangs: it neither accepts nor refuses the records that were sent.
        broker.signal(libc::SIGSTOP);
        connections(50, port);
        broker.signal(libc::SIGCONT);
        connections(1, port);
        wait_until("the rest arrives", || lines().lines().count() > 1000);
        let (story, _directory) = daemon.stop();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let found: Vec<Value> = lines()
            .lines()
            .map(|line| {
                let (key, value) = line.split_once(' ').expect("a key");
                assert_eq!(key, host);
                serde_json::from_str(value).expect("JSON")
            })
            .collect();
        assert_eq!(found.len(), story.records.len(), "everything once");
        let other = found.iter().zip(&story.records).find(|(found, said)| found != said);
        assert!(other.is_none(), "{other:#?}");
    });
}
