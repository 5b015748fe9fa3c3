//! The answers of HTTP collectors: they refuse one record, some, or all, or give no valid answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use sockstate::sinks::{Envelope, Template};

use crate::{
    all,
    collector::{self, Feeder, Taken, answer, http, http_collector, listen, settings},
};

#[test]
fn http_faults_cost_nothing() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    http_collector(listener, move |at, request| {
        assert!(request.head.starts_with("POST /insert?x=1 HTTP/1.1\r\n"), "{}", request.head);
        assert!(request.head.to_ascii_lowercase().contains("x-test: yes\r\n"), "{}", request.head);
        match at {
            0 => answer("429 Too Many Requests", "Retry-After: 0\r\n", "slow down"),
            1 => answer("503 Service Unavailable", "", ""),
            2 => answer("500 Internal Server Error", "", "oops"),
            3 => None,
            4 => {
                // Longer than a sink waits.
                thread::sleep(Duration::from_millis(800));
                answer("200 OK", "", "")
            }
            5 => Some("this is no HTTP\r\n\r\n".into()),
            _ => {
                String::from_utf8_lossy(&request.body).lines().for_each(|line| into.add(line.to_owned()));
                answer("204 No Content", "", "")
            }
        }
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    for _ in 0..10 {
        feeder.push(100);
        thread::sleep(Duration::from_millis(20));
    }
    feeder.wait_until("all is delivered", |status| status.delivered() == 1000);
    assert_eq!(taken.seqs(), all(1000), "answered with success once each");
    assert!(feeder.queue.status().failures() >= 5, "{}", feeder.queue.status().failures());
    assert_eq!(feeder.queue.status().lost(), 0);
    feeder.end(Duration::from_secs(1));
}

#[test]
fn what_a_collector_refuses_for_good_is_lost_and_said() {
    let (listener, port) = listen();
    http_collector(listener, |at, _| match at {
        0 => answer("405 Method Not Allowed", "", "not what I wanted"),
        _ => answer("200 OK", "", ""),
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(10);
    feeder.wait_until("it is refused", |status| status.lost() == 10);
    assert_eq!(feeder.queue.take_lost(), 10, "for the stream");
    feeder.push(5);
    feeder.wait_until("the next is not", |status| status.delivered() == 5);
    assert!(!feeder.queue.has_lost());
}

/// A collector that answers `status` to requests in which a record has a number of `bad`.
fn choosy(status: &'static str, bad: &'static [u64]) -> (Feeder, Taken) {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    http_collector(listener, move |_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        if body.lines().any(|line| bad.contains(&collector::seq(line))) {
            return answer(status, "", "not that one");
        }
        body.lines().for_each(|line| into.add(line.to_owned()));
        answer("200 OK", "", "")
    });
    (Feeder::start(&settings(http(port, Template::Ndjson)), None), taken)
}

#[test]
fn one_record_that_a_collector_does_not_want_costs_itself_only() {
    for status in ["400 Bad Request", "413 Payload Too Large", "422 Unprocessable Entity"] {
        let (mut feeder, taken) = choosy(status, &[1, 77, 78, 500]);
        feeder.push(500);
        feeder
            .wait_until("the others are delivered", |status| status.delivered() == 496 && status.lost() == 4);
        feeder.push(100);
        feeder.wait_until("it goes on", |status| status.delivered() == 596);
        let wanted: Vec<u64> = all(600).into_iter().filter(|seq| ![1, 77, 78, 500].contains(seq)).collect();
        assert_eq!(taken.seqs(), wanted, "{status}");
        assert_eq!(feeder.queue.take_lost(), 4);
    }
}

/// A collector that gives each request one answer, and the number of its requests.
fn monotonous(status: &'static str, headers: &'static str) -> (Feeder, Arc<AtomicUsize>) {
    let (listener, port) = listen();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    http_collector(listener, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        answer(status, headers, "")
    });
    (Feeder::start(&settings(http(port, Template::Ndjson)), None), requests)
}

#[test]
fn a_collector_that_wants_nothing_is_not_asked_for_each_record() {
    let (mut feeder, requests) = monotonous("400 Bad Request", "");
    feeder.push(2000);
    feeder.wait_until("all are refused", |status| status.lost() == 2000);
    assert!(requests.load(Ordering::Relaxed) < 100, "{requests:?}");
}

#[test]
fn an_answer_without_an_end_is_no_reason_to_send_again() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    let long = "x".repeat(5 << 20);
    http_collector(listener, move |_, request| {
        String::from_utf8_lossy(&request.body).lines().for_each(|line| into.add(line.to_owned()));
        answer("200 OK", "", &long)
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(100);
    feeder.wait_until("all is delivered", |status| status.delivered() == 100);
    assert_eq!(taken.seqs(), all(100));
}

#[test]
fn a_collector_that_asks_for_no_pause_gets_one() {
    let (mut feeder, requests) = monotonous("429 Too Many Requests", "Retry-After: 0\r\n");
    feeder.push(10);
    feeder.wait_until("it is tried", |status| status.failures() > 0);
    thread::sleep(Duration::from_secs(2));
    let count = requests.load(Ordering::Relaxed);
    assert!((2..=40).contains(&count), "{count} requests");
}

#[test]
fn a_request_that_is_too_large_is_halved() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    http_collector(listener, move |_, request| {
        if request.body.len() > 1500 {
            return answer("413 Payload Too Large", "", "");
        }
        String::from_utf8_lossy(&request.body).lines().for_each(|line| into.add(line.to_owned()));
        answer("200 OK", "", "")
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Ndjson)), None);
    feeder.push(100);
    feeder.wait_until("all is delivered", |status| status.delivered() == 100);
    assert_eq!(taken.seqs(), all(100));
}

#[test]
fn bulk_answers_are_read_item_by_item() {
    let (listener, port) = listen();
    let taken = Taken::default();
    let into = taken.clone();
    // The answers for three records: accepted, refused, try again later. The next request has the records that are
    // left.
    http_collector(listener, move |at, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let lines: Vec<&str> = body.lines().collect();
        assert!(lines.iter().step_by(2).all(|line| *line == "{\"create\":{}}"), "{body}");
        let records: Vec<&str> = lines.iter().skip(1).step_by(2).copied().collect();
        let statuses: &[u16] = match at {
            0 => &[201, 400, 429],
            _ => &[400, 201],
        };
        assert_eq!(records.len(), statuses.len(), "{body}");
        let items: Vec<String> =
            statuses.iter().map(|status| format!("{{\"create\":{{\"status\":{status}}}}}")).collect();
        for (record, status) in records.iter().zip(statuses) {
            if *status == 201 {
                into.add((*record).to_owned());
            }
        }
        answer("200 OK", "", &format!("{{\"errors\":true,\"items\":[{}]}}", items.join(",")))
    });
    let mut feeder = Feeder::start(&settings(http(port, Template::Elasticsearch)), None);
    feeder.push(3);
    feeder.wait_until("it is over", |status| status.delivered() == 2 && status.lost() == 1);
    assert_eq!(taken.seqs(), [1, 3]);
}

#[test]
fn what_an_otlp_collector_takes_in_part_is_counted_in_part() {
    let envelope = Envelope { before: b"[".to_vec(), behind: b"]".to_vec() };
    // ExportLogsServiceResponse { partial_success: { rejected_log_records: 3, error_message: "no" } }
    let protobuf = "\u{a}\u{6}\u{8}\u{3}\u{12}\u{2}no";
    let json = "{\"partialSuccess\":{\"rejectedLogRecords\":\"3\",\"errorMessage\":\"no\"}}";
    for (template, body) in
        [(Template::OtlpJson(envelope.clone()), json), (Template::OtlpProtobuf(envelope.clone()), protobuf)]
    {
        let (listener, port) = listen();
        http_collector(listener, move |at, _| answer("200 OK", "", if at == 0 { body } else { "" }));
        let mut feeder = Feeder::start(&settings(http(port, template)), None);
        feeder.push(10);
        feeder.wait_until("a part is lost", |status| status.lost() == 3 && status.delivered() == 7);
        feeder.push(10);
        feeder.wait_until("and then nothing", |status| status.delivered() == 17);
        assert_eq!(feeder.queue.status().lost(), 3);
    }
}
