//! How long a socket may stay in a state before it counts as stuck.

use super::{Ports, State};

/// The sockets that a threshold is for. A condition that is not given fits every socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    pub state: Option<State>,
    /// The local or the remote port.
    pub ports: Ports,
    /// Name of a process that holds the socket, or owns it.
    pub comm: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub scope: Scope,
    /// Nanoseconds; `None` for never.
    pub after_ns: Option<u64>,
}

/// All thresholds. If several fit a socket, the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    all: Vec<Threshold>,
    /// The result for each state number, if all rules depend on the state alone.
    by_state: Option<[Option<u64>; STATES]>,
}

/// More than the largest number of a named state.
const STATES: usize = 16;

const SECOND_NS: u64 = 1_000_000_000;

/// In seconds. States that may last forever by their nature (ESTABLISHED, LISTEN), or whose end is certain (TIME_WAIT), have
/// no threshold. docs/stuck.md says why these.
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
    /// The defaults and `rules`, which have precedence over the defaults.
    #[must_use]
    pub fn with(rules: &[Threshold]) -> Self {
        Self::of_all(Self::default().all.into_iter().chain(rules.iter().cloned()).collect())
    }

    fn of_all(all: Vec<Threshold>) -> Self {
        let plain =
            all.iter().all(|threshold| threshold.scope.ports.is_empty() && threshold.scope.comm.is_none());
        let mut thresholds = Self { all, by_state: None };
        thresholds.by_state = plain.then(|| {
            std::array::from_fn(|number| {
                // There are fewer than a byte counts.
                thresholds.last_that_fits(State::from_number(number as u8), [0; 2], &[])
            })
        });
        thresholds
    }

    /// The shortest threshold, ns.
    #[must_use]
    pub fn least_ns(&self) -> u64 {
        self.all.iter().filter_map(|threshold| threshold.after_ns).min().unwrap_or(u64::MAX)
    }

    /// Nanoseconds after which a socket counts as stuck; `None` for never.
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
        for threshold in &self.all {
            // A rule without a state applies to the states that have a threshold.
            if fits(&threshold.scope) && (threshold.scope.state.is_some() || !without) {
                found = Some(threshold.after_ns);
            }
        }
        found.flatten()
    }
}

/// Users see a request and its child both as SYN_RECV.
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
