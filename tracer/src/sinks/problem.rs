//! What can be wrong with a sink's section.

use thiserror::Error;

/// Something that is wrong with a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The sink's key that it is about; empty for the whole section.
    pub key: &'static str,
    pub message: String,
}

impl Problem {
    pub(super) fn of_section(message: impl ToString) -> Self {
        Self { key: "", message: message.to_string() }
    }
}

/// Why nothing can be made of a sink's keys.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A required key is missing.
    #[error("a required key is missing")]
    Incomplete,
    /// Something that this binary does not have.
    #[error("this sockstate was built without {name}: cargo install --path tracer --features {feature}")]
    BuiltWithout {
        /// What is missing.
        name: &'static str,
        /// The feature of the crate.
        feature: &'static str,
    },
}
