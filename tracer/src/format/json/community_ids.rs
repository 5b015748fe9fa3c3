//! The community ids of the last connections: a hash for each, which both ends of a connection on one host share, and which
//! each change of the owner writes again.

use crate::{model::Tuple, wire};

/// The slots; a connection takes the slot of an earlier one.
const SLOTS: usize = 256;

/// Community ids by both ends.
pub(super) struct CommunityIds {
    slots: Vec<Option<(Tuple, [u8; 30])>>,
}

impl Default for CommunityIds {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS] }
    }
}

impl CommunityIds {
    /// The community id of a complete tuple.
    pub(super) fn get(&mut self, tuple: &Tuple) -> &[u8; 30] {
        // Both ends have the same slot.
        let number = usize::from(tuple.local_port) + usize::from(tuple.remote_port);
        let slot = &mut self.slots[number % SLOTS];
        let known = slot.take().filter(|(known, _)| is_one_connection(known, tuple));
        &slot.insert(known.unwrap_or_else(|| (*tuple, wire::community_id(tuple)))).1
    }
}

/// Whether both are the same end of a connection, or its two ends. The community id has neither the interface nor the family.
fn is_one_connection(one: &Tuple, other: &Tuple) -> bool {
    let ends = |tuple: &Tuple| ((tuple.local, tuple.local_port), (tuple.remote, tuple.remote_port));
    let ((local, remote), ends) = (ends(one), ends(other));
    ends == (local, remote) || ends == (remote, local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_slot_keep_their_own_ids() {
        let mut ids = CommunityIds::default();
        let tuple = |local_port, remote_port| Tuple { local_port, remote_port, ..Tuple::example() };
        for one in [tuple(80, 4000), tuple(4000, 80), tuple(81, 3999), tuple(80, 4000), tuple(4000, 80)] {
            assert_eq!(*ids.get(&one), wire::community_id(&one), "{one:?}");
        }
    }
}
