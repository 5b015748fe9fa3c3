//! A sink for a topic of librdkafka's mock cluster, which a consumer reads.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use sockstate::sinks::{Batch, Frame, KafkaSettings};

use crate::{
    all,
    collector::{self, Feeder, settings, spooled},
};

const TOPIC: &str = "tcp";
/// The only broker.
const BROKER: i32 = 1;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    cluster
}

fn target(cluster: &Cluster, properties: &[(&str, &str)]) -> KafkaSettings {
    KafkaSettings {
        brokers: cluster.bootstrap_servers(),
        topic: TOPIC.into(),
        key: "host".into(),
        timeout: Duration::from_secs(2),
        properties: properties
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// The numbers of all messages of the topic, up to `most`.
fn read(cluster: &Cluster, most: usize) -> Vec<u64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "reader")
        .create()
        .expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(TOPIC, 0, Offset::Beginning).expect("a partition");
    consumer.assign(&partitions).expect("assign");
    let mut found = Vec::new();
    let mut quiet = 0;
    // A record that was delivered twice would be there at once.
    while found.len() <= most && quiet < if found.len() < most { 100 } else { 5 } {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                assert_eq!(message.key(), Some(&b"host"[..]));
                found.push(collector::seq(
                    std::str::from_utf8(message.payload().expect("payload")).expect("UTF-8"),
                ));
                quiet = 0;
            }
            _ => quiet += 1,
        }
    }
    found
}

#[test]
fn a_topic_gets_everything_once_while_its_broker_is_away() {
    let cluster = cluster();
    let mut feeder = Feeder::start(&settings(target(&cluster, &[])), None);
    feeder.push(500);
    feeder.wait_until("delivery", |status| status.delivered() == 500);
    cluster.broker_down(BROKER).expect("down");
    feeder.push(500);
    feeder.wait_until("the broker is missed", |status| status.is_failing());
    feeder.push(500);
    cluster.broker_up(BROKER).expect("up");
    feeder.wait_until("delivery", |status| status.delivered() == 1500);
    feeder.end(Duration::from_secs(5));
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (1500, 0, 0));
    assert_eq!(read(&cluster, 1500), all(1500));
}

/// A record with a text of `bytes` bytes.
fn long(seq: u64, bytes: usize) -> Batch {
    let line = format!("{{\"seq\":{seq},\"long\":\"{}\"}}\n", "x".repeat(bytes)).into_bytes();
    let frame = Frame { end: line.len(), seq, time_ns: 1, reported_lost: 0, reported_in_doubt: 0 };
    Batch { bytes: line, frames: vec![frame] }
}

#[test]
fn a_message_that_is_too_large_for_kafka_is_lost_alone() {
    let cluster = cluster();
    let limits = [("message.max.bytes", "2000"), ("compression.type", "none")];
    let mut feeder = Feeder::start(&settings(target(&cluster, &limits)), None);
    for round in 0..3 {
        feeder.push(20);
        feeder.queue.push(long(1_000_000 + round, 4000));
    }
    feeder.push(20);
    feeder.wait_until("the rest is delivered", |status| status.delivered() + status.lost() == 83);
    feeder.end(Duration::from_secs(5));
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (80, 0, 3));
    assert_eq!(read(&cluster, 80), all(80));
}

#[test]
fn a_request_that_is_too_large_for_a_broker_is_halved() {
    let cluster = cluster();
    let too_large = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 3];
    let mut feeder = Feeder::start(&settings(target(&cluster, &[("linger.ms", "200")])), None);
    cluster.request_errors(RDKafkaApiKey::Produce, &too_large);
    feeder.push(64);
    feeder.wait_until("all is delivered", |status| status.delivered() + status.lost() == 64);
    feeder.end(Duration::from_secs(5));
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (64, 0, 0));
    assert_eq!(read(&cluster, 64), all(64));
}

#[test]
fn what_kafka_has_not_acknowledged_at_the_end_is_in_doubt() {
    let cluster = cluster();
    let mut feeder = Feeder::start(&settings(target(&cluster, &[])), None);
    feeder.push(10);
    feeder.wait_until("delivery", |status| status.delivered() == 10);
    // The broker accepts the messages, and its answer comes too late.
    cluster.broker_round_trip_time(BROKER, Duration::from_secs(60)).expect("delay");
    feeder.push(10);
    feeder.wait_until("they are under way", |status| status.queued_bytes() == 0);
    // Nothing shows when librdkafka has them.
    std::thread::sleep(Duration::from_millis(500));
    feeder.end(Duration::ZERO);
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (10, 10, 0));
    // With a spool, the next run sends them again.
    let directory = tempfile::tempdir().expect("directory");
    let mut feeder = Feeder::start(&spooled(target(&cluster, &[]), directory.path(), 1 << 20), None);
    feeder.push(10);
    feeder.wait_until("they are under way", |status| status.queued_bytes() == 0);
    feeder.end(Duration::ZERO);
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (0, 0, 0));
    cluster.broker_round_trip_time(BROKER, Duration::ZERO).expect("no delay");
    let feeder = Feeder::start(&spooled(target(&cluster, &[]), directory.path(), 1 << 20), None);
    feeder.wait_until("the spool is delivered", |status| {
        status.delivered() == 10 && status.spooled_bytes() == 0
    });
    feeder.end(Duration::from_secs(5));
}
