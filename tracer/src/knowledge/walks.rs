//! Whole connections, both ends side by side: RFC 9293 figures 6, 12 and 13, and a reset.

use crate::model::State;

use State::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent, TimeWait,
};

/// An event at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndEvent {
    /// No event or segment in this row.
    Nothing,
    /// The end has entered this state.
    Is(State),
    /// The application makes this call.
    Calls(&'static str),
    /// A remark: a key of the texts.
    Note(&'static str),
}

/// A segment between the ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// No event or segment in this row.
    Nothing,
    /// From the left end to the right one.
    Right(&'static str),
    /// From the right end to the left one.
    Left(&'static str),
    /// One in each direction, at the same time.
    Both(&'static str),
}

/// One row: an event at the left end, a segment, an event at the right end.
pub type Moment = (EndEvent, Segment, EndEvent);

/// A sequence of events and segments between both ends.
#[derive(Debug)]
pub struct Walk {
    /// The key of its title in the texts.
    pub name: &'static str,
    /// The keys of the ends' names in the texts.
    pub ends: [&'static str; 2],
    /// The rows from top to bottom.
    pub moments: &'static [Moment],
    /// The sections and figures that describe the sequence.
    pub source: &'static str,
}

use EndEvent::{Calls, Is, Note, Nothing};
use Segment::{Both, Left, Right};

/// A client and a server open.
pub const OPEN: Walk = Walk {
    name: "open",
    ends: ["client", "server"],
    moments: &[
        (Is(Close), Segment::Nothing, Is(Close)),
        (Nothing, Segment::Nothing, Calls("listen()")),
        (Nothing, Segment::Nothing, Is(Listen)),
        (Calls("connect()"), Segment::Nothing, Nothing),
        (Is(SynSent), Right("SYN"), Is(SynRecv)),
        (Is(Established), Left("SYN, ACK"), Nothing),
        (Nothing, Right("ACK"), Is(Established)),
        (Nothing, Segment::Nothing, Calls("accept()")),
        (Nothing, Both("data"), Nothing),
    ],
    source: "RFC 9293 3.5, figure 6",
};

/// One end closes, then the other.
pub const CLOSE: Walk = Walk {
    name: "close",
    ends: ["first", "second"],
    moments: &[
        (Is(Established), Segment::Nothing, Is(Established)),
        (Calls("close()"), Segment::Nothing, Nothing),
        (Is(FinWait1), Right("FIN"), Is(CloseWait)),
        (Is(FinWait2), Left("ACK"), Calls("read() = 0")),
        (Nothing, Segment::Nothing, Note("forgets")),
        (Nothing, Segment::Nothing, Calls("close()")),
        (Nothing, Left("FIN"), Is(LastAck)),
        (Is(TimeWait), Right("ACK"), Is(Close)),
        (Note("minute"), Segment::Nothing, Nothing),
        (Is(Close), Segment::Nothing, Nothing),
    ],
    source: "RFC 9293 3.6, figure 12",
};

/// Both ends close at the same time.
pub const SIMULTANEOUS_CLOSE: Walk = Walk {
    name: "simultaneous",
    ends: ["one", "other"],
    moments: &[
        (Is(Established), Segment::Nothing, Is(Established)),
        (Calls("close()"), Segment::Nothing, Calls("close()")),
        (Is(FinWait1), Both("FIN"), Is(FinWait1)),
        (Is(Closing), Segment::Nothing, Is(Closing)),
        (Is(TimeWait), Both("ACK"), Is(TimeWait)),
        (Note("minute"), Segment::Nothing, Note("minute")),
        (Is(Close), Segment::Nothing, Is(Close)),
    ],
    source: "RFC 9293 3.6, figure 13",
};

/// One end resets the connection.
pub const RESET: Walk = Walk {
    name: "reset",
    ends: ["one", "other"],
    moments: &[
        (Is(Established), Segment::Nothing, Is(Established)),
        (Note("unread"), Segment::Nothing, Nothing),
        (Is(Close), Right("RST"), Is(Close)),
        (Nothing, Segment::Nothing, Note("error")),
    ],
    source: "RFC 9293 3.10.4, 3.10.7.4; RFC 2525 2.17",
};

pub const WALKS: [&Walk; 4] = [&OPEN, &CLOSE, &SIMULTANEOUS_CLOSE, &RESET];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::is_legal;

    #[test]
    fn both_ends_go_only_where_tcp_goes() {
        for walk in WALKS {
            for end in [|moment: &Moment| moment.0, |moment: &Moment| moment.2] {
                let states: Vec<State> = walk
                    .moments
                    .iter()
                    .map(end)
                    .filter_map(|at| if let Is(state) = at { Some(state) } else { None })
                    .collect();
                for pair in states.windows(2) {
                    assert!(is_legal(pair[0], pair[1]), "{}: {} {}", walk.name, pair[0], pair[1]);
                }
            }
        }
    }
}
