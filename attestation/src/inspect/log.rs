//! The event log, event by event.

use super::{Inspection, cut};
use crate::EventLog;

/// A log, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLogView {
    /// How many algorithms it has digests of, by name.
    pub banks: Vec<String>,
    /// In the order they were measured.
    pub events: Vec<EventView>,
}

/// One event, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventView {
    /// Its number, from 1.
    pub index: usize,
    /// The register by name, for example `RTMR0` or `PCR4`.
    pub register: String,
    /// Its type by name, for example `EV_SEPARATOR`.
    pub kind: String,
    /// What it is, in a few words.
    pub title: String,
    /// What it says; may be empty.
    pub description: String,
    /// Its digest in the last bank that it has, in hex.
    pub digest: String,
    /// How far its text can be believed.
    pub origin: &'static str,
}

/// Shows a log, if it can be read. Of several, the first: more than one is refused anyway.
/// `ccel`: it is a TD's, which counts registers otherwise than a TPM's.
pub(super) fn show(bytes: &[u8], ccel: bool, shown: &mut Inspection) {
    let log = match EventLog::parse(bytes) {
        Ok(log) => log,
        Err(error) => return shown.cannot_read("event log", &error),
    };
    let events = log
        .events()
        .iter()
        .map(|event| EventView {
            index: event.index(),
            register: register(event.register(), ccel),
            kind: event.kind().name().to_owned(),
            title: cut(&event.title()),
            description: cut(&event.description()),
            digest: event.digests().last().map(|(_, digest)| hex::encode(digest)).unwrap_or_default(),
            origin: event.origin().words(),
        })
        .collect();
    let banks = log.banks().iter().map(|bank| bank.name().to_owned()).collect();
    shown.event_log.get_or_insert(EventLogView { banks, events });
}

/// In a CCEL 0 is MRTD and 1 to 4 are RTMR0 to RTMR3; a TPM's log counts PCRs.
fn register(index: u32, ccel: bool) -> String {
    match (ccel, index) {
        (true, 0) => "MRTD".into(),
        (true, 1..) => format!("RTMR{}", index - 1),
        (false, _) => format!("PCR{index}"),
    }
}
