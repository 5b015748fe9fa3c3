//! Where finished bytes go.

mod output;

pub use output::{Output, OutputError};
