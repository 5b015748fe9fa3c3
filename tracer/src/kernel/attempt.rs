//! Hooks that were tried, with the result, for messages and `doctor`.

use super::error::{LoadError, chain};

/// One hook that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub hook: String,
    pub purpose: &'static str,
    /// Why the hook does not work; `None` if it works.
    pub error: Option<String>,
    /// No other hook has the same purpose.
    pub is_alone: bool,
}

impl Attempt {
    #[must_use]
    pub fn new(hook: impl Into<String>, purpose: &'static str, error: Option<String>) -> Self {
        Self { hook: hook.into(), purpose, error, is_alone: false }
    }

    pub(super) fn of<T>(
        hook: impl Into<String>,
        purpose: &'static str,
        result: &Result<T, LoadError>,
    ) -> Self {
        Self::new(hook, purpose, result.as_ref().err().map(|error| chain(&**error)))
    }
}
