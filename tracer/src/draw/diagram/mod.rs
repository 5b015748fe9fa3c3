//! Draws the state machine: RFC 9293's figure 5, with Linux's additions below it. Text and SVG share one geometry in character
//! cells. Counts and times may be added.

mod graph;
mod svg;
mod text;

use std::collections::BTreeMap;

use crate::display::{duration, number};
use crate::{
    knowledge::EDGES,
    model::State,
    story::{ConnHistory, StatePair, Story},
};

use State::{
    Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent, TimeWait,
};

/// Columns and rows of a box.
const BOX: (usize, usize) = (17, 4);
/// Columns and rows of the picture.
const SIZE: (usize, usize) = (94, 40);

/// The box of a state, by its upper left corner. CLOSE has two boxes: at the top for the beginning, at the bottom for the end.
struct StateBox {
    state: State,
    at: (usize, usize),
    /// The lower CLOSE.
    is_end: bool,
}

const LEFT: usize = 1;
const MIDDLE: usize = 38;
const RIGHT: usize = 75;

const fn place(state: State, x: usize, y: usize) -> StateBox {
    StateBox { state, at: (x, y), is_end: false }
}

const PLACES: [StateBox; 12] = [
    place(Close, MIDDLE, 0),
    place(Listen, LEFT, 6),
    place(SynSent, RIGHT, 6),
    place(SynRecv, LEFT, 12),
    place(Established, MIDDLE, 18),
    place(FinWait1, LEFT, 24),
    place(CloseWait, RIGHT, 24),
    place(FinWait2, LEFT, 30),
    place(Closing, MIDDLE, 30),
    place(LastAck, RIGHT, 30),
    place(TimeWait, MIDDLE, 36),
    StateBox { state: Close, at: (RIGHT, 36), is_end: true },
];

/// An arrow: its corners from start to head, its label, and the position of the label.
struct Arrow {
    way: (State, State),
    corners: &'static [(usize, usize)],
    label: &'static str,
    label_at: (usize, usize),
}

const fn arrow(
    from: State,
    to: State,
    corners: &'static [(usize, usize)],
    label: &'static str,
    label_at: (usize, usize),
) -> Arrow {
    Arrow { way: (from, to), corners, label, label_at }
}

const ARROWS: [Arrow; 18] = [
    arrow(Close, Listen, &[(37, 1), (9, 1), (9, 5)], "listen()", (11, 3)),
    arrow(Close, SynSent, &[(55, 1), (83, 1), (83, 5)], "connect()", (64, 3)),
    arrow(Listen, SynRecv, &[(9, 10), (9, 11)], "SYN", (11, 10)),
    arrow(SynSent, SynRecv, &[(79, 10), (79, 13), (18, 13)], "SYN: both open", (40, 12)),
    arrow(SynRecv, Established, &[(9, 16), (9, 19), (37, 19)], "ACK", (20, 18)),
    arrow(SynSent, Established, &[(83, 10), (83, 19), (55, 19)], "SYN-ACK", (60, 18)),
    arrow(SynRecv, FinWait1, &[(4, 16), (4, 23)], "close()", (6, 21)),
    arrow(Established, FinWait1, &[(37, 20), (13, 20), (13, 23)], "close()", (17, 22)),
    arrow(Established, CloseWait, &[(55, 20), (83, 20), (83, 23)], "FIN", (66, 22)),
    arrow(FinWait1, FinWait2, &[(9, 28), (9, 29)], "ACK", (11, 28)),
    arrow(FinWait1, Closing, &[(18, 25), (46, 25), (46, 29)], "FIN", (48, 27)),
    arrow(FinWait1, TimeWait, &[(18, 26), (26, 26), (26, 37), (37, 37)], "FIN+ACK", (28, 28)),
    arrow(FinWait2, TimeWait, &[(9, 34), (9, 38), (37, 38)], "FIN", (11, 36)),
    arrow(Closing, TimeWait, &[(46, 34), (46, 35)], "ACK", (48, 34)),
    arrow(CloseWait, LastAck, &[(83, 28), (83, 29)], "close()", (64, 28)),
    arrow(LastAck, Close, &[(83, 34), (83, 35)], "ACK", (64, 34)),
    arrow(TimeWait, Close, &[(55, 37), (74, 37)], "60 s", (57, 38)),
    // In the empty corner.
    arrow(SynSent, Close, &[(74, 7), (46, 7), (46, 4)], "refused, timeout", (48, 5)),
];

/// Counts and times from records.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// Count of each transition, and the median time in the state before it, ns.
    ways: BTreeMap<StatePair, (u64, Option<u64>)>,
    /// Number of connections in each state, and how many of them are stuck.
    now: BTreeMap<&'static str, (u64, u64)>,
}

impl Weights {
    /// Counts of a whole story.
    #[must_use]
    pub fn of(story: &Story) -> Self {
        let ways = story.edges.iter().map(|(way, gone)| (*way, (gone.count, gone.times.median_ns())));
        Self { ways: ways.collect(), now: story.tally() }
    }

    /// Counts of one connection.
    #[must_use]
    pub fn of_one(history: &ConnHistory) -> Self {
        let mut weights = Self::default();
        for step in &history.steps {
            let time = step.in_state.map(|time| time.ns);
            let (count, ns) = weights.ways.entry((step.from.name(), step.to.name())).or_default();
            *count += 1;
            *ns = time.or(*ns);
        }
        if !history.is_over() {
            weights.now.insert(history.state.name(), (1, u64::from(history.is_stuck)));
        }
        weights
    }
}

/// The picture.
#[derive(Clone, Debug, Default)]
pub struct Diagram {
    weights: Option<Weights>,
    /// Highlight only states and transitions with counts.
    lit: bool,
    title: String,
}

impl Diagram {
    /// The diagram with counts and times.
    #[must_use]
    pub fn weighed(weights: Weights, title: String) -> Self {
        Self { weights: Some(weights), lit: false, title }
    }

    /// The diagram with the path of one connection.
    #[must_use]
    pub fn path(history: &ConnHistory, title: String) -> Self {
        Self { weights: Some(Weights::of_one(history)), lit: true, title }
    }

    /// The count of a transition.
    fn count(&self, (from, to): (State, State)) -> u64 {
        let weights = self.weights.as_ref();
        weights.and_then(|weights| weights.ways.get(&(from.name(), to.name()))).map_or(0, |(count, _)| *count)
    }

    /// The label of an arrow, with its count and time.
    fn label(&self, arrow: &Arrow) -> String {
        let weight = self.weight(arrow.way);
        if weight.is_empty() { arrow.label.to_owned() } else { format!("{} {weight}", arrow.label) }
    }

    /// `12x 350us`; empty if the count is 0.
    fn weight(&self, (from, to): (State, State)) -> String {
        let found = self.weights.as_ref().and_then(|weights| weights.ways.get(&(from.name(), to.name())));
        found.map_or_else(String::new, |(count, ns)| weight(*count, *ns))
    }

    /// How many connections are in a box's state, and how many of them are stuck.
    fn now(&self, place: &StateBox) -> (u64, u64) {
        let now = self.weights.as_ref().and_then(|weights| weights.now.get(place.state.name()));
        if place.is_end { (0, 0) } else { now.copied().unwrap_or_default() }
    }

    /// The same as text; empty if there are none.
    fn now_text(&self, place: &StateBox) -> String {
        match self.now(place) {
            (0, _) => String::new(),
            (now, 0) => format!("{} now", number(now)),
            (now, stuck) => format!("{} now, {} stuck", number(now), number(stuck)),
        }
    }

    /// Whether to highlight a box.
    fn is_lit(&self, place: &StateBox) -> bool {
        !self.lit
            || self.now(place).0 > 0
            || ARROWS.iter().any(|arrow| {
                let (from, to) = arrow.way;
                let touches = if place.state == Close {
                    if place.is_end { to == Close } else { from == Close }
                } else {
                    from == place.state || to == place.state
                };
                touches && self.count(arrow.way) > 0
            })
            || (place.is_end && self.others().iter().any(|(way, _)| way.1 == "CLOSE"))
    }

    /// Transitions without an arrow: Linux's additions and direct ends. Without counts, those of [`EDGES`](crate::knowledge::EDGES).
    fn others(&self) -> Vec<(StatePair, String)> {
        let drawn =
            |way: StatePair| ARROWS.iter().any(|arrow| (arrow.way.0.name(), arrow.way.1.name()) == way);
        match &self.weights {
            Some(weights) => {
                let mut others: Vec<_> = weights.ways.iter().filter(|(way, _)| !drawn(**way)).collect();
                others.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
                others.into_iter().map(|(way, (count, ns))| (*way, weight(*count, *ns))).collect()
            }
            None => {
                let edges = EDGES.iter().map(|edge| (edge.from.name(), edge.to.name()));
                edges.filter(|way| !drawn(*way)).map(|way| (way, String::new())).collect()
            }
        }
    }

    /// The line below the picture with transitions that have no arrow.
    fn footnotes(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for ((from, to), weight) in self.others() {
            let is_known = EDGES.iter().any(|edge| (edge.from.name(), edge.to.name()) == (from, to));
            let at_once = if is_known { "" } else { " at once" };
            lines.push(format!("{from} -> {to}{at_once} {weight}").trim_end().to_owned());
        }
        if self.weights.is_some() {
            lines.push(
                "12x 350us: it happened twelve times; half of them were in the state before for up to 350us"
                    .into(),
            );
        } else {
            lines.push("every state but CLOSE -> CLOSE at once: reset, timeout, or ended by `ss -K`".into());
        }
        lines
    }
}

/// Count and median time as text.
fn weight(count: u64, ns: Option<u64>) -> String {
    let ns = ns.map(|ns| format!(" {}", duration(ns))).unwrap_or_default();
    format!("{}x{ns}", number(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arrow_is_a_way_and_begins_and_ends_at_its_boxes() {
        let near = |state: State, (x, y): (usize, usize)| {
            PLACES.iter().filter(|place| place.state == state).any(|place| {
                let (left, top) = place.at;
                let beside = (x + 1 == left || x == left + BOX.0) && (top..top + BOX.1).contains(&y);
                let above = (y + 1 == top || y == top + BOX.1) && (left..left + BOX.0).contains(&x);
                beside || above
            })
        };
        for arrow in &ARROWS {
            let (from, to) = arrow.way;
            assert!(crate::knowledge::is_legal(from, to), "{from} {to}");
            assert!(near(from, arrow.corners[0]), "{from} -> {to} begins nowhere");
            assert!(near(to, *arrow.corners.last().expect("corners")), "{from} -> {to} ends nowhere");
        }
    }

    #[test]
    fn every_way_is_an_arrow_or_a_footnote() {
        let diagram = Diagram::default();
        let others = diagram.others();
        for edge in EDGES {
            let way = (edge.from.name(), edge.to.name());
            let drawn = ARROWS.iter().any(|arrow| (arrow.way.0.name(), arrow.way.1.name()) == way);
            assert!(drawn || others.iter().any(|(other, _)| *other == way), "{way:?}");
        }
    }
}
