//! The keys that identify the stream of a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Text;
#[cfg(feature = "schema")]
use super::schema_types;

/// Identifies the host and the run of a line, for collectors that get the lines of several hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Stamp<'a> {
    /// The host. Only records of `sockstate run` have this key.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName<'a>>,
    /// The instance of the stream. Only records of `sockstate run` have this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<schema_types::Instance>"))]
    pub instance: Option<Text<'a>>,
    /// The stream has one of this many connections. Only the kinds that are sampled have the key.
    #[serde(skip)]
    pub sample: Option<u64>,
    /// The labels of the configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels<'a>,
}

/// The labels of the configuration.
pub type Labels<'a> = BTreeMap<Text<'a>, Text<'a>>;

/// The host that a record comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct HostName<'a> {
    /// The name of the host.
    #[serde(borrow)]
    pub name: Text<'a>,
}
