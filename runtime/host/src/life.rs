//! What became of the guest: for `cocoon host status`, and for whoever reads the log. Counts, times and names; no content.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cocoon_launch::vm::{LineSink, resident_bytes};

/// Steps of a boot that are kept.
const MAX_PHASES: usize = 64;
/// Longest name of a step; what a guest calls otherwise is no step.
const MAX_PHASE_NAME: usize = 32;
/// Most characters kept of how a run ended: it may quote the guest.
const MAX_LAST_END: usize = 512;

/// A step of a boot, as the guest or the host saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPhase {
    /// Which.
    pub name: String,
    /// Milliseconds since the guest was started.
    pub after_ms: u64,
}

/// What a guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestPhase {
    /// It is started, and has not made evidence yet.
    #[default]
    Booting,
    /// It serves.
    Serving,
    /// It ended, and is started again after a pause.
    Waiting,
    /// It ends, and is not started again.
    Ending,
}

/// How a guest is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What it does.
    pub phase: GuestPhase,
    /// The process that runs it.
    pub pid: Option<u32>,
    /// How long this run has lasted.
    pub uptime: Option<Duration>,
    /// How often it was started again.
    pub restarts: u64,
    /// How the run before ended.
    pub last_end: Option<String>,
    /// Requests that were handed to it.
    pub served: u64,
    /// Memory that it takes on this host, in bytes.
    pub resident_bytes: Option<u64>,
    /// The guest's memory as it said when it was idle: all of it and what was free, in KiB.
    pub idle_memory_kib: Option<(u64, u64)>,
    /// The steps of its newest boot.
    pub boot: Vec<BootPhase>,
}

/// Shared by all who see a part of the guest's life.
#[derive(Clone)]
pub(crate) struct Life {
    state: Arc<Mutex<State>>,
    served: Arc<AtomicU64>,
    log: LineSink,
}

#[derive(Default)]
struct State {
    health: Health,
    began: Option<Instant>,
}

impl Life {
    /// What happens is written to `log` too.
    pub(crate) fn new(log: LineSink) -> Self {
        Self { state: Arc::default(), served: Arc::default(), log }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of the guest: its phases are kept, and all of it goes to the log.
    pub(crate) fn line(&self, line: &str) {
        if let Some(told) = line.strip_prefix("init: memory ") {
            self.state().health.idle_memory_kib = pair(told);
        } else if let Some(phase) = phase(line) {
            self.reached(phase);
        }
        (self.log)(line);
    }

    pub(crate) fn begins(&self) {
        let mut state = self.state();
        state.began = Some(Instant::now());
        state.health.phase = GuestPhase::Booting;
        state.health.boot.clear();
        state.health.idle_memory_kib = None;
    }

    /// A step of the boot is done.
    pub(crate) fn reached(&self, name: &str) {
        let mut state = self.state();
        let Some(began) = state.began else { return };
        if state.health.boot.len() < MAX_PHASES {
            let after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            state.health.boot.push(BootPhase { name: name.to_owned(), after_ms });
        }
    }

    pub(crate) fn serves(&self, pid: Option<u32>) {
        let mut state = self.state();
        state.health.phase = GuestPhase::Serving;
        state.health.pid = pid;
    }

    pub(crate) fn ended(&self, how: &str) {
        (self.log)(&format!("the guest {how}; it is started again with new keys"));
        let mut state = self.state();
        state.began = None;
        state.health.pid = None;
        state.health.phase = GuestPhase::Waiting;
        state.health.restarts += 1;
        state.health.last_end = Some(how.chars().take(MAX_LAST_END).collect());
    }

    pub(crate) fn ending(&self) {
        self.state().health.phase = GuestPhase::Ending;
    }

    pub(crate) fn handed_over(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.state();
        let mut health = state.health.clone();
        health.uptime = state.began.map(|began| began.elapsed());
        drop(state);
        health.served = self.served.load(Ordering::Relaxed);
        health.resident_bytes = health.pid.and_then(resident_bytes);
        health
    }
}

/// The phase of a line `init: PHASE MILLISECONDS`.
fn phase(line: &str) -> Option<&str> {
    let (phase, number) = line.strip_prefix("init: ")?.rsplit_once(' ')?;
    let plain = phase.len() <= MAX_PHASE_NAME && phase.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    (plain && number.parse::<u64>().is_ok()).then_some(phase)
}

fn pair(text: &str) -> Option<(u64, u64)> {
    let (all, free) = text.trim().split_once(' ')?;
    Some((all.parse().ok()?, free.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life() -> Life {
        Life::new(Arc::new(|_: &str| {}))
    }

    #[test]
    fn phases_and_memory_are_read_from_the_guests_lines() {
        let life = life();
        life.begins();
        for line in
            ["init: root 812", "init: memory 463164 415680", "init: error: no disk", "ready 7", "init: "]
        {
            life.line(line);
        }
        let health = life.health();
        assert_eq!(health.boot.iter().map(|phase| phase.name.as_str()).collect::<Vec<_>>(), ["root"]);
        assert_eq!(health.idle_memory_kib, Some((463_164, 415_680)));
        for line in ["init: memory 1", "init: memory a b", "init: memory 18446744073709551616 1"] {
            life.line(line);
            assert_eq!(life.health().idle_memory_kib, None, "{line}");
        }
    }

    #[test]
    fn a_guest_that_talks_for_ever_fills_no_memory() {
        let life = life();
        life.begins();
        for number in 0..10_000 {
            life.line(&format!("init: step {number}"));
        }
        assert_eq!(life.health().boot.len(), MAX_PHASES);
    }

    #[test]
    fn a_status_stays_short_whatever_the_guest_says() {
        let life = life();
        life.begins();
        for name in ["x".repeat(MAX_PHASE_NAME + 1), "\u{fffd}\u{1b}".to_owned(), "née".to_owned()] {
            life.line(&format!("init: {name} 1"));
        }
        life.line(&format!("init: {} 1", "x".repeat(MAX_PHASE_NAME)));
        life.ended(&"ö".repeat(10_000));
        let health = life.health();
        assert_eq!(health.boot.len(), 1);
        assert_eq!(health.last_end.map(|how| how.chars().count()), Some(MAX_LAST_END));
    }

    #[test]
    fn a_new_start_forgets_the_boot_before_and_keeps_why_it_ended() {
        let life = life();
        life.begins();
        life.line("init: root 1");
        life.serves(Some(std::process::id()));
        assert!(life.health().resident_bytes.is_some_and(|bytes| bytes > 0));
        life.ended("was killed");
        assert_eq!((life.health().phase, life.health().pid), (GuestPhase::Waiting, None));
        life.begins();
        let health = life.health();
        assert_eq!((health.phase, health.restarts), (GuestPhase::Booting, 1));
        assert_eq!((health.last_end.as_deref(), health.boot.len()), (Some("was killed"), 0));
    }
}
