//! How formats are made.

use super::{
    Format, FormatName, FormatOptions, Json, OfRecords, Stamp, json, lines::convert, name::Source, table,
};

impl FormatName {
    /// The format for people where they look at it, else the one for programs.
    #[must_use]
    pub fn default(is_terminal: bool) -> Self {
        if is_terminal { table::FORMAT } else { json::FORMAT }
    }

    /// A writer of the format.
    #[must_use]
    pub fn make(&self, options: FormatOptions) -> Box<dyn Format> {
        match self.source {
            Source::Json => Box::new(Json::default().sampled(options.sample)),
            Source::Lines(make) => Box::new(OfRecords::new(make(), options.sample)),
            Source::Records(make) => make(options),
        }
    }

    /// A writer for the thread that makes records for a sink: of the format if it is made from records, otherwise of
    /// JSON, which is fast.
    #[must_use]
    pub fn make_for_sink(&self, options: FormatOptions, stamp: &Stamp<'_>) -> Box<dyn Format> {
        match self.source {
            Source::Json | Source::Lines(_) => Box::new(Json::stamped(stamp).sampled(options.sample)),
            Source::Records(make) => make(options),
        }
    }

    /// Converts a line of JSON in the thread of a sink; `None` if [`FormatName::make_for_sink`] writes the format.
    #[must_use]
    pub fn converter(&self) -> Option<impl FnMut(&[u8], &mut Vec<u8>) + Send + use<>> {
        let Source::Lines(make) = self.source else { return None };
        let mut format = make();
        Some(move |text: &[u8], out: &mut Vec<u8>| convert(&mut *format, text, out))
    }
}
