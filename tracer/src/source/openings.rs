//! What a hunt has written, read again.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
    net::IpAddr,
    path::Path,
};

use serde_json::Value;
use thiserror::Error;

use crate::model::{Frame, OpenedBy, Stack, Tuple, Unnamed, Unseen};

/// A connection by its namespace, the interface that it is bound to, and its ends, local first.
type Place = (u32, u32, (IpAddr, u16), (IpAddr, u16));

/// Why it cannot be read.
#[derive(Debug, Error)]
pub enum OpeningsError {
    /// The file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Its name.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A line that is not ours. The last one may be cut: it is being written.
    #[error("{path}, line {line}: not a record of `sockstate hunt --format json`")]
    Line {
        /// Its name.
        path: String,
        /// From 1.
        line: usize,
    },
}

/// Where connections were opened, or why that is not known.
#[derive(Debug, Default)]
pub struct Openings(HashMap<Place, Result<Stack, Unseen>>);

impl Openings {
    /// Reads the JSON lines of a hunt, also of one that still runs.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, OpeningsError> {
        let name = || path.display().to_string();
        let failed = |source| OpeningsError::Read { path: name(), source };
        let mut found = Self::default();
        let mut lines = BufReader::new(File::open(path).map_err(failed)?);
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            lines.read_until(b'\n', &mut text).map_err(failed)?;
            if text.last() != Some(&b'\n') {
                break;
            }
            let record: Value =
                serde_json::from_slice(&text).map_err(|_| OpeningsError::Line { path: name(), line })?;
            if record["schema"] != "sockstate/1" {
                return Err(OpeningsError::Line { path: name(), line });
            }
            let opened = stack(&record["opened"]).map(Ok).or_else(|| unseen(&record["opening"]).map(Err));
            if let (Some(place), Some(opened)) = (place(&record), opened) {
                found.0.insert(place, opened);
            }
        }
        Ok(found)
    }

    /// Where this connection was opened, or why the hunt does not know it; none where the hunt has not written of it.
    #[must_use]
    pub fn find(&self, netns: u32, tuple: &Tuple) -> Option<Result<&Stack, Unseen>> {
        let local = (tuple.local.canonical(), tuple.local_port);
        let found =
            self.0.get(&(netns, tuple.interface, local, (tuple.remote.canonical(), tuple.remote_port)));
        found.map(|opened| opened.as_ref().map_err(|why| *why))
    }
}

fn place(record: &Value) -> Option<Place> {
    let end = |it: &Value| {
        let port = u16::try_from(it["port"].as_u64()?).ok()?;
        Some((it["address"].as_str()?.parse().ok()?, port))
    };
    let netns = u32::try_from(record["netns"].as_u64()?).ok()?;
    let interface = record["interface"]["index"].as_u64().unwrap_or(0);
    Some((netns, u32::try_from(interface).ok()?, end(&record["local"])?, end(&record["remote"])?))
}

fn unseen(it: &Value) -> Option<Unseen> {
    Unseen::ALL.into_iter().find(|why| it == why.name())
}

fn stack(it: &Value) -> Option<Stack> {
    let text = |it: &Value| it.as_str().map(ToOwned::to_owned);
    let frame = |it: &Value| Frame {
        function: text(&it["function"]),
        file: text(&it["file"]),
        line: it["line"].as_u64().and_then(|line| u32::try_from(line).ok()),
        module: text(&it["module"]),
        offset: it["offset"].as_u64().unwrap_or(0),
        unnamed: Unnamed::ALL.into_iter().find(|why| it["unnamed"] == why.name()),
        interpreter: text(&it["interpreter"]),
        language: (it["language"] == "python").then_some("python"),
    };
    Some(Stack {
        id: u64::from_str_radix(it["path"].as_str()?, 16).ok()?,
        by: if it["by"] == OpenedBy::Connect.name() { OpenedBy::Connect } else { OpenedBy::Accept },
        comm: text(&it["comm"])?,
        frames: it["frames"].as_array()?.iter().map(frame).collect(),
        complete: it["complete"].as_bool()?,
    })
}
