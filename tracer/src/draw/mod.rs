//! Pictures: text, SVG and pages of what is known of TCP, and of what has been recorded.

mod diagram;
pub mod palette;
mod report;
mod timeline;
mod units;

pub use diagram::{Diagram, Weights};
pub use report::report;
pub use timeline::Timeline;
use units::escape;
pub use units::{duration, endpoint, number};
