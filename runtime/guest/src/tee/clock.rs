//! Time for those who wait: real, or a test's.

use super::TeeError;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most attempts of one request, whatever the clock says.
const MAX_ATTEMPTS: u32 = 100;
/// No attempt begins later than this. The kernel itself may take 30 seconds for one.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause between attempts; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A monotonic clock that one can wait by.
pub(super) trait Clock: Send {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    /// Returns after that time.
    fn wait(&self, time: Duration);
}

/// The system's.
pub(super) struct Monotonic(Instant);

impl Monotonic {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// How an attempt failed.
pub(super) enum Trouble<E> {
    /// It may go better the next time; why it did not.
    Passing(String),
    /// It will not.
    Lasting(E),
}

/// The attempts are used up.
pub(super) struct GaveUp {
    /// How many there were.
    pub(super) attempts: u32,
    /// How long they took.
    pub(super) time: Duration,
    /// Why the last one failed.
    pub(super) last: String,
}

impl GaveUp {
    /// The error that says so of `path`.
    pub(super) fn at(self, path: PathBuf) -> TeeError {
        let Self { attempts, time, last } = self;
        TeeError::Contended { path, attempts, seconds: time.as_secs(), last }
    }
}

/// Attempts until one succeeds or fails for good, or time or number runs out.
pub(super) fn persist<T, E>(
    clock: &dyn Clock,
    mut attempt: impl FnMut() -> Result<T, Trouble<E>>,
    gave_up: impl FnOnce(GaveUp) -> E,
) -> Result<T, E> {
    let start = clock.now();
    let mut pause = FIRST_PAUSE;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let last = match attempt() {
            Ok(done) => return Ok(done),
            Err(Trouble::Lasting(error)) => return Err(error),
            Err(Trouble::Passing(why)) => why,
        };
        let time = clock.now().saturating_sub(start);
        if attempts == MAX_ATTEMPTS || time + pause > PATIENCE {
            return Err(gave_up(GaveUp { attempts, time, last }));
        }
        clock.wait(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::TestClock;
    use super::*;

    fn run(
        clock: &TestClock,
        mut attempt: impl FnMut(u32) -> Result<u32, Trouble<String>>,
    ) -> Result<u32, String> {
        let mut count = 0;
        persist(
            clock,
            || {
                count += 1;
                attempt(count)
            },
            |gave_up| format!("{} attempts: {}", gave_up.attempts, gave_up.last),
        )
    }

    #[test]
    fn what_passes_is_tried_again_and_what_lasts_is_not() {
        let clock = TestClock::default();
        let third = |count| if count < 3 { Err(Trouble::Passing("busy".into())) } else { Ok(count) };
        assert_eq!(run(&clock, third), Ok(3));
        assert_eq!(run(&clock, |count| Err(Trouble::Lasting(format!("no {count}")))), Err("no 1".into()));
    }

    #[test]
    fn attempts_end_when_time_or_their_number_does() {
        let clock = TestClock::default();
        let error = run(&clock, |_| Err(Trouble::Passing("busy".into()))).expect_err("always busy");
        assert!(error.ends_with("attempts: busy"), "{error}");
        assert!(clock.now() <= PATIENCE, "it waited {:?}", clock.now());
        // A clock that stands still.
        let clock = TestClock::stopped();
        let error = run(&clock, |_| Err(Trouble::Passing("busy".into()))).expect_err("always busy");
        assert_eq!(error, format!("{MAX_ATTEMPTS} attempts: busy"));
    }

    #[test]
    fn an_attempt_that_took_all_the_time_is_the_last() {
        let clock = TestClock::default();
        let error = run(&clock, |_| {
            clock.wait(PATIENCE);
            Err(Trouble::Passing("slow".into()))
        });
        assert_eq!(error, Err("1 attempts: slow".into()));
    }
}
