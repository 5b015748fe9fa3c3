//! What a record shows of long texts and lists, and how it says that there is more: its key `truncated`.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use crate::model::{
    bounds::{self, Cut, ListLimit},
    printable,
};

/// What a record does not show all of.
#[derive(Debug, Default)]
pub(super) struct Cuts(Vec<Cut>);

impl Cuts {
    /// Those that are known before the record is made.
    pub(super) fn of(known: &[Cut]) -> Self {
        Self(known.to_vec())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The part of a text that fits.
    pub(super) fn text<'a>(&mut self, field: &'static str, text: &'a str, most: usize) -> &'a str {
        let (shown, is_all) = bounds::shown(text, most);
        if !is_all {
            self.add(Cut { field, total: None });
        }
        shown
    }

    /// The first of some items, as many as there is room for. `make` makes of one what is written.
    pub(super) fn list<S, T: Serialize>(
        &mut self,
        field: &'static str,
        items: impl ExactSizeIterator<Item = S>,
        room: ListLimit,
        make: impl Fn(S, &mut Self) -> T,
    ) -> Vec<T> {
        let total = items.len();
        let mut left = room.bytes;
        let mut listed = Vec::new();
        for item in items.take(room.items) {
            let mut cuts = Self::default();
            let item = make(item, &mut cuts);
            // One fits into every room: its own texts and lists have bounds.
            if total > 1 {
                let Some(rest) = left.checked_sub(longest(&item)) else { break };
                left = rest;
            }
            listed.push(item);
            cuts.0.into_iter().for_each(|cut| self.add(cut));
        }
        if listed.len() < total {
            self.add(Cut { field, total: Some(total) });
        }
        listed
    }

    /// Something is not all there. Of several lists of one name the longest counts.
    pub(super) fn add(&mut self, cut: Cut) {
        match self.0.iter_mut().find(|known| known.field == cut.field) {
            Some(known) => known.total = known.total.max(cut.total),
            None => self.0.push(cut),
        }
    }
}

impl Serialize for Cuts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Entry))
    }
}

struct Entry<'a>(&'a Cut);

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("field", self.0.field)?;
        if let Some(total) = self.0.total {
            map.serialize_entry("total", &total)?;
        }
        map.end()
    }
}

/// A text of others for people, without what would command their terminal.
pub(super) fn readable(text: &str, most: usize) -> String {
    let (shown, is_all) = bounds::shown(text, most);
    printable(shown) + if is_all { "" } else { "..." }
}

/// How many bytes it takes in the longest of the formats: OTLP's JSON, which writes each value's type.
fn longest(item: &impl Serialize) -> usize {
    serde_json::to_value(item).map_or(0, |value| otlp_bytes(&value))
}

fn otlp_bytes(value: &Value) -> usize {
    /// Around the values of `{"kvlistValue":{"values":[]}}`, and around a value of one number, with a comma.
    const LIST: usize = 30;
    const NUMBER: usize = 40;
    /// `{"key":"","value":}` and a comma.
    const KEY: usize = 20;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => NUMBER,
        Value::String(_) => NUMBER / 2 + value.to_string().len(),
        Value::Array(items) => LIST + items.iter().map(otlp_bytes).sum::<usize>(),
        Value::Object(map) => {
            LIST + map.iter().map(|(key, value)| KEY + key.len() + otlp_bytes(value)).sum::<usize>()
        }
    }
}
