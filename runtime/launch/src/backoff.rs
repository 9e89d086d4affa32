//! Pauses between starts of something that keeps ending.

use std::time::Duration;

/// Doubling pauses, from a first to a longest; a run that lived long enough starts them over.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    stable: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`; a run of more than `stable` starts them over.
    pub fn new(first: Duration, longest: Duration, stable: Duration) -> Self {
        Self { first, longest, stable, next: first.min(longest) }
    }

    /// How long to wait before the next start, after a run that lived for `lived`.
    pub fn pause(&mut self, lived: Duration) -> Duration {
        if lived > self.stable {
            self.next = self.first.min(self.longest);
        }
        let now = self.next;
        self.next = now.saturating_mul(2).min(self.longest);
        now
    }
}

impl Default for Backoff {
    /// A guest's: half a second to 30 s; a minute of life starts over.
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30), Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_long_life() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second, 10 * second);
        let pauses: Vec<u64> = (0..5).map(|_| backoff.pause(second).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.pause(10 * second), 5 * second, "just not long enough");
        assert_eq!(backoff.pause(11 * second), second);
        assert_eq!(Backoff::new(9 * second, second, second).pause(second), second);
    }
}
