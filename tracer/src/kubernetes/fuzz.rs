//! Fuzz target: what an API server sends.

use super::{
    lines::{Line, Lines},
    objects::{List, Object, WatchEvent},
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
            object(&event.object);
        }
    }
    if let Ok(list) = serde_json::from_slice::<List>(bytes) {
        list.items.iter().for_each(object);
    }
}

fn object(object: &Object) {
    let (pods, services) = (object.pod_addresses(), object.service_addresses());
    assert!([pods, services].iter().all(|addresses| addresses.is_sorted()));
    let pod = &object.metadata;
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
