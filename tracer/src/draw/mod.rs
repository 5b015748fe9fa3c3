//! Pictures: text, SVG and pages of what is known of TCP, and of what has been recorded.

mod diagram;
mod escape;
mod report;
mod timeline;

pub use diagram::{Diagram, Weights};
use escape::escape;
pub use report::report;
pub use timeline::Timeline;
