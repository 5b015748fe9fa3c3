//! The diagram for Mermaid and Graphviz, which do the layout.

use super::{ARROWS, Diagram, PLACES};
use crate::display::palette;

impl Diagram {
    /// A Mermaid state diagram.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let mut out = String::from("stateDiagram-v2\n");
        out.push_str("    [*] --> CLOSE\n");
        for arrow in &ARROWS {
            let (from, to) = arrow.edge;
            // In Mermaid a colon or a semicolon ends a label.
            let label = self.label(arrow).join(" ").replace([':', ';'], ",");
            out.push_str(&format!("    {from} --> {to} : {label}\n"));
        }
        for ((from, to), weight) in self.others() {
            let label = if weight.is_empty() { String::new() } else { format!(" : {weight}") };
            out.push_str(&format!("    {from} --> {to}{label}\n"));
        }
        for place in PLACES.iter().filter(|place| !place.is_end) {
            let now = self.now_text(place);
            if !now.is_empty() {
                // A state's description replaces its name.
                out.push_str(&format!("    {0} : {0}<br>{now}\n", place.state));
            }
            if self.now(place).1 > 0 {
                out.push_str(&format!("    class {} stuck\n", place.state));
            }
        }
        out.push_str(&format!("    classDef stuck stroke:{},stroke-width:3px\n", palette::STUCK.light));
        out
    }

    /// A graph in Graphviz's DOT.
    #[must_use]
    pub fn dot(&self) -> String {
        let mut out = String::from(
            "digraph tcp {\n    rankdir=TB; nodesep=0.6;\n    node [shape=box, style=rounded, fontname=\"sans-serif\"];\n    \
             edge [fontname=\"sans-serif\", fontsize=10];\n",
        );
        if !self.title.is_empty() {
            out.push_str(&format!("    label={};\n", quoted(&self.title)));
        }
        for place in &PLACES {
            let (name, id) = (place.state.name(), if place.is_end { "END" } else { place.state.name() });
            let now = self.now_text(place);
            let label = if now.is_empty() { name.to_owned() } else { format!("{name}\\n{now}") };
            let colour = match (self.now(place).1 > 0, self.is_highlighted(place)) {
                (true, _) => format!(", color=\"{}\", penwidth=3", palette::STUCK.light),
                (false, false) => format!(", {}", faint()),
                (false, true) => String::new(),
            };
            out.push_str(&format!("    {id} [label=\"{label}\"{colour}];\n"));
        }
        for arrow in &ARROWS {
            let (from, to) = arrow.edge;
            let count = self.count(arrow.edge);
            let style = match (self.weights.is_some(), count) {
                (true, 0) => format!(", {}", faint()),
                (true, count) => format!(", penwidth={:.1}", self.thickness(count)),
                (false, _) => String::new(),
            };
            let to = if to.name() == "CLOSE" && from.name() != "SYN_SENT" { "END" } else { to.name() };
            out.push_str(&format!(
                "    {from} -> {to} [label={}{style}];\n",
                quoted(&self.label(arrow).join(" "))
            ));
        }
        for ((from, to), weight) in self.others() {
            let to = if to == "CLOSE" { "END" } else { to };
            out.push_str(&format!(
                "    {from} -> {to} [label={}, style=dashed, constraint=false];\n",
                quoted(&weight)
            ));
        }
        out.push_str("}\n");
        out
    }

    /// The thickness of a line, by the logarithm of the count: counts may differ by a factor of a million.
    pub(super) fn thickness(&self, count: u64) -> f64 {
        1.0 + (count.max(1) as f64).log10()
    }
}

/// The attributes of a state or transition that did not happen.
fn faint() -> String {
    format!("color=\"{}\", fontcolor=\"{}\"", palette::FAINT.light, palette::DIM.light)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
