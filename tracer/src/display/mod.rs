//! How values look to people, the same in tables, pictures and screens.

pub mod palette;
mod units;

pub use units::{duration, endpoint, endpoints, lower_bound, number, readable};
