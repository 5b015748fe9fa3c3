//! Texts of a fixed set, such as the names of hooks, which records have as `&'static str`.

use std::collections::HashSet;

/// Foreign input must not leak without limit: a text that is longer, or comes after [`MOST_TEXTS`] others, is read as
/// "unknown".
const MOST_TEXTS: usize = 4096;
const LONGEST_TEXT: usize = 64;

/// The texts that were read, leaked once each.
#[derive(Debug, Default)]
pub(super) struct FixedTexts(HashSet<&'static str>);

impl FixedTexts {
    /// The text as a `&'static str`: records that the tracer makes have constants here. `None` for a missing text.
    pub(super) fn keep(&mut self, text: &str) -> Option<&'static str> {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.0.get(text) {
            return Some(known);
        }
        if self.0.len() >= MOST_TEXTS || text.len() > LONGEST_TEXT {
            return Some("unknown");
        }
        let kept: &'static str = text.to_owned().leak();
        self.0.insert(kept);
        Some(kept)
    }
}
