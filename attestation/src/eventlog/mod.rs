//! Event logs: what was measured into the registers, told event by event.
//!
//! A log in the crypto-agile format of the TCG PC Client Platform Firmware Profile (PFP) 1.06, chapter 10: as TDX firmware
//! leaves it in the ACPI table CCEL, and as TPM firmware leaves it. All integers are little endian.
//!
//! | part | bytes | content |
//! | --- | --- | --- |
//! | header | 4, 4, 20, 4 + n | register 0 or 1, EV_NO_ACTION, zero digest, "Spec ID Event03" with the list of algorithms |
//! | event | 4, 4 | register, type |
//! | | 4, then (2 + n) each | digests: one for each algorithm of the header |
//! | | 4 + n | the event's data |
//! | padding | any | 0x00 or 0xff up to the end of the table's area |
//!
//! A log proves nothing by itself. It says something when [`EventLog::explains`] finds that it replays to the registers of
//! a genuine quote, and then as much as each event's [`Origin`] says. [`EventLog::parse`] refuses a log with an event whose
//! type says that its data was hashed when it was not: so the list that is shown is the list that was replayed.

mod bank;
mod judge;
mod kind;
mod names;
mod origin;
mod parse;
mod replay;
mod text;
mod uefi;

pub use bank::Bank;
pub(crate) use judge::{EXPECTED, judge};
pub use kind::EventType;
pub use origin::Origin;
pub use replay::{Difference, Explained, NotExplained, Register};

use crate::Malformed;
use bank::BANKS;

/// The largest log, padding included, in bytes.
pub const MAX_LOG: usize = 1024 * 1024;
/// Most events in a log.
pub const MAX_EVENTS: usize = 4096;
/// Most algorithms in a header, and so most digests of an event.
pub const MAX_ALGORITHMS: usize = 8;
/// The largest data of one event, in bytes. Signature databases have tens of kilobytes.
pub const MAX_EVENT: usize = 256 * 1024;
/// The highest register: a TPM has PCR 0 to PCR 23.
pub const MAX_REGISTER: u32 = 23;
/// What stands for "no register" in an EV_NO_ACTION.
const NO_REGISTER: u32 = u32::MAX;

/// A log taken apart, borrowing from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog<'a> {
    events: Vec<Event<'a>>,
    banks: Vec<Bank>,
    used: usize,
}

/// One event of a log. Text from it is for people, with everything but printable ASCII escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    index: usize,
    offset: usize,
    register: u32,
    kind: EventType,
    digests: [Option<&'a [u8]>; BANKS],
    data: &'a [u8],
    origin: Origin,
}

impl<'a> EventLog<'a> {
    /// Takes a log apart and recomputes the digest of each event where its type defines it.
    ///
    /// # Errors
    /// With the offset and the field, if a length or count is not exact, a limit is exceeded, something other than padding
    /// follows the last event, or an event's data is not what its type says was hashed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        parse::log(bytes)
    }

    /// The events, in the order they were measured. The header is not among them.
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The algorithms of its digests, without those that are not known.
    pub fn banks(&self) -> &[Bank] {
        &self.banks
    }

    /// How many of the bytes are log; the rest was padding.
    pub fn used(&self) -> usize {
        self.used
    }
}

impl<'a> Event<'a> {
    /// Its number: from 1, since the header is event 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where it begins in the log, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The register as it stands in the log: a PCR; or in a CCEL 0 for MRTD and 1 to 4 for RTMR0 to RTMR3.
    pub fn register(&self) -> u32 {
        self.register
    }

    /// Its type.
    pub fn kind(&self) -> EventType {
        self.kind
    }

    /// Its digests by bank.
    pub fn digests(&self) -> impl Iterator<Item = (Bank, &'a [u8])> + '_ {
        Bank::ALL.into_iter().filter_map(|bank| Some((bank, self.digest(bank)?)))
    }

    /// Its digest in one bank.
    pub fn digest(&self, bank: Bank) -> Option<&'a [u8]> {
        self.digests[bank.place()]
    }

    /// Its data, as it stands in the log.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// How far its text can be believed.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What it is, in a few words: "Secure Boot is on".
    pub fn title(&self) -> String {
        names::describe(self).0
    }

    /// What it says, for example the kernel's command line. Empty if the title says all.
    pub fn description(&self) -> String {
        names::describe(self).1
    }
}
