//! Draws the state machine: RFC 9293's figure 5, with Linux's additions as notes. Text and SVG share one geometry in character
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
const BOX: (usize, usize) = (15, 4);
/// Columns and rows of the picture, which fits a terminal of 80 columns.
const SIZE: (usize, usize) = (79, 40);

/// The box of a state, by its upper left corner. CLOSE has two boxes: at the top for the beginning, at the bottom for the end.
struct StateBox {
    state: State,
    at: (usize, usize),
    /// The lower CLOSE.
    is_end: bool,
}

const LEFT: usize = 2;
const MIDDLE: usize = 33;
const RIGHT: usize = 64;

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

/// Where a label is, beside its line.
#[derive(Clone, Copy)]
enum LabelAt {
    /// It begins in this cell, to the right of a vertical line or above or below a horizontal one.
    Begins(usize, usize),
    /// It ends in this cell, to the left of a vertical line.
    Ends(usize, usize),
    /// It begins in this cell, with its count in the row below, where there is little room.
    Two(usize, usize),
}

use LabelAt::{Begins, Ends, Two};

/// An arrow: its corners from start to head, its label, and the position of the label.
struct Arrow {
    edge: (State, State),
    corners: &'static [(usize, usize)],
    label: &'static str,
    label_at: LabelAt,
}

const fn arrow(
    from: State,
    to: State,
    corners: &'static [(usize, usize)],
    label: &'static str,
    label_at: LabelAt,
) -> Arrow {
    Arrow { edge: (from, to), corners, label, label_at }
}

const ARROWS: [Arrow; 18] = [
    arrow(Close, Listen, &[(32, 1), (9, 1), (9, 5)], "listen()", Begins(11, 3)),
    arrow(Close, SynSent, &[(48, 1), (71, 1), (71, 5)], "connect()", Ends(69, 3)),
    arrow(Listen, SynRecv, &[(9, 10), (9, 11)], "SYN", Begins(11, 10)),
    arrow(SynSent, SynRecv, &[(67, 10), (67, 13), (17, 13)], "SYN: both open", Begins(33, 12)),
    arrow(SynRecv, Established, &[(13, 16), (13, 19), (32, 19)], "ACK", Begins(15, 18)),
    arrow(SynSent, Established, &[(71, 10), (71, 19), (48, 19)], "SYN-ACK", Ends(69, 18)),
    arrow(SynRecv, FinWait1, &[(1, 14), (0, 14), (0, 25), (1, 25)], "close()", Two(2, 20)),
    arrow(Established, FinWait1, &[(32, 20), (13, 20), (13, 23)], "close()", Begins(15, 22)),
    arrow(Established, CloseWait, &[(48, 20), (71, 20), (71, 23)], "FIN", Ends(69, 22)),
    arrow(FinWait1, FinWait2, &[(9, 28), (9, 29)], "ACK", Begins(11, 28)),
    arrow(FinWait1, Closing, &[(17, 25), (40, 25), (40, 29)], "FIN", Begins(42, 27)),
    arrow(FinWait1, TimeWait, &[(17, 26), (27, 26), (27, 37), (32, 37)], "FIN+ACK", Two(29, 28)),
    arrow(FinWait2, TimeWait, &[(9, 34), (9, 38), (32, 38)], "FIN", Begins(11, 36)),
    arrow(Closing, TimeWait, &[(40, 34), (40, 35)], "ACK", Two(42, 34)),
    arrow(CloseWait, LastAck, &[(71, 28), (71, 29)], "close()", Ends(69, 28)),
    arrow(LastAck, Close, &[(71, 34), (71, 35)], "ACK", Ends(69, 34)),
    arrow(TimeWait, Close, &[(48, 37), (63, 37)], "60 s", Two(49, 38)),
    // In the corner that is empty otherwise.
    arrow(SynSent, Close, &[(63, 7), (40, 7), (40, 4)], "refused, timeout", Two(42, 5)),
];

/// The transitions of [`EDGES`] that have no arrow, and what causes them.
const NOT_DRAWN: [((State, State), &str); 2] =
    [((SynRecv, CloseWait), "FIN"), ((FinWait2, Close), "no FIN within net.ipv4.tcp_fin_timeout")];

/// The notes below the picture.
struct Notes {
    /// Transitions that have no arrow.
    not_drawn: Vec<String>,
    /// What the labels mean.
    legend: &'static str,
}

/// Counts and times from records.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    /// Count of each transition, and the median time in the state before it, ns.
    edges: BTreeMap<StatePair, (u64, Option<u64>)>,
    /// Number of connections in each state, and how many of them are stuck.
    now: BTreeMap<&'static str, (u64, u64)>,
}

impl Weights {
    /// Counts of a whole story.
    #[must_use]
    pub fn of(story: &Story) -> Self {
        let edges = story.edges.iter().map(|(edge, stats)| (*edge, (stats.count, stats.times.median_ns())));
        Self { edges: edges.collect(), now: story.tally() }
    }

    /// Counts of one connection.
    #[must_use]
    pub fn of_one(history: &ConnHistory) -> Self {
        let mut weights = Self::default();
        for step in &history.steps {
            let time = step.in_state.map(|time| time.ns);
            let (count, ns) = weights.edges.entry((step.from.name(), step.to.name())).or_default();
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
    highlights_path: bool,
    title: String,
}

impl Diagram {
    /// The diagram with counts and times.
    #[must_use]
    pub fn weighed(weights: Weights, title: String) -> Self {
        Self { weights: Some(weights), highlights_path: false, title }
    }

    /// The diagram with the path of one connection.
    #[must_use]
    pub fn path(history: &ConnHistory, title: String) -> Self {
        Self { weights: Some(Weights::of_one(history)), highlights_path: true, title }
    }

    /// The count of a transition.
    fn count(&self, (from, to): (State, State)) -> u64 {
        let weights = self.weights.as_ref();
        weights
            .and_then(|weights| weights.edges.get(&(from.name(), to.name())))
            .map_or(0, |(count, _)| *count)
    }

    /// The label of an arrow, with its count and time, in one line or two.
    fn label(&self, arrow: &Arrow) -> Vec<String> {
        let weight = self.weight(arrow.edge);
        match arrow.label_at {
            _ if weight.is_empty() => vec![arrow.label.to_owned()],
            Two(..) => vec![arrow.label.to_owned(), weight],
            Begins(..) | Ends(..) => vec![format!("{} {weight}", arrow.label)],
        }
    }

    /// Count and time, such as `12x 350us`; empty if the count is 0.
    fn weight(&self, (from, to): (State, State)) -> String {
        let found = self.weights.as_ref().and_then(|weights| weights.edges.get(&(from.name(), to.name())));
        found.map_or_else(String::new, |(count, ns)| weight(*count, *ns))
    }

    /// How many connections are in a box's state, and how many of them are stuck.
    fn now(&self, place: &StateBox) -> (u64, u64) {
        let now = self.weights.as_ref().and_then(|weights| weights.now.get(place.state.name()));
        if place.is_end { (0, 0) } else { now.copied().unwrap_or_default() }
    }

    /// The number of connections in a box's state, as text; empty if there are none.
    fn now_text(&self, place: &StateBox) -> String {
        match self.now(place) {
            (0, _) => String::new(),
            (now, 0) => format!("{} now", number(now)),
            (now, stuck) => format!("{} now, {} stuck", number(now), number(stuck)),
        }
    }

    /// The number of connections in a box's state, in a text that fits the box.
    fn short_now_text(&self, place: &StateBox) -> String {
        let (now, stuck) = self.now(place);
        match (now, stuck) {
            (0, _) => String::new(),
            (now, 0) => format!("{} now", number(now)),
            (0..100, 1..100) if now > stuck => format!("{stuck} of {now} STUCK"),
            (_, stuck) => format!("{} STUCK", number(stuck)),
        }
    }

    /// Whether to highlight a box.
    fn is_highlighted(&self, place: &StateBox) -> bool {
        !self.highlights_path
            || self.now(place).0 > 0
            || ARROWS.iter().any(|arrow| {
                let (from, to) = arrow.edge;
                let touches = if place.state == Close {
                    if place.is_end { to == Close } else { from == Close }
                } else {
                    from == place.state || to == place.state
                };
                touches && self.count(arrow.edge) > 0
            })
            || (place.is_end && self.others().iter().any(|(edge, _)| edge.1 == "CLOSE"))
    }

    /// Transitions without an arrow: Linux's additions and direct ends. Without counts, those of [`EDGES`].
    fn others(&self) -> Vec<(StatePair, String)> {
        let drawn =
            |edge: StatePair| ARROWS.iter().any(|arrow| (arrow.edge.0.name(), arrow.edge.1.name()) == edge);
        match &self.weights {
            Some(weights) => {
                let mut others: Vec<_> = weights.edges.iter().filter(|(edge, _)| !drawn(**edge)).collect();
                others.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
                others.into_iter().map(|(edge, (count, ns))| (*edge, weight(*count, *ns))).collect()
            }
            None => {
                let edges = EDGES.iter().map(|edge| (edge.from.name(), edge.to.name()));
                edges.filter(|edge| !drawn(*edge)).map(|edge| (edge, String::new())).collect()
            }
        }
    }

    fn notes(&self) -> Notes {
        let mut not_drawn: Vec<String> = Vec::new();
        for ((from, to), weight) in self.others() {
            let cause = NOT_DRAWN.iter().find(|((other, then), _)| (other.name(), then.name()) == (from, to));
            let cause = cause.map_or_else(String::new, |(_, cause)| format!(": {cause}"));
            not_drawn.push(format!("{from} -> {to}{cause} {weight}").trim_end().to_owned());
        }
        if self.weights.is_none() {
            not_drawn.push("every state but CLOSE -> CLOSE: reset, timeout, or `ss -K`".to_owned());
        }
        let legend = if self.weights.is_some() {
            "12x 350us: 12 transitions; the median time in the state before was 350us"
        } else {
            "listen(), connect(), close(): system calls. SYN, ACK, FIN: segments received"
        };
        Notes { not_drawn, legend }
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
            let (from, to) = arrow.edge;
            assert!(crate::knowledge::is_legal(from, to), "{from} {to}");
            assert!(near(from, arrow.corners[0]), "{from} -> {to} begins nowhere");
            assert!(near(to, *arrow.corners.last().expect("corners")), "{from} -> {to} ends nowhere");
        }
    }

    #[test]
    fn every_way_is_an_arrow_or_a_note() {
        let diagram = Diagram::default();
        let others = diagram.others();
        for edge in EDGES {
            let edge = (edge.from.name(), edge.to.name());
            let drawn = ARROWS.iter().any(|arrow| (arrow.edge.0.name(), arrow.edge.1.name()) == edge);
            let noted = NOT_DRAWN.iter().any(|(other, _)| (other.0.name(), other.1.name()) == edge);
            assert!(drawn != noted && (drawn || others.iter().any(|(other, _)| *other == edge)), "{edge:?}");
        }
    }
}
