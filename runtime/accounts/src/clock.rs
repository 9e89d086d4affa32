//! The wall clock of a process: the machine's, unless a simulation of many processes in one gives each its own.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// A source of Unix time, in seconds.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

tokio::task_local! {
    static OF_THIS_PROCESS: WallClock;
}

/// The present time in Unix seconds; a clock before 1970 is second 0.
pub fn unix_seconds() -> u64 {
    OF_THIS_PROCESS.try_with(|clock| clock()).unwrap_or_else(|_| machine())
}

/// Runs a future with a wall clock of its own. What it spawns has the machine's again.
pub async fn with_clock<F: Future>(clock: WallClock, future: F) -> F::Output {
    OF_THIS_PROCESS.scope(clock, future).await
}

fn machine() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_counts_inside_its_future_and_nowhere_else() {
        assert_eq!(with_clock(Arc::new(|| 7), async { unix_seconds() }).await, 7);
        assert!(unix_seconds() > 1_700_000_000);
    }
}
