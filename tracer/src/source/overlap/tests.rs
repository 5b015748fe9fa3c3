use proptest::prelude::*;
use sockstate_abi::abi::{AF_INET, Head, V4, flag, kind};
use zerocopy::IntoBytes;

use super::*;

/// A record without a task and a listener.
fn record(kind: u8, flags: u8, sk: u64, (old, new): (u8, u8), time_ns: u64) -> Vec<u8> {
    let mut head = Head { time_ns, sk, kind, flags, old, new, family: AF_INET, ..Head::default() };
    [head.as_mut_bytes(), V4::default().as_mut_bytes()].concat()
}

fn records<'a>(list: impl IntoIterator<Item = &'a Vec<u8>>) -> Records {
    let mut records = Records::default();
    list.into_iter().for_each(|bytes| records.push(bytes));
    records
}

fn combined(earlier: &[Vec<u8>], new: &[Vec<u8>]) -> Vec<Event> {
    let mut overlap = Overlap::of(&records(earlier), &records(new));
    let (mut events, all) = (Vec::new(), overlap.len());
    while overlap.next(&mut |bytes: &[u8]| events.push(decode(bytes).expect("a record"))) {}
    assert_eq!((events.len(), overlap.len()), (all, 0));
    events
}

fn times(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.time_ns).collect()
}

const LISTEN: (u8, u8) = (7, 10);
const CLOSE: (u8, u8) = (10, 7);

/// What each ring has of one listener: the transition, whether the companion wrote it, and its time. The last list has the times
/// that remain.
#[test]
fn a_double_is_the_same_transition_right_after_itself() {
    type Seen = ((u8, u8), bool, u64);
    type Case = (&'static str, &'static [Seen], &'static [Seen], &'static [u64]);
    const CASES: [Case; 9] = [
        ("only the earlier ring has it", &[(LISTEN, false, 1)], &[], &[1]),
        ("only the new ring has it", &[], &[(LISTEN, false, 1)], &[1]),
        ("both have it", &[(LISTEN, false, 1)], &[(LISTEN, false, 2)], &[1]),
        ("the new program runs first", &[(LISTEN, false, 2)], &[(LISTEN, false, 1)], &[1]),
        (
            "twice, with another one in between",
            &[(LISTEN, false, 1), (CLOSE, false, 3), (LISTEN, false, 5)],
            &[(LISTEN, false, 6)],
            &[1, 3, 5],
        ),
        (
            "the earlier ring lacks the first double",
            &[(CLOSE, false, 3), (LISTEN, false, 5)],
            &[(LISTEN, false, 1), (CLOSE, false, 4), (LISTEN, false, 6)],
            &[1, 3, 5],
        ),
        (
            "the new ring goes on",
            &[(LISTEN, false, 1)],
            &[(LISTEN, false, 2), (CLOSE, false, 3), (LISTEN, false, 4)],
            &[1, 3, 4],
        ),
        (
            "each companion has written a second copy",
            &[(LISTEN, false, 1), (LISTEN, true, 2)],
            &[(LISTEN, false, 3), (LISTEN, true, 4)],
            &[1],
        ),
        (
            "the earlier program was skipped, and its companion wrote it",
            &[(LISTEN, true, 1)],
            &[(LISTEN, false, 2)],
            &[2],
        ),
    ];
    for (name, earlier, new, expected) in CASES {
        let [earlier, new] = [earlier, new].map(|list| {
            let flags = |is_companion| if is_companion { flag::COMPANION } else { 0 };
            let record = |&(pair, by, time): &Seen| record(kind::TRANSITION, flags(by), 7, pair, time);
            list.iter().map(record).collect::<Vec<_>>()
        });
        assert_eq!(times(&combined(&earlier, &new)), expected, "{name}");
    }
    let other = record(kind::TRANSITION, 0, 8, LISTEN, 2);
    let both = combined(&[record(kind::TRANSITION, 0, 7, LISTEN, 1)], &[other]);
    assert_eq!(both.len(), 2, "another socket's transition is no double");
}

#[test]
fn a_reset_may_come_twice_in_a_row() {
    let reset = |time| record(kind::RESET_RECEIVED, 0, 7, (0, 1), time);
    let case = |earlier: &[u64], new: &[u64]| {
        let [earlier, new] =
            [earlier, new].map(|times| times.iter().map(|time| reset(*time)).collect::<Vec<_>>());
        times(&combined(&earlier, &new))
    };
    assert_eq!(case(&[100, 200], &[]), [100, 200]);
    assert_eq!(case(&[100, 200], &[201, 300]), [100, 200, 300]);
    assert_eq!(case(&[100, 200], &[199, 300]), [100, 200, 300], "the new program runs first");
    assert_eq!(case(&[200], &[100, 201]), [100, 200], "the earlier ring lacks the first one");
    assert_eq!(case(&[100], &[100 + APART_NS]), [100]);
    assert_eq!(case(&[100], &[101 + APART_NS]), [100, 101 + APART_NS], "too far");
    let mini = record(kind::MINI, flag::MINI, 7, (0, 6), 150);
    let both = combined(&[reset(150)], &[mini]);
    assert_eq!(both.len(), 2, "another kind of event is no double");
}

#[test]
fn a_record_that_cannot_be_read_stays_where_it_is() {
    let listen = |time| record(kind::TRANSITION, 0, 7, LISTEN, time);
    let earlier = records(&[listen(1), vec![9; 60], record(kind::TRANSITION, 0, 7, CLOSE, 3)]);
    let mut overlap = Overlap::of(&earlier, &records(&[listen(2)]));
    let mut lengths = Vec::new();
    while overlap.next(&mut |bytes: &[u8]| lengths.push(bytes.len())) {}
    assert_eq!(lengths, [56, 60, 56]);
}

/// One transition of one of the sockets.
#[derive(Clone, Copy, Debug)]
struct Hit {
    sk: u64,
    /// Time since the previous hit of any socket began: hits of several sockets may overlap.
    after: u64,
    /// When the earlier and the new program take the time, since the hit began.
    taken: (u64, u64),
    /// What each ring has: 0 the record, 1 the companion's record, 2 both.
    seen: (u8, u8),
    /// One of the rings had no room: 0 the earlier one, 1 the new one.
    lost: Option<u8>,
}

fn hits() -> impl Strategy<Value = Vec<Hit>> {
    let lost = prop_oneof![8 => Just(None), 1 => (0_u8..2).prop_map(Some)];
    let hit = (0_u64..4, 0_u64..20, (0_u64..9, 0_u64..9), (0_u8..3, 0_u8..3), lost);
    let hit = hit.prop_map(|(sk, after, taken, seen, lost)| Hit { sk, after, taken, seen, lost });
    prop::collection::vec(hit, 0..60)
}

proptest! {
    /// Each transition is passed on once, in the order of its socket, whichever program runs first, and whenever the new programs are
    /// attached and the earlier ones detached.
    #[test]
    fn each_transition_once(hits in hits(), attached in 0_usize..40, detached in 20_usize..60) {
        // Each socket listens, closes, listens, ...
        let mut states = [7_u8; 4];
        let mut free_at = [0_u64; 4];
        let (mut earlier, mut new) = (Vec::new(), Vec::new());
        let mut history: [Vec<(u8, u8)>; 4] = Default::default();
        let mut now = 1;
        for (at, hit) in hits.iter().enumerate() {
            let index = hit.sk as usize;
            // A socket makes one transition after the other.
            now = (now + hit.after).max(free_at[index]);
            free_at[index] = now + 12;
            let pair = (states[index], 17 - states[index]);
            states[index] = pair.1;
            let is_overlap = attached <= at && at < attached.max(detached);
            let has_room = |ring| !is_overlap || hit.lost != Some(ring);
            let write = |ring: &mut Vec<Vec<u8>>, taken: u64, seen: u8| {
                if seen != 1 {
                    ring.push(record(kind::TRANSITION, 0, hit.sk, pair, now + taken));
                }
                if seen != 0 {
                    ring.push(record(kind::TRANSITION, flag::COMPANION, hit.sk, pair, now + taken + 1));
                }
            };
            if at < attached.max(detached) && has_room(0) {
                write(&mut earlier, hit.taken.0, hit.seen.0);
            }
            if at >= attached && has_room(1) {
                write(&mut new, hit.taken.1, hit.seen.1);
            }
            history[index].push(pair);
        }
        let mut found: [Vec<(u8, u8)>; 4] = Default::default();
        for event in combined(&earlier, &new) {
            let EventKind::Transition { from, to, .. } = event.kind else { panic!("{event:?}") };
            found[event.sk as usize].push((from.number(), to.number()));
        }
        prop_assert_eq!(found, history);
    }

    /// The same of events that repeat, if two of them are further apart than two records of one event.
    #[test]
    fn each_reset_once(
        gaps in prop::collection::vec((20 + APART_NS..9 * APART_NS, 0_u64..9, 0_u64..9), 0..40),
        attached in 0_usize..20,
        detached in 0_usize..40,
    ) {
        let detached = attached.max(detached);
        let (mut earlier, mut new, mut began) = (Vec::new(), Vec::new(), Vec::new());
        let mut now = 0;
        for (at, (gap, first, second)) in gaps.into_iter().enumerate() {
            now += gap;
            began.push(now);
            if at < detached {
                earlier.push(record(kind::RESET_SENT, 0, 7, (0, 1), now + first));
            }
            if at >= attached {
                new.push(record(kind::RESET_SENT, 0, 7, (0, 1), now + second));
            }
        }
        let found = times(&combined(&earlier, &new));
        prop_assert_eq!(found.len(), began.len());
        prop_assert!(found.iter().zip(&began).all(|(found, began)| (*began..began + 9).contains(found)));
    }
}
