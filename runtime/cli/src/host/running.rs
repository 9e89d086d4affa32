//! A host that runs, as `cocoon host status`, `down` and `logs` see it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cocoon_accounts::{OfChannel, PayeeBook, PayeeFigures, PayeeSummary, Settlement};
use cocoon_host::{BootPhase, GuestPhase, RunningHost};
use cocoon_launch::control::{self, GuestStatus, HostStatus, Lifecycle, Phase};
use cocoon_launch::logbook::LogBook;
use cocoon_launch::vm::LineSink;
use tokio::sync::Notify;

/// The guests of this process.
pub(super) struct Running {
    guests: Mutex<Vec<Guest>>,
    log: LogBook,
    began: Instant,
    ending: AtomicBool,
    end: Notify,
}

struct Guest {
    name: String,
    kind: &'static str,
    host: RunningHost,
}

impl Running {
    pub(super) fn new(log: LogBook) -> Self {
        Self {
            guests: Mutex::default(),
            log,
            began: Instant::now(),
            ending: AtomicBool::new(false),
            end: Notify::new(),
        }
    }

    pub(super) fn add(&self, name: String, kind: &'static str, host: RunningHost) {
        self.guests().push(Guest { name, kind, host });
    }

    fn guests(&self) -> MutexGuard<'_, Vec<Guest>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anything to end.
    pub(super) fn has_guests(&self) -> bool {
        !self.guests().is_empty()
    }

    /// A line of the host's own for the log.
    pub(super) fn note(&self, from: &str, line: &str) {
        self.log.note(from, line);
    }

    /// Takes a guest's lines: into the log, and into our diagnostics.
    pub(super) fn sink(&self, guest: &str) -> LineSink {
        let book = self.log.sink(guest);
        std::sync::Arc::new(move |line: &str| {
            tracing::info!(target: "guest", "{line}");
            book(line);
        })
    }

    /// Returns when `cocoon host down` has come.
    pub(super) async fn told_to_end(&self) {
        self.end.notified().await;
    }

    /// Ends all guests side by side, each in its order, and settles.
    pub(super) async fn end(&self) -> Vec<Settlement> {
        self.ending.store(true, Ordering::Relaxed);
        let guests = std::mem::take(&mut *self.guests());
        let mut ends = tokio::task::JoinSet::new();
        for Guest { name, host, .. } in guests {
            ends.spawn(async move { (name, host.shutdown().await) });
        }
        let mut settled = Vec::new();
        while let Some(ended) = ends.join_next().await {
            match ended {
                Ok((name, settlements)) => {
                    settled.extend(settlements);
                    self.log.note(&name, "ended");
                }
                Err(error) => tracing::error!(%error, "a guest did not end in order"),
            }
        }
        settled
    }
}

impl Lifecycle for Running {
    async fn status(&self) -> HostStatus {
        let (guests, books): (Vec<GuestStatus>, Vec<PayeeBook>) =
            self.guests().iter().map(|guest| (status(guest), guest.host.payee_book().clone())).unzip();
        HostStatus {
            pid: std::process::id(),
            uptime_seconds: self.began.elapsed().as_secs(),
            ending: self.ending.load(Ordering::Relaxed),
            guests,
            money: money(&books).await,
        }
    }

    fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.end.notify_one();
    }
}

fn status(guest: &Guest) -> GuestStatus {
    let health = guest.host.health();
    GuestStatus {
        name: guest.name.clone(),
        kind: guest.kind.to_owned(),
        phase: match health.phase {
            GuestPhase::Booting => Phase::Booting,
            GuestPhase::Serving => Phase::Serving,
            GuestPhase::Waiting => Phase::Waiting,
            GuestPhase::Ending => Phase::Ending,
        },
        url: Some(guest.host.url()),
        pid: health.pid,
        uptime_seconds: health.uptime.map(|uptime| uptime.as_secs()),
        restarts: health.restarts,
        last_end: health.last_end,
        served: health.served,
        resident_bytes: health.resident_bytes,
        boot: durations(&health.boot),
    }
}

/// What each step of a boot took: the guest says when each was done.
fn durations(phases: &[BootPhase]) -> Vec<control::BootPhase> {
    let before = std::iter::once(0).chain(phases.iter().map(|phase| phase.after_ms));
    let took = |(phase, before): (&BootPhase, u64)| control::BootPhase {
        name: phase.name.clone(),
        millis: phase.after_ms.saturating_sub(before),
    };
    phases.iter().zip(before).map(took).collect()
}

/// The same in a line.
pub(super) fn told(phases: &[BootPhase]) -> String {
    let seconds = |millis: u64| format!("{}.{:02} s", millis / 1000, millis % 1000 / 10);
    let each: Vec<String> =
        durations(phases).iter().map(|phase| format!("{} {}", phase.name, seconds(phase.millis))).collect();
    let total = phases.last().map_or(0, |phase| phase.after_ms);
    format!("{}: {}", seconds(total), each.join(", "))
}

/// All guests' books together; `None` when one cannot be read now.
async fn money(books: &[PayeeBook]) -> Option<control::Money> {
    let mut all = PayeeSummary::default();
    for book in books {
        all = all.and(book.summary().await.ok()?);
    }
    let each = |of: &OfChannel<PayeeFigures>| control::ChannelMoney {
        channel: of.channel.clone(),
        closing: of.closing,
        seconds_left: of.seconds_left,
        amounts: amounts(&of.figures),
    };
    Some(control::Money { total: amounts(&all.total), channels: all.channels.iter().map(each).collect() })
}

fn amounts(figures: &PayeeFigures) -> control::Amounts {
    let PayeeFigures { owed, covered, settled, unsettled, reserved, at_risk, deposit } = *figures;
    control::Amounts {
        owed: owed.saturating_sub(settled),
        paid: settled,
        deposit,
        covered,
        unsettled,
        reserved,
        at_risk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_told_step_by_step() {
        let phase = |name: &str, after_ms| BootPhase { name: name.to_owned(), after_ms };
        let phases = [phase("QEMU", 140), phase("start", 7056), phase("evidence", 8100)];
        assert_eq!(told(&phases), "8.10 s: QEMU 0.14 s, start 6.91 s, evidence 1.04 s");
        assert_eq!(told(&[]), "0.00 s: ");
    }
}
