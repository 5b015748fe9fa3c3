//! One look for each state: colours that the colour-blind tell apart (Okabe and Ito's), and letters for where there are none.

use crate::model::State;

/// A state's looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// For pages and pictures.
    pub colour: &'static str,
    /// For terminals: parameters of SGR.
    pub sgr: &'static str,
    /// Where colours are not enough.
    pub letter: char,
}

const fn look(colour: &'static str, sgr: &'static str, letter: char) -> Look {
    Look { colour, sgr, letter }
}

/// The looks of `state`.
#[must_use]
pub const fn of(state: State) -> Look {
    match state {
        State::Listen => look("#7a8fa6", "34", '-'),
        State::SynSent => look("#56b4e9", "36", 's'),
        State::SynRecv | State::NewSynRecv => look("#2f8fc4", "36", 'r'),
        State::Established => look("#009e73", "32", '='),
        State::FinWait1 => look("#e69f00", "33", '1'),
        State::FinWait2 => look("#f0e442", "33", '2'),
        State::Closing => look("#0072b2", "35", 'c'),
        State::TimeWait => look("#b3b3b3", "2", '.'),
        State::CloseWait => look("#d55e00", "1;31", 'W'),
        State::LastAck => look("#cc79a7", "1;35", 'L'),
        State::Close => look("#000000", "2", ' '),
        State::Unknown(_) => look("#000000", "1;31", '?'),
    }
}

/// In the order of a life, for legends.
pub const ORDER: [State; 10] = [
    State::Listen,
    State::SynSent,
    State::SynRecv,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::Closing,
    State::CloseWait,
    State::LastAck,
    State::TimeWait,
];
