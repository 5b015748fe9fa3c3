//! Events whose meaning depends on evidence that follows within [`PATIENCE_NS`](super::PATIENCE_NS). The lists are empty most of the time.

use std::collections::{HashMap, VecDeque};

use rustc_hash::FxBuildHasher;

use super::{
    identity::Endpoints,
    resets::{RecentResets, Resets},
};
use crate::model::{Cause, ClosedAs, Event, State, Transition};

/// A timewait socket whose full socket has not gone to CLOSE yet.
pub(super) struct Timewait {
    pub(super) sk: u64,
    /// The full socket; 0 where the hook does not show it.
    pub(super) full: u64,
    pub(super) ends: Endpoints,
    pub(super) state: State,
    pub(super) event: Event,
    pub(super) ended: Option<Ending>,
}

/// An event that looks like the end of a mini-socket. It may be taken back, or its cause may follow.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub(super) sk: u64,
    pub(super) ends: Endpoints,
    pub(super) at_ns: u64,
    pub(super) cause: Option<Cause>,
}

/// `-> CLOSE` of a full socket that a reset may explain.
pub(super) struct Closing {
    pub(super) sk: u64,
    pub(super) at_ns: u64,
    pub(super) transition: Transition,
    /// The socket's flags at that moment.
    pub(super) closed: ClosedAs,
    /// `tcp_reset()` ended the socket: a reset was received, or data after close().
    pub(super) by_tcp_reset: bool,
    /// The state of the mini-socket that is likely, where no hook shows mini-sockets.
    pub(super) likely: Option<State>,
}

/// `LISTEN -> SYN_RECV` of a child whose endpoints are not known yet (kernels up to 6.12).
pub(super) struct Child {
    pub(super) sk: u64,
    pub(super) at_ns: u64,
    pub(super) transition: Transition,
}

/// All events that wait for evidence, and the evidence that came first.
#[derive(Default)]
pub(super) struct Pending {
    /// SYN cookies that came back, and when.
    cookies: Vec<(Endpoints, u64)>,
    timewaits: Vec<Timewait>,
    endings: Endings,
    closings: Vec<Closing>,
    children: Vec<Child>,
    resets: RecentResets,
}

impl Pending {
    /// Whether nothing waits for time to pass.
    pub(super) fn is_idle(&self) -> bool {
        self.timewaits.is_empty()
            && self.endings.is_empty()
            && self.closings.is_empty()
            && self.children.is_empty()
            && self.cookies.is_empty()
            && self.resets.is_empty()
    }

    /// How many transitions wait, at most.
    pub(super) fn len(&self) -> usize {
        self.timewaits.len() + self.endings.len() + self.closings.len() + self.children.len()
    }

    pub(super) fn note_cookie(&mut self, event: &Event) {
        self.cookies.push((Endpoints::of(event), event.time_ns));
    }

    /// Whether a SYN cookie of this connection came back.
    pub(super) fn take_cookie(&mut self, ends: &Endpoints) -> bool {
        let at = self.cookies.iter().position(|(known, _)| known == ends);
        at.map(|at| self.cookies.swap_remove(at)).is_some()
    }

    /// A reset was seen of a socket in `state`.
    pub(super) fn note_reset(&mut self, event: &Event, state: State, seen: Resets) {
        self.resets.note(event, state, seen);
    }

    /// The resets of a socket that leaves `state` now.
    pub(super) fn take_resets(&mut self, event: &Event, state: State) -> Resets {
        self.resets.take(event.sk, state, event.time_ns)
    }

    /// Forgets evidence that came before `until_ns`.
    pub(super) fn forget_evidence(&mut self, until_ns: u64) {
        self.cookies.retain(|(_, at_ns)| *at_ns > until_ns);
        self.resets.forget(until_ns);
    }

    pub(super) fn add_timewait(&mut self, timewait: Timewait) {
        self.timewaits.push(timewait);
    }

    pub(super) fn has_timewaits(&self) -> bool {
        !self.timewaits.is_empty()
    }

    /// Whether `sk` is a timewait socket whose full socket has not gone to CLOSE yet.
    pub(super) fn is_timewait(&self, sk: u64) -> bool {
        self.timewaits.iter().any(|timewait| timewait.sk == sk)
    }

    /// A timewait socket goes on, in `state`. False where it does not wait.
    pub(super) fn continue_timewait(&mut self, sk: u64, state: State) -> bool {
        let Some(timewait) = self.timewaits.iter_mut().find(|timewait| timewait.sk == sk) else {
            return false;
        };
        timewait.state = state;
        timewait.ended = None;
        true
    }

    /// A timewait socket ends before its full socket goes to CLOSE. False where it does not wait.
    pub(super) fn end_timewait(&mut self, ending: Ending) -> bool {
        let Some(timewait) = self.timewaits.iter_mut().find(|timewait| timewait.sk == ending.sk) else {
            return false;
        };
        timewait.ended = Some(Ending { ends: timewait.ends, ..ending });
        true
    }

    /// The timewait socket that continues this full socket's connection.
    pub(super) fn take_timewait(&mut self, full: u64, ends: &Endpoints) -> Option<Timewait> {
        let fits = |timewait: &Timewait| match timewait.full {
            0 => timewait.ends == *ends,
            known => known == full,
        };
        let at = self.timewaits.iter().position(fits)?;
        Some(self.timewaits.swap_remove(at))
    }

    /// The timewait sockets that have waited since `until_ns` or earlier.
    pub(super) fn take_old_timewaits(&mut self, until_ns: u64) -> Vec<Timewait> {
        take(&mut self.timewaits, |timewait| timewait.event.time_ns <= until_ns)
    }

    /// The end of a mini-socket. An earlier one of the same socket is replaced.
    pub(super) fn add_ending(&mut self, ending: Ending) {
        self.endings.push(ending);
    }

    /// The end of the mini-socket `sk`.
    pub(super) fn take_ending(&mut self, sk: u64) -> Option<Ending> {
        self.endings.take(sk)
    }

    /// The end of the mini-socket with these endpoints.
    pub(super) fn take_ending_of(&mut self, endpoints: &Endpoints) -> Option<Ending> {
        if self.endings.is_empty() { None } else { self.endings.take_with(endpoints) }
    }

    /// The first end of a mini-socket that has waited since `until_ns` or earlier.
    pub(super) fn take_old_ending(&mut self, until_ns: u64) -> Option<Ending> {
        self.endings.take_old(until_ns)
    }

    pub(super) fn add_closing(&mut self, closing: Closing) {
        self.closings.push(closing);
    }

    /// The first `-> CLOSE` of `sk` that waits.
    pub(super) fn take_closing(&mut self, sk: u64) -> Option<Closing> {
        let at = self.closings.iter().position(|closing| closing.sk == sk)?;
        Some(self.closings.swap_remove(at))
    }

    /// All closings of the socket `sk`, in order.
    pub(super) fn take_closings(&mut self, sk: u64) -> Vec<Closing> {
        take(&mut self.closings, |closing| closing.sk == sk)
    }

    /// The closings that have waited since `until_ns` or earlier.
    pub(super) fn take_old_closings(&mut self, until_ns: u64) -> Vec<Closing> {
        take(&mut self.closings, |closing| closing.at_ns <= until_ns)
    }

    pub(super) fn add_child(&mut self, child: Child) {
        self.children.push(child);
    }

    /// The children at `sk` that wait for their endpoints, in order.
    pub(super) fn take_children(&mut self, sk: u64) -> Vec<Child> {
        take(&mut self.children, |child| child.sk == sk)
    }

    /// The children that have waited since `until_ns` or earlier.
    pub(super) fn take_old_children(&mut self, until_ns: u64) -> Vec<Child> {
        take(&mut self.children, |child| child.at_ns <= until_ns)
    }
}

/// Takes the `wanted` elements out of `list`, in order.
fn take<T>(list: &mut Vec<T>, wanted: impl Fn(&T) -> bool) -> Vec<T> {
    list.extract_if(.., |element| wanted(element)).collect()
}

/// Endings of mini-sockets: very many in a SYN flood, or when a namespace goes.
#[derive(Default)]
struct Endings {
    by_sk: HashMap<u64, Ending, FxBuildHasher>,
    by_endpoints: HashMap<Endpoints, u64, FxBuildHasher>,
    /// Time and socket, in order. Endings that were taken back since are not in the maps.
    order: VecDeque<(u64, u64)>,
}

impl Endings {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn len(&self) -> usize {
        self.by_sk.len()
    }

    fn push(&mut self, ending: Ending) {
        self.take(ending.sk);
        self.order.push_back((ending.at_ns, ending.sk));
        self.by_endpoints.insert(ending.ends, ending.sk);
        self.by_sk.insert(ending.sk, ending);
    }

    fn take(&mut self, sk: u64) -> Option<Ending> {
        let ending = self.by_sk.remove(&sk)?;
        if self.by_endpoints.get(&ending.ends) == Some(&sk) {
            self.by_endpoints.remove(&ending.ends);
        }
        if self.by_sk.is_empty() {
            self.order.clear();
        }
        Some(ending)
    }

    fn take_with(&mut self, ends: &Endpoints) -> Option<Ending> {
        let sk = *self.by_endpoints.get(ends)?;
        self.take(sk)
    }

    fn take_old(&mut self, until_ns: u64) -> Option<Ending> {
        while let Some(&(at_ns, sk)) = self.order.front().filter(|(at_ns, _)| *at_ns <= until_ns) {
            self.order.pop_front();
            if self.by_sk.get(&sk).is_some_and(|ending| ending.at_ns == at_ns) {
                return self.take(sk);
            }
        }
        None
    }
}
