//! Something that is away, said once: when it goes and when it comes back.

use std::{
    fmt::Display,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Whether something answers, as it was last seen.
pub(crate) struct Outage {
    what: &'static str,
    since: Mutex<Option<Instant>>,
}

impl Outage {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, since: Mutex::new(None) }
    }

    /// It did not answer. The first time is a warning, the others are diagnostics.
    pub(crate) fn failed(&self, error: &dyn Display) {
        let mut since = self.since.lock().expect("no holder of this lock panics");
        if since.is_none() {
            *since = Some(Instant::now());
            tracing::warn!(%error, "{} does not answer; it is asked again and again, and nothing is lost", self.what);
        } else {
            tracing::debug!(%error, "{} still does not answer", self.what);
        }
    }

    /// It answered; how long it was away, if it was.
    pub(crate) fn answered(&self) -> Option<Duration> {
        let away = self.since.lock().expect("no holder of this lock panics").take()?.elapsed();
        tracing::info!(?away, "{} answers again", self.what);
        Some(away)
    }
}
