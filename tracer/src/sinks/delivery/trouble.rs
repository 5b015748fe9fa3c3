//! Why a delivery did not succeed.

use std::time::Duration;

use thiserror::Error;

use crate::model::printable;

/// Characters of a message, at most: collectors answer with megabytes.
const QUOTE: usize = 400;

#[derive(Debug, Error)]
pub enum Trouble {
    /// Later it may.
    #[error("{message}")]
    Retry {
        message: String,
        /// Not before this time has passed; the collector's wish.
        after: Option<Duration>,
    },
    /// The collector refuses for good: one of the records, or the size of the request.
    #[error("{message}")]
    Unwanted { message: String },
    /// The first record that is left is certainly larger than the collector takes.
    #[error("{message}")]
    Oversized { message: String },
    /// The collector will never take any of them.
    #[error("{message}")]
    Refused { message: String },
    /// The collector may have those that are left; sent again, it would have them twice.
    #[error("{message}")]
    Doubtful { message: String },
}

impl Trouble {
    pub(crate) fn retry(message: impl ToString) -> Self {
        Self::Retry { message: message.to_string(), after: None }
    }

    /// Its message has text of the collector: it is cut, and made one line.
    pub(crate) fn quoted(mut self) -> Self {
        let (Self::Retry { message, .. }
        | Self::Unwanted { message }
        | Self::Oversized { message }
        | Self::Refused { message }
        | Self::Doubtful { message }) = &mut self;
        *message = quote(message);
        self
    }
}

fn quote(message: &str) -> String {
    match message.char_indices().nth(QUOTE) {
        Some((end, _)) => printable(&message[..end]) + "...",
        None => printable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let quoted = |text: &str| Trouble::retry(text).quoted().to_string();
        assert_eq!(quoted("status 400: no"), "status 400: no");
        assert_eq!(
            quoted("no\nsockstate: all is well\u{1b}[2J"),
            "no\u{fffd}sockstate: all is well\u{fffd}[2J"
        );
        assert_eq!(quoted(&"\u{e9}".repeat(QUOTE)), "\u{e9}".repeat(QUOTE));
        assert_eq!(quoted(&"\u{e9}".repeat(QUOTE + 1)), "\u{e9}".repeat(QUOTE) + "...");
    }
}
