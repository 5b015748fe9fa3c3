//! Why a delivery did not succeed.

use std::time::Duration;

use thiserror::Error;

use crate::model::printable;

/// Characters of a message, at most: a collector may answer with megabytes.
const QUOTE: usize = 400;

/// Why a delivery did not succeed, and what becomes of the records that are left.
#[derive(Debug, Error)]
pub enum DeliveryError {
    /// The delivery may succeed later: the records are sent again.
    #[error("{message}")]
    Retry {
        message: String,
        /// The pause that the collector asks for.
        after: Option<Duration>,
    },
    /// The collector will never accept one of the records, or the size of the request: smaller attempts find the
    /// record.
    #[error("{message}")]
    OneRefused { message: String },
    /// The first record that is left is larger than the collector accepts, and is lost.
    #[error("{message}")]
    TooLarge { message: String },
    /// The collector will never accept any of the records: they are lost.
    #[error("{message}")]
    Refused { message: String },
    /// The collector may have the records that are left: they are in doubt, and not sent again.
    #[error("{message}")]
    InDoubt { message: String },
}

impl DeliveryError {
    pub(crate) fn retry(message: impl ToString) -> Self {
        Self::Retry { message: message.to_string(), after: None }
    }

    /// Shortens a message that has text of the collector, and makes it one line.
    pub(crate) fn quoted(mut self) -> Self {
        let (Self::Retry { message, .. }
        | Self::OneRefused { message }
        | Self::TooLarge { message }
        | Self::Refused { message }
        | Self::InDoubt { message }) = &mut self;
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
        let quoted = |text: &str| DeliveryError::retry(text).quoted().to_string();
        assert_eq!(quoted("status 400: no"), "status 400: no");
        assert_eq!(
            quoted("no\nsockstate: all is well\u{1b}[2J"),
            "no\u{fffd}sockstate: all is well\u{fffd}[2J"
        );
        assert_eq!(quoted(&"\u{e9}".repeat(QUOTE)), "\u{e9}".repeat(QUOTE));
        assert_eq!(quoted(&"\u{e9}".repeat(QUOTE + 1)), "\u{e9}".repeat(QUOTE) + "...");
    }
}
