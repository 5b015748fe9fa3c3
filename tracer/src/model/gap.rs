//! What a look at all sockets could not see.

use std::fmt;

/// Something that a look could not see. What it did not find there may exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub kind: GapKind,
    /// Why, and what to do, in a sentence.
    pub why: String,
}

impl Gap {
    #[must_use]
    pub fn new(kind: GapKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.why)
    }
}

/// What a [`Gap`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapKind {
    /// /proc does not show every process of the host.
    Processes,
    /// The descriptors of some processes cannot be read.
    Descriptors,
    /// A network namespace may exist that was not found, or one could not be looked into.
    NetworkNamespaces,
    /// Sockets whose network namespace cannot be entered, or is not known.
    Sockets,
}

impl GapKind {
    /// The name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Descriptors => "descriptors",
            Self::NetworkNamespaces => "network_namespaces",
            Self::Sockets => "sockets",
        }
    }
}
