//! Who says what time it is.
//!
//! The ledger itself has no clock: each block gets its time from whoever makes it. A [`Server`](crate::Server) asks a
//! [`Clock`], which is the machine's unless a test or a developer holds it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::SystemTime;

/// The furthest that one step may go: ten years, in seconds. Enough for rent, and far from the end of 32 bits.
pub const MAX_ADVANCE: u32 = 10 * 365 * 24 * 3600;

/// A source of Unix time in seconds, which can be moved forward where that was allowed.
pub struct Clock {
    source: Box<dyn Fn() -> u32 + Send + Sync>,
    ahead: AtomicU32,
    adjustable: AtomicBool,
}

/// Why a clock was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// Nobody allowed it.
    #[error("this ledger's clock is the machine's: start it with --adjustable-clock to move it")]
    Fixed,
    /// Too far.
    #[error("a clock is moved by 1 to {MAX_ADVANCE} seconds at once, and not beyond the year 2106")]
    TooFar,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::of(Box::new(system_time))
    }

    /// Another source of Unix time in seconds.
    pub fn of(source: Box<dyn Fn() -> u32 + Send + Sync>) -> Self {
        Self { source, ahead: AtomicU32::new(0), adjustable: AtomicBool::new(false) }
    }

    /// Allows [`Clock::advance`]. A ledger whose newest block is at `head` goes on from there: what was once moved
    /// forward does not stand still until the machine's clock has caught up.
    pub fn allow_advance(&self, head: u32) {
        self.adjustable.store(true, Ordering::Relaxed);
        self.ahead.fetch_max(head.saturating_sub((self.source)()), Ordering::Relaxed);
    }

    /// The time now, Unix time in seconds.
    pub fn now(&self) -> u32 {
        (self.source)().saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    /// Moves the clock forward and says the time it shows then.
    ///
    /// # Errors
    /// It is not adjustable, or `seconds` is not from 1 to [`MAX_ADVANCE`].
    pub fn advance(&self, seconds: u32) -> Result<u32, ClockError> {
        if !self.adjustable.load(Ordering::Relaxed) {
            return Err(ClockError::Fixed);
        }
        if seconds == 0 || seconds > MAX_ADVANCE || self.now().checked_add(seconds).is_none() {
            return Err(ClockError::TooFar);
        }
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
        Ok(self.now())
    }
}

fn system_time() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_adjustable_clock_moves_and_only_forward() {
        let clock = Clock::of(Box::new(|| 1000));
        assert_eq!(clock.advance(1), Err(ClockError::Fixed));
        clock.allow_advance(1500);
        assert_eq!(clock.now(), 1500, "goes on from the newest block");
        assert_eq!(clock.advance(0), Err(ClockError::TooFar));
        assert_eq!(clock.advance(MAX_ADVANCE + 1), Err(ClockError::TooFar));
        assert_eq!(clock.advance(100), Ok(1600));
        assert_eq!(clock.now(), 1600);
        let late = Clock::of(Box::new(|| u32::MAX - 5));
        late.allow_advance(0);
        assert_eq!(late.advance(6), Err(ClockError::TooFar));
        assert_eq!(late.advance(5), Ok(u32::MAX));
    }
}
