//! Resets, as evidence of the end that follows at once. A reset that ends nothing (an answer to a bad SYN-ACK, say) is
//! forgotten.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::model::{Event, State};

/// How long the kernel may take from one step to the next that explains it, ns. The steps lie in one call or softirq, but
/// a call may be preempted between them.
pub const PATIENCE_NS: u64 = 100_000_000;

/// The same after `tcp_reset()` has begun: nothing else can follow, so that only memory limits the time. On a busy machine, the
/// task or softirq that runs it may be preempted for longer than [`PATIENCE_NS`].
const RECEIVED_NS: u64 = 60_000_000_000;

/// Resets seen of a connection in the state that it leaves now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resets {
    /// `tcp_reset()` ran for the socket: a reset was received, or data after close().
    pub(super) received: bool,
    pub(super) sent: Option<Sent>,
}

/// A reset that was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sent {
    /// The kernel's reason (`enum sk_rst_reason`).
    pub(super) reason: Option<u16>,
    /// close() with `SO_LINGER` and a time of 0.
    pub(super) linger_0: bool,
}

/// Resets that no end has followed yet, by socket.
#[derive(Default)]
pub(super) struct RecentResets {
    by_sk: HashMap<u64, (u64, State, Resets), FxBuildHasher>,
}

impl RecentResets {
    pub(super) fn is_empty(&self) -> bool {
        self.by_sk.is_empty()
    }

    /// Notes a reset; resets that were seen in another state are forgotten.
    pub(super) fn note(&mut self, event: &Event, state: State, seen: Resets) {
        let (at_ns, known_state, known) =
            self.by_sk.entry(event.sk).or_insert((event.time_ns, state, Resets::default()));
        if *known_state != state {
            (*known_state, *known) = (state, Resets::default());
        }
        *at_ns = event.time_ns;
        known.received |= seen.received;
        known.sent = seen.sent.or(known.sent);
    }

    /// The resets of this socket in this state, just before `now_ns`.
    pub(super) fn take(&mut self, sk: u64, state: State, now_ns: u64) -> Resets {
        match self.by_sk.remove(&sk) {
            Some((at_ns, seen, resets)) if seen == state => {
                let age_ns = now_ns.saturating_sub(at_ns);
                Resets {
                    received: resets.received && age_ns < RECEIVED_NS,
                    sent: resets.sent.filter(|_| age_ns < PATIENCE_NS),
                }
            }
            _ => Resets::default(),
        }
    }

    /// Forgets resets that no longer count, at a moment [`PATIENCE_NS`] after `until_ns`.
    pub(super) fn forget(&mut self, until_ns: u64) {
        let received_until_ns = (until_ns + PATIENCE_NS).saturating_sub(RECEIVED_NS);
        self.by_sk.retain(|_, (at_ns, _, resets)| {
            *at_ns > if resets.received { received_until_ns } else { until_ns }
        });
    }
}
