//! How long a socket may stay in a state before it counts as stuck.

use super::{Ports, State};

/// What a threshold is for; what is not given fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The state.
    pub state: Option<State>,
    /// The local or the remote port.
    pub ports: Ports,
    /// Name of a process that has it open, or owns it.
    pub comm: Option<String>,
}

/// A time for a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// What it is for.
    pub scope: Scope,
    /// Nanoseconds; `None` for never.
    pub after_ns: Option<u64>,
}

/// All thresholds: the last that fits counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    all: Vec<Threshold>,
    /// What counts for each state's number, where every rule is for states alone.
    by_state: Option<[Option<u64>; STATES]>,
}

/// More than there are numbers of states with a name.
const STATES: usize = 16;

const SECOND_NS: u64 = 1_000_000_000;

/// In seconds; states that may last for ever by their nature (ESTABLISHED, LISTEN), or whose end is sure (TIME_WAIT), have
/// none. Why these: docs/stuck.md.
const DEFAULTS: [(State, u64); 8] = [
    (State::CloseWait, 60),
    (State::FinWait1, 60),
    (State::FinWait2, 120),
    (State::LastAck, 60),
    (State::Closing, 60),
    (State::SynSent, 30),
    (State::SynRecv, 30),
    (State::NewSynRecv, 30),
];

impl Default for Thresholds {
    fn default() -> Self {
        let default = |&(state, seconds): &(State, u64)| Threshold {
            scope: Scope { state: Some(state), ..Scope::default() },
            after_ns: Some(seconds * SECOND_NS),
        };
        Self::of_all(DEFAULTS.iter().map(default).collect())
    }
}

impl Thresholds {
    /// The defaults and these rules, each of which counts before all others where it fits.
    #[must_use]
    pub fn with(rules: &[Threshold]) -> Self {
        Self::of_all(Self::default().all.into_iter().chain(rules.iter().cloned()).collect())
    }

    fn of_all(all: Vec<Threshold>) -> Self {
        let plain = all.iter().all(|it| it.scope.ports.is_empty() && it.scope.comm.is_none());
        let mut thresholds = Self { all, by_state: None };
        thresholds.by_state = plain.then(|| {
            std::array::from_fn(|number| {
                // There are fewer than a byte counts.
                thresholds.last_that_fits(State::from_number(number as u8), [0; 2], &[])
            })
        });
        thresholds
    }

    /// The shortest of them, ns.
    #[must_use]
    pub fn least_ns(&self) -> u64 {
        self.all.iter().filter_map(|it| it.after_ns).min().unwrap_or(u64::MAX)
    }

    /// Nanoseconds after which a socket is stuck; `None` for never.
    #[must_use]
    pub fn of(&self, state: State, ports: [u16; 2], comms: &[&str]) -> Option<u64> {
        let known = self.by_state.as_ref().and_then(|known| known.get(usize::from(state.number())));
        known.copied().unwrap_or_else(|| self.last_that_fits(state, ports, comms))
    }

    fn last_that_fits(&self, state: State, ports: [u16; 2], comms: &[&str]) -> Option<u64> {
        let fits = |scope: &Scope| {
            scope.state.is_none_or(|wanted| same(wanted, state))
                && (scope.ports.is_empty() || ports.iter().any(|port| scope.ports.contains(*port)))
                && scope.comm.as_ref().is_none_or(|comm| comms.contains(&comm.as_str()))
        };
        let without = matches!(state, State::Listen | State::Established | State::TimeWait | State::Close);
        let mut found = None;
        for it in &self.all {
            // One that names no state is for those that have a threshold.
            if fits(&it.scope) && (it.scope.state.is_some() || !without) {
                found = Some(it.after_ns);
            }
        }
        found.flatten()
    }
}

/// A request and its child are both SYN_RECV for people.
fn same(a: State, b: State) -> bool {
    a.name() == b.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_fits_counts() {
        let scope = |state, port: Option<u16>, comm: Option<&str>| Scope {
            state,
            ports: Ports(port.map(|port| port..=port).into_iter().collect()),
            comm: comm.map(str::to_owned),
        };
        let all = Thresholds::with(&[
            Threshold { scope: scope(Some(State::CloseWait), Some(8080), None), after_ns: Some(5) },
            Threshold { scope: scope(None, None, Some("batch")), after_ns: None },
            Threshold { scope: scope(Some(State::Established), Some(9), None), after_ns: Some(7) },
        ]);
        for (state, ports, comms, after) in [
            (State::CloseWait, [80, 1], &["web"][..], Some(60 * SECOND_NS)),
            (State::CloseWait, [8080, 1], &["web"], Some(5)),
            (State::CloseWait, [1, 8080], &[], Some(5)),
            (State::CloseWait, [8080, 1], &["web", "batch"], None),
            (State::NewSynRecv, [80, 1], &[], Some(30 * SECOND_NS)),
            (State::Established, [80, 1], &["batch"], None),
            (State::Established, [9, 1], &[], Some(7)),
            (State::TimeWait, [8080, 1], &[], None),
        ] {
            assert_eq!(all.of(state, ports, comms), after, "{state} {ports:?} {comms:?}");
        }
    }
}
