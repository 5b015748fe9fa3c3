//! Fuzz target: what an API server sends.

use super::{
    lines::{Line, Lines},
    objects::{List, Metadata, WatchEvent},
};
use crate::model::bounds;

const MOST: usize = 64 << 10;

/// A watch that comes in pieces, and the same bytes as a list.
pub(crate) fn watch(bytes: &[u8]) {
    let mut lines = Lines::new(MOST);
    for line in bytes.chunks(7).flat_map(|piece| lines.add(piece)) {
        let Line::Complete(line) = line else { continue };
        assert!(line.len() <= MOST);
        if let Ok(event) = serde_json::from_slice::<WatchEvent>(&line) {
            pod(&event.object.metadata);
        }
    }
    if let Ok(list) = serde_json::from_slice::<List>(bytes) {
        list.items.iter().for_each(|object| pod(&object.metadata));
    }
}

fn pod(pod: &Metadata) {
    if let Some(owner) = pod.controller()
        && let Some(found) = pod.deployment_of(&owner.name)
    {
        assert!(found.name.len() + 1 < owner.name.len() && owner.name.starts_with(&found.name));
    }
    let labels = bounds::labels(pod.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    assert!(labels.len() <= bounds::LABELS.items);
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes <= bounds::LABELS.bytes);
}
