//! Reads the output of `sockstate hunt --format json`.

use std::{collections::HashMap, net::IpAddr, path::Path, sync::Arc};

use thiserror::Error;

use super::{Recording, recording::RecordingError};
use crate::{
    model::{Frame, MissingStack, Stack, Tuple},
    wire::{self, Kind, Line, Opened, named},
};

/// Limit of memory, above the needs of any hunt, which keeps at most 16,384 call paths.
const MAX_BYTES: usize = 256 << 20;

/// A connection by its namespace, the interface that it is bound to, and its ends, local first.
type ConnectionKey = (u32, u32, (IpAddr, u16), (IpAddr, u16));

/// Why the file cannot be read.
#[derive(Debug, Error)]
pub enum OpeningsError {
    #[error(transparent)]
    Read(#[from] RecordingError),
    /// A line that is not a record of a hunt. The last line may be incomplete.
    #[error("{path}, line {line}: not a record of `sockstate hunt --format json`")]
    Line {
        /// Name of the file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
    },
    /// The file exceeds the memory limit.
    #[error("{path}, line {line}: more connections and call paths than fit into {} MiB; give the file of one hunt", MAX_BYTES >> 20)]
    Large {
        /// Name of the file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
    },
}

/// The call path that opened each connection, or why it is not known.
#[derive(Debug, Default)]
pub struct Openings {
    connections: HashMap<ConnectionKey, Result<Arc<Stack>, MissingStack>>,
    /// By id: many connections share a call path.
    stacks: HashMap<u64, Arc<Stack>>,
    /// Bytes of memory of the stacks.
    bytes: usize,
}

impl Openings {
    /// Reads the JSON lines of a hunt, also of one that still runs.
    ///
    /// # Errors
    /// The file cannot be read, or is not the output of a hunt.
    pub fn read(path: &Path) -> Result<Self, OpeningsError> {
        let mut found = Self::default();
        let mut recording = Recording::open(path)?;
        let mut text = Vec::new();
        while recording.next(&mut text)? {
            let (path, line) = (recording.name().to_owned(), recording.line());
            let Ok(record) = Line::read(&text) else { return Err(OpeningsError::Line { path, line }) };
            if let Kind::Stuck(stuck) = &record.kind {
                found.add(stuck);
            }
            if found.bytes + found.connections.len() * CONNECTION_BYTES > MAX_BYTES {
                return Err(OpeningsError::Large { path, line });
            }
        }
        Ok(found)
    }

    fn add(&mut self, stuck: &wire::Stuck<'_>) {
        let stack = stuck.opened.as_ref().and_then(Opened::stack);
        let opened = stack.map(Ok).or_else(|| Some(Err(named(stuck.opening.as_deref()?)?)));
        let (Some(place), Some(opened)) = (place(stuck), opened) else { return };
        let opened = opened.map(|stack| {
            let known = self.stacks.entry(stack.id).or_insert_with(|| {
                self.bytes += bytes(&stack);
                Arc::new(stack)
            });
            Arc::clone(known)
        });
        self.connections.insert(place, opened);
    }

    /// The call path that opened this connection, or why the hunt does not know it; `None` if the hunt has not reported it.
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

/// Approximate memory for a connection.
const CONNECTION_BYTES: usize = 2 * size_of::<(ConnectionKey, Result<Arc<Stack>, MissingStack>)>();

/// Approximate memory for a call path.
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

fn place(stuck: &wire::Stuck<'_>) -> Option<ConnectionKey> {
    let tuple = stuck.socket.ends.tuple()?;
    let is_complete = tuple.is_complete();
    let netns = stuck.socket.subject.placement.netns.filter(|_| is_complete)?;
    let local = (tuple.local.canonical(), tuple.local_port);
    Some((netns, tuple.interface, local, (tuple.remote.canonical(), tuple.remote_port)))
}
