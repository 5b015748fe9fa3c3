//! A busy machine, on which the kernel's steps take long.

use sockstate::{
    model::{Cause, ClosedAs, Event, EventKind, Record, State},
    track::{PATIENCE_NS, Table, Update, Visibility},
};

use crate::{Names, event, transition};

/// The cause of the end, `later_ns` after `tcp_reset()` has begun, without an error on the socket.
fn cause(later_ns: u64) -> Option<Cause> {
    const SECOND_NS: u64 = 1_000_000_000;
    let visibility = Visibility { minis: true, resets: true, ..Visibility::default() };
    let (mut table, mut names) = (Table::new(1, 0, visibility), Names::default());
    for (at_ns, from, to) in [
        (1, State::Close, State::SynSent),
        (2, State::SynSent, State::Established),
        (3, State::Established, State::CloseWait),
    ] {
        transition(&mut table, &event(at_ns, 1, from, to), &mut names);
    }
    let state = State::CloseWait;
    let reset = Event { kind: EventKind::ResetReceived(state), ..event(SECOND_NS, 1, state, state) };
    table.apply(&reset, &mut names);
    let mut ends = Vec::new();
    let mut note = |update: Update| {
        if let Update::Record(Record::Transition(transition)) = update {
            ends.push(transition.cause);
        }
    };
    // Other events say that time passes.
    (1..=later_ns / PATIENCE_NS)
        .for_each(|times| table.tick(SECOND_NS + times * PATIENCE_NS, &mut names, &mut note));
    let mut end = event(SECOND_NS + later_ns, 1, state, State::Close);
    if let EventKind::Transition { closed_as, .. } = &mut end.kind {
        *closed_as = Some(ClosedAs::default());
    }
    table.apply(&end, &mut names).iter().cloned().for_each(&mut note);
    table.tick(end.time_ns + 2 * PATIENCE_NS, &mut names, &mut note);
    assert_eq!(ends.len(), 1);
    ends[0]
}

#[test]
fn a_reset_that_takes_long_is_the_cause() {
    for later_ns in [1, PATIENCE_NS, 20 * PATIENCE_NS] {
        assert_eq!(cause(later_ns), Some(Cause::ResetReceived), "{later_ns}");
    }
}
