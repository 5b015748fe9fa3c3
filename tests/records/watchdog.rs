//! Connections that stay in a state for too long: which records the watchdog writes, and how often.

use sockstate::{
    model::{Event, EventKind, Record, SocketInfo, State, Thresholds, Transport},
    track::{Table, Update, Visibility},
};

use crate::{Names, event};

/// A stuck connection gets a record after the threshold, further records at doubling intervals, and a record when it
/// moves on. Other connections get none.
#[test]
fn what_stays_too_long_is_said() {
    const S: u64 = 1_000_000_000;
    let mut table = Table::new(1, 0, Visibility::default());
    let mut names = Names::default();
    table.set_thresholds(Thresholds::default());
    let mut said = Vec::new();
    let at = |now: u64, table: &mut Table, names: &mut Names, event: Option<Event>, said: &mut Vec<_>| {
        let mut out = |update: Update| match update {
            Update::Record(Record::Stuck(stuck)) => {
                said.push((now / S, stuck.conn.id.0 & 0xff, format!("{} {}", stuck.state, stuck.times)))
            }
            Update::Record(Record::Resolved(resolved)) => {
                said.push((
                    now / S,
                    resolved.conn.id.0 & 0xff,
                    format!("{} -> {} after {}", resolved.state, resolved.to, resolved.age.ns / S),
                ));
            }
            _ => {}
        };
        if let Some(event) = event {
            table.apply(&event, names).iter().cloned().for_each(&mut out);
        }
        table.tick(now, names, &mut out);
    };
    let to = |second: u64, sk: u64, from: State, to: State| Some(event(second * S, sk, from, to));
    for sk in 1..=3 {
        at(S, &mut table, &mut names, to(1, sk, State::Close, State::SynSent), &mut said);
        at(S, &mut table, &mut names, to(1, sk, State::SynSent, State::Established), &mut said);
    }
    at(10 * S, &mut table, &mut names, to(10, 2, State::Established, State::CloseWait), &mut said);
    at(20 * S, &mut table, &mut names, to(20, 3, State::Established, State::CloseWait), &mut said);
    for second in 21..300 {
        // The third moves on in time.
        let moves = (second == 50).then(|| to(50, 3, State::CloseWait, State::LastAck)).flatten();
        at(second * S, &mut table, &mut names, moves, &mut said);
        let ends = (second == 51).then(|| to(51, 3, State::LastAck, State::Close)).flatten();
        at(second * S, &mut table, &mut names, ends, &mut said);
    }
    at(300 * S, &mut table, &mut names, to(300, 2, State::CloseWait, State::LastAck), &mut said);
    let second = |at: u64, text: &str| (at, 2, text.to_owned());
    assert_eq!(
        said,
        [
            second(71, "CLOSE_WAIT 1"),
            second(131, "CLOSE_WAIT 2"),
            second(251, "CLOSE_WAIT 3"),
            second(300, "CLOSE_WAIT -> LAST_ACK after 290"),
        ]
    );
}

/// A connection that was stuck long before the start gets one record at first. The intervals to the next records double
/// from then on.
#[test]
fn what_was_stuck_before_is_said_once() {
    const S: u64 = 1_000_000_000;
    let mut table = Table::new(1, 0, Visibility::default());
    let mut names = Names::default();
    let begin = 10_000 * S;
    for sk in 1..=2 {
        let mut old = event(begin, sk, State::CloseWait, State::CloseWait);
        old.tuple.remote_port += sk as u16;
        old.kind = EventKind::Socket { state: State::CloseWait, mini: false };
        table.apply(&old, &mut names);
    }
    table.set_thresholds(Thresholds::default());
    // The first has been in its state for over two hours, of the second nothing is known.
    let mut tuple = event(0, 1, State::CloseWait, State::CloseWait).tuple;
    tuple.remote_port += 1;
    let socket = SocketInfo {
        netns: 1,
        transport: Transport::Tcp,
        mptcp: None,
        state: State::CloseWait,
        mini: false,
        tuple,
        interface: None,
        uid: None,
        inode: 5,
        cgroup: None,
        is_v6_only: false,
        is_transparent: false,
        is_partial: false,
        receive_queue: 1,
        send_queue: 0,
        timer: None,
        retransmits: 0,
        times: None,
        traffic: None,
        request: None,
    };
    table.backdate(begin, std::iter::once((&socket, 8_000 * S)));
    let mut said = Vec::new();
    for second in 0..1_000 {
        let now = begin + second * S;
        table.tick(now, &mut names, &mut |update: Update| match update {
            Update::Record(Record::Stuck(stuck)) => {
                said.push((second, stuck.conn.tuple.remote_port, stuck.times, stuck.age.ns / S))
            }
            other => panic!("{other:?}"),
        });
    }
    let of = |port: u16| said.iter().filter(move |row| row.1 == port).map(|row| (row.0, row.2, row.3));
    assert_eq!(
        of(2001).collect::<Vec<_>>(),
        [(0, 1, 8_000), (61, 2, 8_061), (181, 3, 8_181), (421, 4, 8_421), (901, 5, 8_901)]
    );
    assert_eq!(of(2002).map(|row| row.0).collect::<Vec<_>>(), [61, 121, 241, 481, 961]);
}
