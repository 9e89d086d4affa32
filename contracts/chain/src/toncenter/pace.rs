//! How fast and how often an endpoint is asked: a token bucket, and waits that grow and are not the same everywhere.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The wait before the second round, doubled before each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(150);
/// The longest wait between rounds.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A client-side limit: so many requests a second, and after a pause as many at once. Whoever waits is served in order.
pub(crate) struct TokenBucket {
    interval: Duration,
    burst: u32,
    /// When the bucket would be full if nobody asked again.
    full_at: Mutex<Option<Instant>>,
}

impl TokenBucket {
    /// At least one a second.
    pub(crate) fn per_second(rate: u32) -> Self {
        let rate = rate.max(1);
        Self { interval: Duration::from_secs(1) / rate, burst: rate, full_at: Mutex::new(None) }
    }

    /// Takes the next token and says how long to wait before using it; takes none, and says when there is one, if that
    /// is not before `deadline`.
    pub(crate) fn take(&self, now: Instant, deadline: Instant) -> Result<Duration, Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let base = full_at.map_or(now, |at| at.max(now));
        let capacity = self.interval * (self.burst - 1);
        let ready = base.checked_sub(capacity).map_or(now, |at| at.max(now));
        let wait = ready - now;
        if ready >= deadline {
            return Err(wait);
        }
        *full_at = Some(base + self.interval);
        Ok(wait)
    }
}

/// Where chance comes from: any `u64`, all as likely.
pub(crate) type Jitter = Box<dyn Fn() -> u64 + Send + Sync>;

/// Chance of this process. It spreads clients out and is no secret.
pub(crate) fn process_jitter() -> Jitter {
    Box::new(|| RandomState::new().build_hasher().finish())
}

/// Waits that double, each between a half and the whole of its step, so that clients of a service that comes back do not
/// all come back in the same moment.
pub(crate) struct Backoff {
    step: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { step: FIRST_BACKOFF }
    }

    pub(crate) fn next(&mut self, jitter: &Jitter) -> Duration {
        let half = self.step / 2;
        let share = u32::try_from(jitter() >> 48).expect("16 bits");
        self.step = (self.step * 2).min(MAX_BACKOFF);
        half + half * share / 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_rate_after_its_burst_and_nothing_past_the_deadline() {
        let start = Instant::now();
        let bucket = TokenBucket::per_second(2);
        let far = start + Duration::from_secs(60);
        let waits: Vec<_> = (0..4).map(|_| bucket.take(start, far).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 0, 500, 1000]);
        assert_eq!(bucket.take(start, start + Duration::from_millis(1500)), Err(Duration::from_millis(1500)));
        assert_eq!(bucket.take(start, far).unwrap().as_millis(), 1500, "a refusal took a token");
        let later = start + Duration::from_secs(30);
        assert_eq!(bucket.take(later, far).unwrap(), Duration::ZERO);
    }

    #[test]
    fn waits_double_within_their_bounds() {
        for chance in [0, u64::MAX / 3, u64::MAX] {
            let jitter: Jitter = Box::new(move || chance);
            let mut backoff = Backoff::new();
            let mut step = FIRST_BACKOFF;
            for _ in 0..10 {
                let wait = backoff.next(&jitter);
                assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
                step = (step * 2).min(MAX_BACKOFF);
            }
        }
    }
}
