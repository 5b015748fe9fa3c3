//! Gives up capabilities.

use caps::{CapSet, errors::CapsError};

/// Gives up all capabilities of this thread. The ambient ones go with the others.
///
/// # Errors
/// The system refuses, and the thread may still have some.
pub fn give_up_all() -> Result<(), CapsError> {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        // A filter of system calls may refuse a change, also where nothing changes.
        if !caps::read(None, set)?.is_empty() {
            caps::clear(None, set)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_none_afterwards() {
        let held = std::thread::spawn(|| {
            give_up_all().expect("every thread may");
            [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable]
                .map(|set| caps::read(None, set).expect("capabilities"))
        });
        assert!(held.join().expect("a thread").iter().all(|set| set.is_empty()));
    }
}
