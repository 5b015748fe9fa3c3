//! What a record shows of long texts and lists, and how it says that there is more: its key `truncated`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Text;
use crate::model::bounds::{self, Cut, ListLimit};

/// What a record does not show all of.
#[derive(Debug, Default)]
pub(crate) struct Cuts(Vec<Cut>);

impl Cuts {
    /// Those that are known before the record is made.
    pub(crate) fn of(known: &[Cut]) -> Self {
        Self(known.to_vec())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a line says it.
    pub(crate) fn parts<'a>(&self) -> Vec<Part<'a>> {
        self.0.iter().map(|cut| Part { field: cut.field.into(), total: cut.total }).collect()
    }

    /// The part of a text that fits.
    pub(crate) fn text<'a>(&mut self, field: &'static str, text: &'a str, most: usize) -> &'a str {
        let (shown, is_all) = bounds::shown(text, most);
        if !is_all {
            self.add(Cut { field, total: None });
        }
        shown
    }

    /// The first of `items`, as many as `limit` allows. `make` turns an item into what is written.
    pub(crate) fn list<S, T: Serialize>(
        &mut self,
        field: &'static str,
        items: impl ExactSizeIterator<Item = S>,
        limit: ListLimit,
        make: impl Fn(S, &mut Self) -> T,
    ) -> Vec<T> {
        let total = items.len();
        let mut left = limit.bytes;
        let mut listed = Vec::new();
        for item in items.take(limit.items) {
            let mut cuts = Self::default();
            let item = make(item, &mut cuts);
            // A single item always fits: its own texts and lists have limits.
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

    /// Adds something that is not shown completely. Of several lists of one name the longest counts.
    pub(crate) fn add(&mut self, cut: Cut) {
        match self.0.iter_mut().find(|known| known.field == cut.field) {
            Some(known) => known.total = known.total.max(cut.total),
            None => self.0.push(cut),
        }
    }
}

/// A key of the record whose value is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Part<'a> {
    /// The key, such as `owner.cmdline`. `holders[].exe` is the key of one or more of the holders.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(min = 2)))]
    pub field: Text<'a>,
    /// The full number of items, only for a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub total: Option<usize>,
}

/// The key alone, for a line that is written in pieces.
#[derive(Serialize)]
pub(crate) struct Truncated<'a> {
    pub(crate) truncated: Vec<Part<'a>>,
}

/// How many bytes an item takes in the longest of the formats: OTLP's JSON, which writes each value's type.
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
