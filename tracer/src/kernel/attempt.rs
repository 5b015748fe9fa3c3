//! What was tried, and what came of it.

use super::error::{LoadError, chain};

/// One hook that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub hook: String,
    /// What it is for.
    pub purpose: &'static str,
    /// The reason if it failed.
    pub error: Option<String>,
}

impl Attempt {
    /// `hook` was tried.
    #[must_use]
    pub fn new(hook: impl Into<String>, purpose: &'static str, error: Option<String>) -> Self {
        Self { hook: hook.into(), purpose, error }
    }

    pub(super) fn of<T>(
        hook: impl Into<String>,
        purpose: &'static str,
        result: &Result<T, LoadError>,
    ) -> Self {
        Self::new(hook, purpose, result.as_ref().err().map(|error| chain(&**error)))
    }
}
