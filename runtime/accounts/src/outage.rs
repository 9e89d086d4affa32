//! Something that is away, said once: when it goes and when it comes back.

use std::{fmt::Display, sync::Mutex, time::Duration};

use tokio::time::Instant;

/// Whether something answers, as it was last seen.
pub(crate) struct Outage {
    what: &'static str,
    since: Mutex<Option<Instant>>,
}

impl Outage {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, since: Mutex::new(None) }
    }

    /// It did not answer. The first time is a warning, the others are diagnostics. Whether this was the first.
    pub(crate) fn failed(&self, error: &dyn Display) -> bool {
        let mut since = self.since.lock().expect("no holder of this lock panics");
        let is_first = since.is_none();
        if is_first {
            *since = Some(Instant::now());
            tracing::warn!(%error, "{} does not answer; it is asked again and again, and nothing is lost", self.what);
        } else {
            tracing::debug!(%error, "{} still does not answer", self.what);
        }
        is_first
    }

    /// It answered; how long it was away, if it was.
    pub(crate) fn answered(&self) -> Option<Duration> {
        let away = self.since.lock().expect("no holder of this lock panics").take()?.elapsed();
        tracing::info!(?away, "{} answers again", self.what);
        Some(away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_and_so_is_its_end() {
        let outage = Outage::new("the chain");
        assert_eq!(outage.answered(), None, "it was never away");
        let said: Vec<bool> = (0..3600).map(|_| outage.failed(&"refused")).collect();
        assert_eq!(said.iter().filter(|said| **said).count(), 1);
        assert!(outage.answered().is_some());
        assert_eq!(outage.answered(), None);
        assert!(outage.failed(&"refused"), "another outage is said again");
    }
}
