//! TIME_WAIT for its whole duration, and many half-open connections.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Test,
    blind::Blind,
    lab::{Tracer, in_lab},
    netns::sysctl,
    observer::{self, patience, proc_net_tcp, wait_for_states},
    skip,
    sockets::{Kind, fresh_port},
    test, timer_test,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        timer_test("timewait: ends when its minute is over", own_time),
        test(
            "timewait: the observer of process 1 sees mini-sockets' timers in the context of a process",
            observed,
        ),
        test("timewait: a flood of half-open connections, each with its end", flood),
    ]
}

fn sees_minis(start: &Value) -> bool {
    let exact = ["fentry", "kprobe", "timers"].iter().any(|tier| start["tier"] == *tier);
    if !exact {
        skip("mini-sockets are not to be seen here");
    }
    exact
}

/// TCP_TIMEWAIT_LEN and the slack of the kernel's timer wheel: 60 to 64 s, and never longer than /proc/net/tcp shows
/// the socket.
fn own_time() {
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        if !sees_minis(&tracer.seen()[0]) {
            return;
        }
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        drop(client);
        wait_for_states(&["LISTEN", "FIN_WAIT2", "CLOSE_WAIT"]);
        drop((server, listener));
        wait_for_states(&["TIME_WAIT"]);
        let begin = Instant::now();
        while proc_net_tcp().iter().any(|line| line.2 == "TIME_WAIT") {
            assert!(begin.elapsed() < Duration::from_secs(70), "it stays");
            thread::sleep(Duration::from_millis(100));
        }
        let lived = begin.elapsed();
        let end = tracer.wait_for(|record| record["from"] == "TIME_WAIT");
        assert_eq!((&end["to"], &end["cause"]), (&"CLOSE".into(), &"expired".into()), "{end}");
        let said = Duration::from_nanos(end["in_state_ns"].as_u64().expect("in_state_ns"));
        assert!(said >= Duration::from_secs(60), "{end}");
        let wrong = said.abs_diff(lived);
        assert!(wrong < Duration::from_secs(1), "said {said:?}, /proc/net/tcp showed it for {lived:?}");
        tracer.stop();
    });
}

/// Loopback's packets are handled in the context of the process that sends them.
fn observed() {
    if observer::is_in_vm() {
        skip("BPF programs run in the context of process 1 here");
        return;
    }
    in_lab(|_| {
        let own = Blind::watch_all_of(std::process::id()).expect("ftrace");
        let (listener, client, server) = Kind::V4.pair(fresh_port());
        assert!(own.request_timers().expect("ftrace") > 0, "the request's begin");
        let minis = own.mini_timers().expect("ftrace");
        drop(client);
        drop((server, listener));
        wait_for_states(&["TIME_WAIT"]);
        assert!(own.mini_timers().expect("ftrace") > minis, "TIME_WAIT's begin");
    });
}

/// Sends SYNs whose answers no socket receives.
fn flood() {
    // Emulated machines are slow.
    let syns = if observer::is_in_vm() { 300 } else { 1500 };
    in_lab(|netns| {
        let mut tracer = Tracer::start(netns, &[]);
        if !sees_minis(&tracer.seen()[0]) {
            return;
        }
        // In the virtual machines, BPF programs run in every context.
        let blind = if observer::is_in_vm() { None } else { Some(Blind::watch_all().expect("ftrace")) };
        for (name, value) in [
            ("core/somaxconn", "4096"),
            ("ipv4/tcp_max_syn_backlog", "8192"),
            ("ipv4/tcp_syncookies", "0"),
            ("ipv4/tcp_synack_retries", "1"),
        ] {
            sysctl(name, value).expect("sysctl");
        }
        let port = fresh_port();
        let listener = Kind::V4.listen_for(port, 4096);
        let clients: Vec<_> = (0..syns).map(|_| Kind::V4.start_deaf_connect(port)).collect();
        let half_open = || proc_net_tcp().iter().filter(|line| line.2 == "SYN_RECV").count();
        let deadline = Instant::now() + patience();
        while half_open() < syns {
            assert!(Instant::now() < deadline, "{} of {syns} half open", half_open());
            thread::yield_now();
        }
        drop(clients);
        drop(listener);
        let deadline = Instant::now() + patience();
        while half_open() > 0 {
            assert!(Instant::now() < deadline, "{} still half open", half_open());
            thread::sleep(Duration::from_millis(20));
        }
        let ended = |record: &Value| record["from"] == "SYN_RECV" && record["to"] == "CLOSE";
        // Where a timer expires in the context of process 1, some kernels run no BPF program.
        let hidden = blind.map_or(0, |blind| blind.request_timers().expect("ftrace"));
        for _ in hidden..syns {
            tracer.wait_for(|record| ended(record));
        }
        let story = tracer.stop();
        let requests = story.transitions().filter(|record| record["to"] == "SYN_RECV").count();
        let ends: Vec<&Value> = story.transitions().filter(|record| ended(record)).collect();
        assert_eq!(requests, syns);
        let missing = syns.checked_sub(ends.len()).expect("no request ends twice");
        assert!(missing <= hidden, "{missing} ends are missing, and ftrace shows that {hidden} were hidden");
        for end in ends {
            let known = ["expired", "dropped", "listener_closed"].iter().any(|cause| end["cause"] == *cause);
            assert!(known && end["mini"] == true, "{end}");
        }
        assert_eq!(story.of("lost").count(), 0);
        assert_eq!(story.records.last().map(|record| &record["illegal"]), Some(&0.into()));
    });
}
