//! Formats that are converted from sockstate's JSON lines: from those that the tracer makes now, and, in a sink's
//! thread, from those that wait in its queue or its spool.

use super::{Format, Json};
use crate::{
    model::Record,
    wire::{Line, Stamp},
};

/// A format that is made from lines.
pub trait LineFormat {
    /// Whether the format contains the JSON of a line.
    fn has_json(&self) -> bool {
        false
    }

    /// Appends a line; `text` is the line as JSON, or empty if the format does not contain it.
    fn line(&mut self, line: &Line<'_>, text: &[u8], out: &mut Vec<u8>);
}

/// Appends a line that is given as text. A text that is not a line of sockstate is written as a record of an unknown
/// kind.
pub(super) fn convert(format: &mut (impl LineFormat + ?Sized), text: &[u8], out: &mut Vec<u8>) {
    format.line(&Line::read(text).unwrap_or_default(), text, out);
}

/// Writes records in a line format, for a stream whose records do not have the host.
pub(super) struct OfRecords {
    format: Box<dyn LineFormat + Send>,
    json: Json,
    stamp: Stamp<'static>,
    text: Vec<u8>,
}

impl OfRecords {
    /// Writes each record in `format`, of a stream that has one of `sample` connections.
    pub(super) fn new(format: Box<dyn LineFormat + Send>, sample: u64) -> Self {
        let stamp = Stamp { sample: Some(sample).filter(|sample| *sample > 1), ..Stamp::default() };
        Self { format, json: Json::default().sampled(sample), stamp, text: Vec::new() }
    }
}

impl Format for OfRecords {
    fn record(&mut self, seq: u64, record: &Record, out: &mut Vec<u8>) {
        if self.format.has_json() {
            self.text.clear();
            self.json.record(seq, record, &mut self.text);
        }
        self.format.line(&Line::of(seq, record, &self.stamp), &self.text, out);
    }

    fn is_of_lines(&self) -> bool {
        true
    }

    fn line(&mut self, _: &Record, text: &[u8], out: &mut Vec<u8>) {
        convert(&mut *self.format, text, out);
    }
}
