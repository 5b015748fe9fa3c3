//! One style for each state, for tables, pictures and screens: colours that colour-blind people tell apart (Okabe and Ito), and
//! letters for where there are no colours.

use crate::model::State;

/// The style of a state.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// For pages and pictures.
    pub colour: &'static str,
    /// For terminals: parameters of SGR. States that may be stuck are bold, so that brightness shows them too.
    pub sgr: &'static str,
    /// The letter, for output without colours.
    pub letter: char,
}

const fn style(colour: &'static str, sgr: &'static str, letter: char) -> Style {
    Style { colour, sgr, letter }
}

#[must_use]
pub const fn of(state: State) -> Style {
    match state {
        State::Listen => style("#7a8fa6", "34", '-'),
        State::SynSent => style("#56b4e9", "36", 's'),
        State::SynRecv | State::NewSynRecv => style("#2f8fc4", "36", 'r'),
        State::Established => style("#009e73", "32", '='),
        State::FinWait1 => style("#e69f00", "33", '1'),
        State::FinWait2 => style("#f0e442", "33", '2'),
        State::Closing => style("#0072b2", "35", 'c'),
        State::TimeWait => style("#b3b3b3", "2", '.'),
        State::CloseWait => style("#d55e00", "1;31", 'W'),
        State::LastAck => style("#cc79a7", "1;35", 'L'),
        State::Close => style("#000000", "2", ' '),
        State::Unknown(_) => style("#000000", "1;31", '?'),
    }
}

/// The states in the order of a connection, for legends.
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
