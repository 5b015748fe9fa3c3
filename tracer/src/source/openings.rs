//! What a hunt has written, read again.

use std::{collections::HashMap, net::IpAddr, path::Path, sync::Arc};

use serde_json::Value;
use thiserror::Error;

use super::{Recording, recording::RecordingError};
use crate::model::{Frame, MissingStack, OpenedBy, Stack, Tuple, Unnamed, bounds};

/// More than any hunt finds: it remembers 16,384 call paths.
const MOST_BYTES: usize = 256 << 20;

/// A connection by its namespace, the interface that it is bound to, and its ends, local first.
type Place = (u32, u32, (IpAddr, u16), (IpAddr, u16));

/// Why it cannot be read.
#[derive(Debug, Error)]
pub enum OpeningsError {
    /// The file.
    #[error(transparent)]
    Read(#[from] RecordingError),
    /// A line that is not ours. The last one may be cut: it is being written.
    #[error("{path}, line {line}: not a record of `sockstate hunt --format json`")]
    Line {
        /// Its name.
        path: String,
        /// From 1.
        line: usize,
    },
    /// More than is kept.
    #[error("{path}, line {line}: more connections and call paths than fit into {} MiB; give the file of one hunt", MOST_BYTES >> 20)]
    Large {
        /// Its name.
        path: String,
        /// From 1.
        line: usize,
    },
}

/// Where connections were opened, or why that is not known.
#[derive(Debug, Default)]
pub struct Openings {
    connections: HashMap<Place, Result<Arc<Stack>, MissingStack>>,
    /// By their ids: most connections were opened at few places.
    stacks: HashMap<u64, Arc<Stack>>,
    /// What the stacks take.
    bytes: usize,
}

impl Openings {
    /// Reads the JSON lines of a hunt, also of one that still runs.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, OpeningsError> {
        let mut found = Self::default();
        let mut recording = Recording::open(path)?;
        let mut text = Vec::new();
        while recording.next(&mut text)? {
            let (path, line) = (recording.name().to_owned(), recording.line());
            let Some(record) = record(&text) else { return Err(OpeningsError::Line { path, line }) };
            found.add(&record);
            if found.bytes + found.connections.len() * CONNECTION_BYTES > MOST_BYTES {
                return Err(OpeningsError::Large { path, line });
            }
        }
        Ok(found)
    }

    fn add(&mut self, record: &Value) {
        let opened = stack(&record["opened"]).map(Ok).or_else(|| unseen(&record["opening"]).map(Err));
        let (Some(place), Some(opened)) = (place(record), opened) else { return };
        let opened = opened.map(|stack| {
            let known = self.stacks.entry(stack.id).or_insert_with(|| {
                self.bytes += bytes(&stack);
                Arc::new(stack)
            });
            Arc::clone(known)
        });
        self.connections.insert(place, opened);
    }

    /// Where this connection was opened, or why the hunt does not know it; none where the hunt has not written of it.
    #[must_use]
    pub fn find(&self, netns: u32, tuple: &Tuple) -> Option<Result<&Stack, MissingStack>> {
        let local = (tuple.local.canonical(), tuple.local_port);
        let found = self.connections.get(&(
            netns,
            tuple.interface,
            local,
            (tuple.remote.canonical(), tuple.remote_port),
        ));
        found.map(|opened| opened.as_deref().map_err(|why| *why))
    }
}

/// Of memory, for a connection.
const CONNECTION_BYTES: usize = 2 * size_of::<(Place, Result<Arc<Stack>, MissingStack>)>();

/// Of memory, for a call path.
fn bytes(stack: &Stack) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let frame = |frame: &Frame| {
        size_of::<Frame>()
            + text(&frame.function)
            + text(&frame.file)
            + text(&frame.module)
            + text(&frame.interpreter)
    };
    size_of::<Stack>() + stack.frames.iter().map(frame).sum::<usize>()
}

fn record(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok().filter(|record: &Value| record["schema"] == "sockstate/1")
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

fn unseen(it: &Value) -> Option<MissingStack> {
    MissingStack::ALL.into_iter().find(|why| it == why.name())
}

fn stack(it: &Value) -> Option<Stack> {
    let text = |it: &Value, most| it.as_str().map(|text| bounds::kept(text, most).to_owned());
    let frame = |it: &Value| Frame {
        function: text(&it["function"], bounds::FUNCTION),
        file: text(&it["file"], bounds::PATH),
        line: it["line"].as_u64().and_then(|line| u32::try_from(line).ok()),
        module: text(&it["module"], bounds::PATH),
        offset: it["offset"].as_u64().unwrap_or(0),
        unnamed: Unnamed::ALL.into_iter().find(|why| it["unnamed"] == why.name()),
        interpreter: text(&it["interpreter"], bounds::NAME),
        language: (it["language"] == "python").then_some("python"),
    };
    Some(Stack {
        id: u64::from_str_radix(it["path"].as_str()?, 16).ok()?,
        by: if it["by"] == OpenedBy::Connect.name() { OpenedBy::Connect } else { OpenedBy::Accept },
        comm: text(&it["comm"], bounds::NAME)?,
        frames: it["frames"].as_array()?.iter().take(bounds::FRAMES.items).map(frame).collect(),
        complete: it["complete"].as_bool()?,
    })
}
