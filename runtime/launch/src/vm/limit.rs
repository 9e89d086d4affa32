//! How many lines a guest may say: a burst, and then so many a second. What is above that is counted, and the count is said.

use std::time::{Duration, Instant};

/// Lines that may come at once.
pub const LINES_AT_ONCE: u32 = 200;
/// Lines a second after that.
pub const LINES_A_SECOND: u32 = 50;
/// Between two words about lines that were left out.
const BETWEEN_COUNTS: Duration = Duration::from_secs(1);

/// A bucket of lines, filled by time.
#[derive(Debug)]
pub(super) struct Limit {
    room: f64,
    filled: Instant,
    left_out: u64,
    counted: Instant,
}

/// What to do with a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Passed on; so many before it, which nobody was told of yet, were not.
    Said {
        /// To be told first, if not zero.
        left_out: u64,
    },
    /// Counted, not passed on.
    LeftOut,
}

impl Limit {
    pub(super) fn new(now: Instant) -> Self {
        Self { room: f64::from(LINES_AT_ONCE), filled: now, left_out: 0, counted: now }
    }

    /// Judges a line that comes at `now`, which never goes back.
    pub(super) fn judge(&mut self, now: Instant) -> Verdict {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.room = (self.room + passed * f64::from(LINES_A_SECOND)).min(f64::from(LINES_AT_ONCE));
        self.filled = now;
        if self.room < 1.0 {
            self.left_out += 1;
            return Verdict::LeftOut;
        }
        self.room -= 1.0;
        let left_out = match now.saturating_duration_since(self.counted) >= BETWEEN_COUNTS {
            true => self.count(now),
            false => 0,
        };
        Verdict::Said { left_out }
    }

    /// Lines left out that nobody was told of yet.
    pub(super) fn count(&mut self, now: Instant) -> u64 {
        if self.left_out > 0 {
            self.counted = now;
        }
        std::mem::take(&mut self.left_out)
    }
}

/// The count in words.
pub(super) fn words(left_out: u64) -> String {
    format!("({left_out} lines left out: more than {LINES_A_SECOND} a second)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let said = |limit: &mut Limit, at: u64, lines: u32| {
            let now = start + Duration::from_millis(at);
            (0..lines).filter(|_| limit.judge(now) != Verdict::LeftOut).count()
        };
        assert_eq!(said(&mut limit, 0, 1000), 200);
        assert_eq!(said(&mut limit, 100, 1000), 5);
        assert_eq!(said(&mut limit, 1100, 1000), 50);
        assert_eq!(said(&mut limit, 3_600_000, 1000), 200, "an hour fills no more than the bucket");
    }

    #[test]
    fn every_line_is_said_or_counted_and_counts_come_once_a_second() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let (mut said, mut told, mut counts) = (0_u64, 0_u64, 0);
        for millisecond in 0..10_000 {
            match limit.judge(start + Duration::from_millis(millisecond)) {
                Verdict::LeftOut => {}
                Verdict::Said { left_out } => {
                    said += 1;
                    told += left_out;
                    counts += u32::from(left_out > 0);
                }
            }
        }
        told += limit.count(start + Duration::from_secs(10));
        assert_eq!(said + told, 10_000);
        assert!((690..=710).contains(&said), "200 and ten seconds of 50: {said}");
        assert!((8..=10).contains(&counts), "{counts}");
    }

    #[test]
    fn a_clock_that_stands_still_does_no_harm() {
        let now = Instant::now();
        let mut limit = Limit::new(now + Duration::from_secs(5));
        assert_eq!(limit.judge(now), Verdict::Said { left_out: 0 });
    }
}
