use super::*;
use crate::model::{Cause, ClosedFirst, InState};

/// The records of the connections that end with these transitions, each `(from, to, time in from)`; the first transition
/// is at 1 s, and each later one as much later as its time in `from`.
fn ended(steps: &[(State, State, Option<u64>)]) -> Vec<Lifespan> {
    let mut lifespans = Lifespans::default();
    let mut time_ns = 1_000_000_000;
    let mut note = |(at, &(from, to, ns)): (usize, &(State, State, Option<u64>))| {
        time_ns += if at == 0 { 0 } else { ns.unwrap_or(1) as i64 };
        let in_state = ns.map(|ns| InState { ns, at_least: false });
        let transition = Transition { time_ns, in_state, ..Transition::example(from, to) };
        lifespans.note(&Record::Transition(transition))
    };
    let records: Vec<Record> = steps.iter().enumerate().filter_map(&mut note).collect();
    assert!(lifespans.lives.is_empty() || records.is_empty(), "what has ended is forgotten");
    let lifespan = |record| match record {
        Record::Connection(lifespan) => *lifespan,
        other => panic!("{other:?}"),
    };
    records.into_iter().map(lifespan).collect()
}

fn path(lifespan: &Lifespan) -> Vec<(&'static str, Option<u64>)> {
    lifespan.path.iter().map(|step| (step.state.name(), step.ns)).collect()
}

use State::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, NewSynRecv, SynRecv,
    SynSent, TimeWait,
};

#[test]
fn a_client_that_closes_first_ends_with_time_wait() {
    let all = ended(&[
        (Close, SynSent, None),
        (SynSent, Established, Some(59)),
        (Established, FinWait1, Some(1000)),
        (FinWait1, FinWait2, Some(7)),
        (FinWait2, TimeWait, Some(8)),
        // The connection had its record.
        (TimeWait, Close, Some(60_000_000_000)),
    ]);
    let [lifespan] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        path(lifespan),
        [
            ("SYN_SENT", Some(59)),
            ("ESTABLISHED", Some(1000)),
            ("FIN_WAIT1", Some(7)),
            ("FIN_WAIT2", Some(8)),
            ("TIME_WAIT", None)
        ]
    );
    assert_eq!((lifespan.begin_ns, lifespan.time_ns), (1_000_000_000, 1_000_001_074));
    assert_eq!((lifespan.duration_ns, lifespan.handshake_ns()), (1074, Some(59)));
    assert_eq!(lifespan.closed_first(), Some(ClosedFirst::Local));
    assert_eq!((lifespan.at_least, lifespan.incomplete, lifespan.exact), (false, false, true));
    assert_eq!(lifespan.last_change(), (Some(FinWait2), TimeWait));
}

#[test]
fn a_server_whose_peer_closes_first_ends_with_close() {
    let all = ended(&[
        (Listen, NewSynRecv, None),
        (SynRecv, Established, Some(30)),
        (Established, CloseWait, Some(1000)),
        (CloseWait, LastAck, Some(5)),
        (LastAck, Close, Some(6)),
    ]);
    let [lifespan] = &all[..] else { panic!("{all:?}") };
    let names: Vec<&str> = path(lifespan).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK"]);
    assert_eq!((lifespan.closed_first(), lifespan.handshake_ns()), (Some(ClosedFirst::Remote), Some(30)));
    assert!(!lifespan.incomplete);
    let changes: Vec<_> = lifespan.changes().collect();
    assert_eq!(changes[0], (None, SynRecv));
    assert_eq!(changes[4], (Some(LastAck), Close));
    assert_eq!(changes.len(), 5);
}

#[test]
fn who_closed_first() {
    for (states, first) in [
        (&[SynSent, Established][..], None),
        (&[SynSent], None),
        (&[Established, FinWait1, Closing, TimeWait], Some(ClosedFirst::Both)),
        (&[FinWait2], Some(ClosedFirst::Local)),
        (&[LastAck], Some(ClosedFirst::Remote)),
        (&[SynRecv, FinWait1], Some(ClosedFirst::Local)),
    ] {
        let path: Vec<PathStep> = states.iter().map(|&state| PathStep { state, ns: None }).collect();
        assert_eq!(ClosedFirst::of(&path), first, "{states:?}");
    }
}

#[test]
fn a_connection_older_than_the_trace_says_so() {
    let all = ended(&[(Established, CloseWait, Some(500)), (CloseWait, Close, Some(20))]);
    assert_eq!(all.len(), 1);
    let lifespan = &all[0];
    assert!(lifespan.at_least && !lifespan.incomplete);
    assert_eq!((lifespan.begin_ns, lifespan.duration_ns), (1_000_000_000 - 500, 520));
    assert_eq!((lifespan.handshake_ns(), lifespan.closed_first()), (None, Some(ClosedFirst::Remote)));
    assert!(ended(&[(TimeWait, Close, Some(5))]).is_empty(), "it ended before the trace");
}

#[test]
fn what_was_lost_is_not_invented() {
    let all = ended(&[(Close, SynSent, None), (FinWait1, FinWait2, None), (FinWait2, TimeWait, Some(3))]);
    assert_eq!(all.len(), 1);
    assert!(all[0].incomplete);
    assert_eq!(path(&all[0]), [("FIN_WAIT1", None), ("FIN_WAIT2", Some(3)), ("TIME_WAIT", None)]);
    assert_eq!((all[0].duration_ns, all[0].handshake_ns()), (4, None));
    // More states than TCP has.
    let many: Vec<_> = std::iter::once((Close, SynSent, None))
        .chain((0..10).flat_map(|_| [(SynSent, Established, Some(1)), (Established, SynSent, Some(1))]))
        .chain([(SynSent, Close, Some(1))])
        .collect();
    let all = ended(&many);
    assert!(all[0].incomplete && all[0].path.len() == MOST_STEPS);
}

#[test]
fn a_correction_ends_a_connection_as_incomplete() {
    let resync = |was, state| Record::Resync(Resync { time_ns: 9, conn: Connection::example(), was, state });
    let mut lifespans = Lifespans::default();
    assert!(lifespans.note(&Record::Transition(Transition::example(Close, SynSent))).is_none());
    assert!(lifespans.note(&resync(Some(SynSent), Established)).is_none());
    let ended = lifespans.note(&resync(Some(Established), Close));
    let Some(Record::Connection(lifespan)) = ended else { panic!("{ended:?}") };
    assert!(lifespan.incomplete && lifespan.cause.is_none());
    assert_eq!(path(&lifespan), [("SYN_SENT", None), ("ESTABLISHED", None)]);
    assert!(lifespans.note(&resync(Some(TimeWait), Close)).is_none(), "it had its record");
    assert!(lifespans.note(&resync(None, TimeWait)).is_none(), "only its end is seen");
    assert!(lifespans.note(&resync(None, Established)).is_none());
    assert!(lifespans.note(&resync(Some(Established), TimeWait)).is_some());
    assert!(lifespans.lives.is_empty());
}

#[test]
fn a_listener_is_no_connection() {
    assert!(ended(&[(Close, Listen, None), (Listen, Close, Some(5))]).is_empty());
}

#[test]
fn the_end_has_the_cause() {
    let mut lifespans = Lifespans::default();
    lifespans.note(&Record::Transition(Transition::example(Close, SynSent)));
    let refused =
        Transition { cause: Some(Cause::Refused), errno: 111, ..Transition::example(SynSent, Close) };
    let Some(Record::Connection(lifespan)) = lifespans.note(&Record::Transition(refused)) else {
        panic!("no record")
    };
    assert_eq!((lifespan.cause, lifespan.errno), (Some(Cause::Refused), 111));
    assert_eq!(path(&lifespan), [("SYN_SENT", Some(1))]);
}
