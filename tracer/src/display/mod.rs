//! Formats values for people, the same way in tables, pictures and screens.

pub mod palette;
mod units;

pub use units::{duration, endpoint, endpoints, lower_bound, number, readable};
