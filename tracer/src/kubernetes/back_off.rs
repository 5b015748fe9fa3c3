//! How long to wait before the next attempt.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Doubles the time with each failure. Half of the time is random, so that the nodes of a cluster do not ask together.
#[derive(Debug)]
pub(super) struct BackOff {
    next: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { next: SHORTEST }
    }
}

impl BackOff {
    /// After a success, the next failure is the first one.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The time to wait now, which is at least `least`.
    pub(super) fn wait(&mut self, least: Option<Duration>) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(LONGEST);
        let wait = most / 2 + most.mul_f64(random()) / 2;
        wait.max(least.unwrap_or_default().min(LONGEST))
    }
}

/// A number between 0 and 1; 1 if the kernel has none.
pub(super) fn random() -> f64 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_doubles_up_to_a_limit_and_begins_again() {
        let mut back_off = BackOff::default();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let most = Duration::from_secs(seconds);
            let wait = back_off.wait(None);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
        }
        back_off.reset();
        assert!(back_off.wait(None) <= SHORTEST);
        assert_eq!(back_off.wait(Some(Duration::from_secs(30))), Duration::from_secs(30));
        assert_eq!(back_off.wait(Some(Duration::from_secs(3600))), LONGEST);
    }
}
