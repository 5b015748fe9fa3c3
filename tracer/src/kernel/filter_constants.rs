//! The user's filter as constants for the kernel programs.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use sockstate_abi::abi::{Filter as KernelFilter, PORT_WORDS, PORTS_EITHER, PORTS_LOCAL, PORTS_REMOTE};

use crate::{
    filter::{EndsCondition, Filter, States},
    knowledge::is_legal,
    model::{Ports, State},
};

/// The conditions of `filter` that the programs can decide; user space applies the whole filter again.
pub(super) fn constants(filter: &Filter) -> KernelFilter {
    let mut constants = KernelFilter {
        pairs: pairs(filter.states),
        netns: filter.place.netns.unwrap_or(0),
        ..KernelFilter::ALL
    };
    for condition in filter.ends.conditions().filter(EndsCondition::is_for_kernel) {
        match condition {
            EndsCondition::Version(version) => constants.ip_version = version.into(),
            EndsCondition::Local(&[net]) => {
                (constants.local, constants.local_mask) = prefix(net);
                constants.prefixes = 1;
            }
            EndsCondition::Remote(&[net]) => {
                (constants.remote, constants.remote_mask) = prefix(net);
                constants.prefixes = 1;
            }
            // `bitmaps` has the ports; several prefixes are left to user space.
            _ => {}
        }
    }
    for (which, _) in bitmaps(filter) {
        constants.ports |= 1 << which;
    }
    constants
}

/// Words of the `PORTS` map that are not zero.
pub(super) fn port_words(filter: &Filter) -> Vec<(u32, u64)> {
    let mut words = vec![0_u64; PORT_WORDS as usize * 3];
    for (which, ports) in bitmaps(filter) {
        for port in ports.0.iter().cloned().flatten() {
            words[(which * PORT_WORDS) as usize + usize::from(port) / 64] |= 1 << (port & 63);
        }
    }
    (0..).zip(words).filter(|(_, word)| *word != 0).collect()
}

fn bitmaps(filter: &Filter) -> impl Iterator<Item = (u32, &Ports)> {
    filter.ends.conditions().filter_map(|condition| match condition {
        EndsCondition::LocalPort(ports) => Some((PORTS_LOCAL, ports)),
        EndsCondition::RemotePort(ports) => Some((PORTS_REMOTE, ports)),
        EndsCondition::EitherPort(ports) => Some((PORTS_EITHER, ports)),
        EndsCondition::Version(_) | EndsCondition::Local(_) | EndsCondition::Remote(_) => None,
    })
}

/// The pairs of states that the programs must report: the wanted pairs, and the pairs that user space needs to report the wanted
/// ones correctly. These are the first transition (owner, role), the last one, all transitions into and out of each reported
/// state (for its duration), and transitions that show another owner. A hidden transition may leave an old state in the table,
/// but never one of the reported states.
fn pairs(wanted: States) -> [u16; 256] {
    if wanted.is_empty() {
        return [u16::MAX; 256];
    }
    let wanted = |from: State, to: State| wanted.wants(Some(from), to);
    let states = || (0..16).map(State::from_number);
    let leaves = |from: State| states().any(|to| is_legal(from, to) && wanted(from, to));
    let is_reported = |state: State| {
        leaves(state)
            || states().any(|from| is_legal(from, state) && wanted(from, state))
            || wanted(state, state)
    };
    let after_close_call =
        [State::FinWait1, State::FinWait2, State::Closing, State::TimeWait, State::LastAck];
    let shows_closer = after_close_call.into_iter().any(leaves);
    let needed = |from: State, to: State| {
        let unknown = |state| matches!(state, State::Unknown(_));
        wanted(from, to)
            || is_reported(from)
            || is_reported(to)
            || from == State::Close
            || to == State::Close
            || (from == State::Listen && to == State::SynRecv)
            // The first transition that shows the port of a connect. Without it, a later transition would seem to belong to
            // another connection.
            || from == State::SynSent
            // Up to 6.12, only this transition shows which request the new connection comes from.
            || (from == State::SynRecv && to == State::Established)
            || (shows_closer && matches!(to, State::FinWait1 | State::LastAck))
            || unknown(from)
            || unknown(to)
    };
    let mut rows = [u16::MAX; 256];
    rows[..16].fill(0);
    for from in states() {
        for to in states().filter(|&to| needed(from, to)) {
            rows[usize::from(from.number())] |= 1 << to.number();
        }
    }
    rows
}

/// Bytes and mask of a prefix in the wide form, as they lie in memory.
fn prefix(net: IpNet) -> ([u32; 4], [u32; 4]) {
    let (address, bits) = match net.trunc().network() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 96 + net.prefix_len()),
        IpAddr::V6(v6) => (v6, net.prefix_len()),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    (words(address), words(Ipv6Addr::from(mask)))
}

fn words(address: Ipv6Addr) -> [u32; 4] {
    let bytes = address.octets();
    [0, 4, 8, 12].map(|at| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{filter::Ends, model::StateSet};

    fn has(rows: &[u16; 256], from: State, to: State) -> bool {
        rows[usize::from(from.number())] & (1 << to.number()) != 0
    }

    #[test]
    fn a_state_filter_still_lets_durations_and_owners_through() {
        let rows = pairs(States { to: "CLOSE_WAIT".parse().expect("state"), ..States::default() });
        assert!(has(&rows, State::Established, State::CloseWait), "wanted");
        assert!(has(&rows, State::SynRecv, State::Established), "the entry into what is left");
        assert!(has(&rows, State::Close, State::SynSent), "the owner");
        assert!(has(&rows, State::LastAck, State::Close), "the end");
        assert!(has(&rows, State::CloseWait, State::LastAck), "that it is over");
        assert!(!has(&rows, State::FinWait1, State::FinWait2));
        assert!(has(&rows, State::Unknown(13), State::Established));
    }

    /// No report about a state may be about a connection that has left that state unseen.
    #[test]
    fn a_state_that_is_reported_is_seen_to_come_and_go() {
        let states = || (1..13).map(State::from_number);
        let sets = || states().map(StateSet::from).chain([StateSet::default()]);
        for (from, to) in sets().flat_map(|from| sets().map(move |to| (from, to))) {
            let rows = pairs(States { from, to });
            let in_set = |set: StateSet, state| set.is_empty() || set.contains(state);
            for (a, b) in
                states().flat_map(|a| states().map(move |b| (a, b))).filter(|&(a, b)| is_legal(a, b))
            {
                // `stuck`, `snapshot` and the numbers report a state that is in both.
                let reported = [a, b].into_iter().any(|state| in_set(from, state) && in_set(to, state));
                let wanted = in_set(from, a) && in_set(to, b);
                if reported || wanted || a == State::SynSent {
                    assert!(has(&rows, a, b), "{a} -> {b} with {from:?} and {to:?}");
                }
            }
        }
    }

    #[test]
    fn a_prefix_is_compared_in_the_wide_form() {
        let (bytes, mask) = prefix("10.1.2.3/8".parse().expect("prefix"));
        assert_eq!(bytes[3].to_ne_bytes(), [10, 0, 0, 0]);
        assert_eq!(mask[3].to_ne_bytes(), [255, 0, 0, 0]);
        assert_eq!(mask[2], u32::MAX);
        assert_eq!(prefix("::/0".parse().expect("prefix")).1, [0; 4]);
    }

    #[test]
    fn ports_become_bits() {
        let ends = Ends { remote_port: Some(Ports(vec![80..=80, 65535..=65535])), ..Ends::default() };
        let filter = Filter { ends, ..Filter::default() };
        assert_eq!(port_words(&filter), [(PORT_WORDS + 1, 1 << 16), (PORT_WORDS * 2 - 1, 1 << 63)]);
        assert_eq!(constants(&filter).ports, 1 << PORTS_REMOTE);
    }
}
