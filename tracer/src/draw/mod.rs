//! Pictures: text, SVG and pages of what is known of TCP, and of what has been recorded.

mod diagram;
mod units;

pub use diagram::{Diagram, Weights};
use units::escape;
pub use units::{duration, endpoint, number};
