//! The description of a format, which each format has in its file.

use super::{Format, LineFormat};
use crate::model::{RecordKind, RecordKinds};

/// Reads the width of a terminal, which people change; `None` if the terminal does not tell it.
pub type ReadWidth = fn() -> Option<usize>;

/// What a format is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatOptions {
    /// Whether the formats for people have colours.
    pub colour: bool,
    /// Reads the width of the terminal that shows the output; `None` if no terminal does.
    pub width: Option<ReadWidth>,
    /// In CSV, no cell begins like a formula.
    pub escape_formulas: bool,
    /// The stream has connections instead of transitions.
    pub connections: bool,
    /// The stream has one of this many connections; all of them with 0 and 1.
    pub sample: u64,
}

impl FormatOptions {
    /// The options for a stream of these kinds of records.
    #[must_use]
    pub fn of(kinds: RecordKinds) -> Self {
        let connections = kinds.contains(RecordKind::Connection) && !kinds.contains(RecordKind::Transition);
        Self { connections, ..Self::default() }
    }
}

/// A format by its name.
#[derive(Clone, Copy, Debug)]
pub struct FormatName {
    /// The name for users.
    pub name: &'static str,
    /// Its description in one line, for help texts.
    pub help: &'static str,
    /// What it writes for a record.
    pub content: Content,
    /// Whether sinks have the key `format` for it, too; `trace` and `replay` have all formats.
    pub for_sinks: bool,
    pub(super) source: Source,
}

impl PartialEq for FormatName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl FormatName {
    /// Why this format cannot show these kinds of records.
    #[must_use]
    pub fn problem(&self, kinds: RecordKinds) -> Option<String> {
        if self.content != Content::OneKind {
            return None;
        }
        let shown = [RecordKind::Transition, RecordKind::Connection].map(|kind| kinds.contains(kind));
        match shown {
            [true, false] | [false, true] => None,
            [true, true] => Some(format!(
                "the format {} has either transitions or connections, and the kinds of records have both",
                self.name
            )),
            [false, false] => Some(format!(
                "the format {} has either transitions or connections, and the kinds of records have neither",
                self.name
            )),
        }
    }
}

/// What a format writes for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A JSON object in one line.
    Json,
    /// A line of text.
    Text,
    /// A line of text for a transition, or for a connection, and nothing for other records.
    OneKind,
}

/// What a format is made from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// sockstate's JSON, as it is.
    Json,
    /// A line of sockstate's JSON. A sink does this in its own thread.
    Lines(fn() -> Box<dyn LineFormat + Send>),
    /// A record.
    Records(fn(FormatOptions) -> Box<dyn Format>),
}
