//! The tracer reports stuck sockets without being asked.

use std::{process, time::Duration};

use crate::{
    Test,
    lab::{Tracer, in_lab},
    look_test,
    observer::wait_for_states,
    sockets::{Kind, fresh_port},
    stuck::holders,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("stuck: the tracer reports it, again, and when it is resolved", traced),
        look_test("stuck: older than the tracer, by the kernel's clock", older),
    ]
}

fn traced() {
    in_lab(|netns| {
        let port = fresh_port();
        let rule = format!("CLOSE_WAIT:{port}=1");
        let mut tracer = Tracer::start(netns, &["--threshold", &rule]);
        let (_listener, client, server) = Kind::V4.pair(port);
        drop(client);
        let entered = tracer.wait_for(|record| record["to"] == "CLOSE_WAIT");
        let first = tracer.wait_for(|record| record["kind"] == "stuck");
        let again = tracer.wait_for(|record| record["kind"] == "stuck");
        drop(server);
        let left = tracer.wait_for(|record| record["from"] == "CLOSE_WAIT");
        let over = tracer.wait_for(|record| record["kind"] == "resolved");
        let story = tracer.stop();
        for record in [&first, &again, &over] {
            assert_eq!(
                (&record["conn"], &record["state"]),
                (&entered["conn"], &"CLOSE_WAIT".into()),
                "{record}"
            );
            assert_eq!(record["age_at_least"], false);
        }
        for (record, times, least) in [(&first, 1, 1), (&again, 2, 2)] {
            assert_eq!(record["times"], times);
            let age = Duration::from_nanos(record["age_ns"].as_u64().expect("age"));
            // The watchdog checks once a second.
            assert!(age >= Duration::from_secs(least) && age < Duration::from_secs(least + 5), "{record}");
            assert_eq!((&record["reason"], holders(record).len()), (&"eof_unread".into(), 1), "{record}");
            assert_eq!(holders(record)[0].0, u64::from(process::id()));
            assert_eq!(record["owner"]["pid"], process::id());
        }
        assert_eq!(over["to"], left["to"]);
        assert_eq!(over["age_ns"], left["in_state_ns"]);
        assert_eq!((story.of("stuck").count(), story.of("resolved").count()), (2, 1));
    });
}

fn older() {
    in_lab(|netns| {
        let port = fresh_port();
        let (_listener, client, server) = Kind::V4.pair(port);
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        let begin = std::time::Instant::now();
        std::thread::sleep(Duration::from_millis(2500));
        let waited = begin.elapsed();
        let mut tracer = Tracer::start(netns, &["--threshold", "CLOSE_WAIT=1"]);
        let record = tracer.wait_for(|record| record["kind"] == "stuck");
        assert_eq!(
            (&record["age_at_least"], &record["reason"]),
            (&true.into(), &"eof_unread".into()),
            "{record}"
        );
        // The kernel counts in milliseconds, or in ticks of up to ten.
        let age = Duration::from_nanos(record["age_ns"].as_u64().expect("age"));
        assert!(age + Duration::from_millis(20) >= waited, "{age:?} of {waited:?}");
        // A connection that was stuck long before the start gets one record at first. The interval to the reminder
        // counts from this record, and `times` counts the records.
        let again = tracer.wait_for(|record| record["kind"] == "stuck");
        assert_eq!((&record["times"], &again["times"]), (&1.into(), &2.into()));
        assert!(
            again["age_ns"].as_u64() >= record["age_ns"].as_u64().map(|ns| ns + 1_000_000_000),
            "{again}"
        );
        for record in [&record, &again] {
            assert_eq!((&record["reason"], holders(record).len()), (&"eof_unread".into(), 1), "{record}");
            assert!(!record["why"].is_null() && !record["advice"].is_null(), "{record}");
        }
        let quiet = Tracer::start(netns, &["--no-stuck"]).stop();
        assert_eq!(quiet.of("stuck").count(), 0);
        drop(server);
        tracer.wait_for(|record| record["kind"] == "resolved");
        tracer.stop();
    });
}
