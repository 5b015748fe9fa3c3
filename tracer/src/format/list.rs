//! The formats that a stream can be written in.

use super::{Csv, EscapedCsv, Format, Json, OfRecords, Table, ecs::Ecs, otlp::Otlp, syslog::Syslog};

/// What a format is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatOptions {
    /// Whether the formats for people have colours.
    pub colour: bool,
    /// The width of the terminal that shows the output; `None` if no terminal does.
    pub width: Option<usize>,
    /// In CSV, no cell begins like a formula.
    pub escape_formulas: bool,
}

/// A format by its name.
#[derive(Clone, Copy, Debug)]
pub struct FormatName {
    /// The name for users.
    pub name: &'static str,
    /// Its description in one line, for help texts.
    pub help: &'static str,
    make: fn(FormatOptions) -> Box<dyn Format>,
}

impl FormatName {
    /// All formats.
    pub const ALL: [Self; 6] = [
        Self {
            name: "table",
            help: "A table for people",
            make: |options| Box::new(Table::new(options.colour, options.width)),
        },
        Self {
            name: "json",
            help: "One JSON object per line (docs/events.md)",
            make: |_| Box::new(Json::default()),
        },
        Self {
            name: "csv",
            help: "CSV with the header and columns of bcc's tcpstates",
            make: |options| if options.escape_formulas { Box::new(EscapedCsv) } else { Box::new(Csv) },
        },
        Self {
            name: "ecs",
            help: "Elastic Common Schema, one JSON object per line",
            make: |_| Box::new(OfRecords::new(Ecs)),
        },
        Self {
            name: "otlp",
            help: "OpenTelemetry's log data model as JSON, one log record per line",
            make: |_| Box::new(OfRecords::new(Otlp)),
        },
        Self {
            name: "syslog",
            help: "Messages of RFC 5424, one per line",
            make: |_| Box::new(OfRecords::new(Syslog::of_stream())),
        },
    ];

    /// The format for people where they look at it, else the one for programs.
    #[must_use]
    pub fn default(is_terminal: bool) -> Self {
        let [table, json, ..] = Self::ALL;
        if is_terminal { table } else { json }
    }

    /// A writer of the format.
    #[must_use]
    pub fn make(&self, options: FormatOptions) -> Box<dyn Format> {
        (self.make)(options)
    }
}

impl PartialEq for FormatName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
