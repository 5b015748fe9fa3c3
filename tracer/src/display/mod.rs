//! Formats values for people, the same way in tables, pictures and screens.

mod columns;
pub mod palette;
mod units;

pub use columns::{Column, Layout, command, paragraph};
pub use units::{duration, endpoint, endpoints, lower_bound, number, readable};
