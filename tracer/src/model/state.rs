//! The states of a TCP socket, with the kernel's numbers and netstat's names.

use std::{fmt, str::FromStr};

/// A TCP state (RFC 9293 section 3.3.2; numbers of the kernel's `include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Data flows in both directions.
    Established,
    /// A SYN was sent (RFC 9293: SYN-SENT).
    SynSent,
    /// The three-way handshake is not finished (RFC 9293: SYN-RECEIVED).
    SynRecv,
    /// Our FIN is sent and not acknowledged (RFC 9293: FIN-WAIT-1).
    FinWait1,
    /// Our FIN is acknowledged, the peer's FIN has not come (RFC 9293: FIN-WAIT-2).
    FinWait2,
    /// Both FINs are acknowledged; old segments may still arrive.
    TimeWait,
    /// No connection (RFC 9293: CLOSED).
    Close,
    /// The peer has closed, the local application has not.
    CloseWait,
    /// Both sides have closed; our FIN is not acknowledged.
    LastAck,
    /// Waits for connections.
    Listen,
    /// Both sides have closed at the same time; our FIN is not acknowledged.
    Closing,
    /// A request socket that waits for the last ACK of a handshake; shown as SYN_RECV, as netstat does.
    NewSynRecv,
    /// A number that this version does not know.
    Unknown(u8),
}

/// Kernel number, state, netstat's name, other spellings (normalised).
const TABLE: [(u8, State, &str, &[&str]); 12] = [
    (1, State::Established, "ESTABLISHED", &["estab"]),
    (2, State::SynSent, "SYN_SENT", &[]),
    (3, State::SynRecv, "SYN_RECV", &["synreceived", "syn_rcvd", "synrcvd"]),
    (4, State::FinWait1, "FIN_WAIT1", &[]),
    (5, State::FinWait2, "FIN_WAIT2", &[]),
    (6, State::TimeWait, "TIME_WAIT", &[]),
    (7, State::Close, "CLOSE", &["closed", "unconn", "unconnected"]),
    (8, State::CloseWait, "CLOSE_WAIT", &[]),
    (9, State::LastAck, "LAST_ACK", &[]),
    (10, State::Listen, "LISTEN", &["listening"]),
    (11, State::Closing, "CLOSING", &[]),
    (12, State::NewSynRecv, "SYN_RECV", &["newsynrecv"]),
];

impl State {
    /// The state of a kernel number.
    #[inline]
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            1..=12 => TABLE[usize::from(number) - 1].1,
            _ => Self::Unknown(number),
        }
    }

    /// The state with this `name` in a record. `mini` distinguishes a request socket from a full socket in SYN_RECV. `number` is
    /// for states without a name.
    #[must_use]
    pub fn named(name: &str, mini: bool, number: Option<u8>) -> Option<Self> {
        match name {
            "UNKNOWN" => Some(Self::Unknown(number.unwrap_or(0))),
            "SYN_RECV" if mini => Some(Self::NewSynRecv),
            _ => TABLE.iter().find(|row| row.2 == name).map(|row| row.1),
        }
    }

    /// The kernel's number.
    #[inline]
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Unknown(number) => number,
            Self::Established => 1,
            Self::SynSent => 2,
            Self::SynRecv => 3,
            Self::FinWait1 => 4,
            Self::FinWait2 => 5,
            Self::TimeWait => 6,
            Self::Close => 7,
            Self::CloseWait => 8,
            Self::LastAck => 9,
            Self::Listen => 10,
            Self::Closing => 11,
            Self::NewSynRecv => 12,
        }
    }

    /// netstat's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown(_) => "UNKNOWN",
            _ => TABLE[usize::from(self.number()) - 1].2,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseStateError(String);

impl fmt::Display for ParseStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown state '{}'; known are", self.0)?;
        for (_, _, name, _) in TABLE.iter().take(11) {
            write!(f, " {name}")?;
        }
        write!(f, " UNKNOWN, and ss's groups {}", StateSet::GROUPS.join(", "))
    }
}

impl std::error::Error for ParseStateError {}

/// A set of states, as a filter on one side of a transition takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSet(u16);

/// Bit of all unknown states.
const UNKNOWN_BIT: u16 = 1;

impl StateSet {
    fn bit(state: State) -> u16 {
        match state {
            State::Unknown(_) => UNKNOWN_BIT,
            known => 1 << known.number(),
        }
    }

    #[must_use]
    pub fn contains(self, state: State) -> bool {
        self.0 & Self::bit(state) != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn of(states: &[State]) -> Self {
        Self(states.iter().fold(0, |bits, &state| bits | Self::bit(state)))
    }

    /// The names of `ss`'s groups of states.
    pub const GROUPS: [&str; 5] = ["all", "connected", "synchronized", "bucket", "big"];

    /// The group of `ss` with this name, in any case, and its states.
    #[must_use]
    pub fn group(text: &str) -> Option<(&'static str, Self)> {
        let all = u16::MAX;
        let minus = |states: &[State]| Self(all & !Self::of(states).0);
        let bucket = [State::TimeWait, State::SynRecv, State::NewSynRecv];
        let name = Self::GROUPS.into_iter().find(|name| name.eq_ignore_ascii_case(text.trim()))?;
        let set = match name {
            "connected" => minus(&[State::Listen, State::Close]),
            "synchronized" => minus(&[State::Listen, State::Close, State::SynSent]),
            "bucket" => Self::of(&bucket),
            "big" => minus(&bucket),
            _ => Self(all),
        };
        Some((name, set))
    }
}

impl<'a> FromIterator<&'a StateSet> for StateSet {
    fn from_iter<T: IntoIterator<Item = &'a Self>>(sets: T) -> Self {
        sets.into_iter().fold(Self::default(), |all, set| all.union(*set))
    }
}

impl From<State> for StateSet {
    fn from(state: State) -> Self {
        Self(Self::bit(state))
    }
}

impl FromStr for StateSet {
    type Err = ParseStateError;

    /// One name in netstat's, `ss`'s, the kernel's or OpenTelemetry's spelling, in any case; or one of `ss`'s groups.
    fn from_str(text: &str) -> Result<Self, ParseStateError> {
        let normal: String =
            text.trim().to_ascii_lowercase().chars().filter(|&c| c != '_' && c != '-').collect();
        let normal = normal.strip_prefix("tcp").unwrap_or(&normal);
        if let Some((_, set)) = Self::group(normal) {
            return Ok(set);
        }
        if normal == "unknown" {
            return Ok(Self(UNKNOWN_BIT));
        }
        let spelled = |name: &str| name.to_ascii_lowercase().replace('_', "") == normal;
        let found = TABLE
            .iter()
            .filter(|(_, _, name, others)| spelled(name) || others.iter().any(|name| spelled(name)))
            .fold(0, |bits, row| bits | Self::bit(row.1));
        if found == 0 { Err(ParseStateError(text.to_owned())) } else { Ok(Self(found)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_states_are_one_to_one() {
        for number in 0..=u8::MAX {
            assert_eq!(State::from_number(number).number(), number);
        }
        assert_eq!(State::from_number(13), State::Unknown(13));
        assert_eq!(State::from_number(0).name(), "UNKNOWN");
    }

    #[test]
    fn every_spelling_is_understood() {
        for (spelling, state) in [
            ("ESTABLISHED", State::Established),
            ("estab", State::Established),
            ("syn-sent", State::SynSent),
            ("SYN-RECV", State::SynRecv),
            ("syn_received", State::SynRecv),
            ("FIN-WAIT-1", State::FinWait1),
            ("fin_wait_2", State::FinWait2),
            ("Fin_Wait2", State::FinWait2),
            ("time-wait", State::TimeWait),
            ("UNCONN", State::Close),
            ("closed", State::Close),
            ("TCP_CLOSE", State::Close),
            ("close-wait", State::CloseWait),
            ("last-ack", State::LastAck),
            ("listening", State::Listen),
            ("closing", State::Closing),
            ("unknown", State::Unknown(99)),
        ] {
            let set: StateSet = spelling.parse().expect(spelling);
            assert!(set.contains(state), "{spelling}");
            assert!(!set.contains(if state == State::Listen { State::Close } else { State::Listen }));
        }
    }

    #[test]
    fn groups_are_those_of_ss() {
        let set = |name: &str| name.parse::<StateSet>().expect(name);
        assert!(!set("connected").contains(State::Listen));
        assert!(set("connected").contains(State::SynSent));
        assert!(!set("synchronized").contains(State::SynSent));
        assert!(set("bucket").contains(State::TimeWait));
        assert!(!set("big").contains(State::NewSynRecv));
    }

    #[test]
    fn nonsense_is_refused_with_the_names() {
        let error = "ESTABLISHD".parse::<StateSet>().expect_err("not a state").to_string();
        assert!(error.contains("'ESTABLISHD'") && error.contains("CLOSE_WAIT"), "{error}");
        assert!("".parse::<StateSet>().is_err());
    }
}
