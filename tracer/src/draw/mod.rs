//! Draws diagrams, timelines and reports, as text, SVG and HTML.

mod diagram;
mod escape;
mod report;
mod scale;
mod theme;
mod timeline;

pub use diagram::{Diagram, Weights};
use escape::escape;
pub use report::report;
pub use timeline::Timeline;
