//! Texts that repeat from record to record.

/// Texts that were written before, each in the slot of its number; a newer text takes an older one's slot.
pub(super) struct TextCache<K> {
    slots: Vec<(Option<K>, Vec<u8>)>,
}

impl<K: Clone + Eq> TextCache<K> {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: vec![(None, Vec::new()); slots] }
    }

    /// The text of `key`. `make` is not called again for the same key, so it may only use what the key identifies.
    pub(super) fn get(&mut self, number: u64, key: K, make: impl FnOnce(&K, &mut Vec<u8>)) -> &[u8] {
        let slot = number as usize % self.slots.len();
        let (owner, text) = &mut self.slots[slot];
        if owner.as_ref() != Some(&key) {
            text.clear();
            make(&key, text);
            *owner = Some(key);
        }
        text
    }

    /// The text of `key`, if it was written before and is still kept.
    pub(super) fn known(&self, number: u64, key: &K) -> Option<&[u8]> {
        let (owner, text) = &self.slots[number as usize % self.slots.len()];
        (owner.as_ref() == Some(key)).then_some(text)
    }
}
