//! Whole connections, both ends side by side: RFC 9293 figures 6, 12 and 13, and a reset.

use crate::model::State;

use State::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent, TimeWait,
};

/// What happens at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Nothing.
    Nothing,
    /// It is in this state now.
    Is(State),
    /// Its application does this.
    Calls(&'static str),
    /// Something to say of it: a key of the texts.
    Note(&'static str),
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Nothing,
    /// From the left end to the right one.
    Right(&'static str),
    /// From the right end to the left one.
    Left(&'static str),
    /// One each way, at the same time.
    Both(&'static str),
}

/// One moment.
pub type Moment = (At, Way, At);

/// A connection's walk.
#[derive(Debug)]
pub struct Walk {
    /// Its name: a key of the texts' titles.
    pub name: &'static str,
    /// Who the ends are: keys of the texts.
    pub ends: [&'static str; 2],
    /// From top to bottom.
    pub moments: &'static [Moment],
    /// Where it is written down.
    pub source: &'static str,
}

use At::{Calls, Is, Note, Nothing};
use Way::{Both, Left, Right};

/// A client and a server open.
pub const OPEN: Walk = Walk {
    name: "open",
    ends: ["client", "server"],
    moments: &[
        (Is(Close), Way::Nothing, Is(Close)),
        (Nothing, Way::Nothing, Calls("listen()")),
        (Nothing, Way::Nothing, Is(Listen)),
        (Calls("connect()"), Way::Nothing, Nothing),
        (Is(SynSent), Right("SYN"), Is(SynRecv)),
        (Is(Established), Left("SYN, ACK"), Nothing),
        (Nothing, Right("ACK"), Is(Established)),
        (Nothing, Way::Nothing, Calls("accept()")),
        (Nothing, Both("data"), Nothing),
    ],
    source: "RFC 9293 3.5, figure 6",
};

/// One end closes, then the other.
pub const CLOSE: Walk = Walk {
    name: "close",
    ends: ["first", "second"],
    moments: &[
        (Is(Established), Way::Nothing, Is(Established)),
        (Calls("close()"), Way::Nothing, Nothing),
        (Is(FinWait1), Right("FIN"), Is(CloseWait)),
        (Is(FinWait2), Left("ACK"), Calls("read() = 0")),
        (Nothing, Way::Nothing, Note("forgets")),
        (Nothing, Way::Nothing, Calls("close()")),
        (Nothing, Left("FIN"), Is(LastAck)),
        (Is(TimeWait), Right("ACK"), Is(Close)),
        (Note("minute"), Way::Nothing, Nothing),
        (Is(Close), Way::Nothing, Nothing),
    ],
    source: "RFC 9293 3.6, figure 12",
};

/// Both ends close before either knows of the other's wish.
pub const SIMULTANEOUS_CLOSE: Walk = Walk {
    name: "simultaneous",
    ends: ["one", "other"],
    moments: &[
        (Is(Established), Way::Nothing, Is(Established)),
        (Calls("close()"), Way::Nothing, Calls("close()")),
        (Is(FinWait1), Both("FIN"), Is(FinWait1)),
        (Is(Closing), Way::Nothing, Is(Closing)),
        (Is(TimeWait), Both("ACK"), Is(TimeWait)),
        (Note("minute"), Way::Nothing, Note("minute")),
        (Is(Close), Way::Nothing, Is(Close)),
    ],
    source: "RFC 9293 3.6, figure 13",
};

/// One end breaks it off.
pub const RESET: Walk = Walk {
    name: "reset",
    ends: ["one", "other"],
    moments: &[
        (Is(Established), Way::Nothing, Is(Established)),
        (Note("unread"), Way::Nothing, Nothing),
        (Is(Close), Right("RST"), Is(Close)),
        (Nothing, Way::Nothing, Note("error")),
    ],
    source: "RFC 9293 3.10.4, 3.10.7.4; RFC 2525 2.17",
};

/// All of them.
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
