//! One line of what is wrong, with what it costs and what to do.

use std::fmt;

use serde_json::{Value, json};

/// Something that does not work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    what: String,
    /// What is missing because of it.
    cost: String,
    /// What the user can do; empty if nothing is known.
    todo: String,
}

impl Finding {
    pub(super) fn new(what: impl Into<String>, cost: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { what: what.into(), cost: cost.into(), todo: todo.into() }
    }

    pub(super) fn json(&self) -> Value {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        json!({"what": self.what, "cost": text(&self.cost), "todo": text(&self.todo)})
    }

    /// What to do, with the reason.
    pub(super) fn advice(&self) -> Option<String> {
        (!self.todo.is_empty()).then(|| format!("{}: {}", self.what, self.todo))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)?;
        if !self.cost.is_empty() {
            write!(out, ": {}", self.cost)?;
        }
        if !self.todo.is_empty() {
            write!(out, "; {}", self.todo)?;
        }
        Ok(())
    }
}
