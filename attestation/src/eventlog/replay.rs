//! What the registers hold when every event has been extended, and whether a quote says the same.

use super::bank::Bank;
use super::kind::EventType;
use super::parse::malformed;
use super::{Event, EventLog};
use crate::Malformed;

/// How many registers a TD has for run time.
const RTMRS: usize = 4;
/// The register of a CCEL that stands for MRTD, which nothing extends (UEFI 2.10, 38.4.1: Intel TDX mapping).
const MRTD: u32 = 0;
/// PCRs that a dynamic launch resets: their start value is not in the log (PC Client Platform TPM Profile, 4.6.2).
const DYNAMIC: std::ops::RangeInclusive<u32> = 17..=22;
/// EV_NO_ACTION that says at which locality the TPM was started (PFP 10.4.5.3).
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";

/// A register as the log explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// PCR number, or RTMR number: 0 to 3.
    pub index: u32,
    /// What it holds: as many bytes as the bank's digests.
    pub value: Vec<u8>,
    /// Index of each event that was extended into it, in order.
    pub events: Vec<usize>,
}

impl Register {
    fn new(index: u32, bank: Bank) -> Self {
        Self { index, value: vec![0; bank.size()], events: Vec::new() }
    }

    fn extend(&mut self, event: &Event<'_>, bank: Bank) -> Result<(), Malformed> {
        let missing = || malformed(event.offset, "digest", format_args!("none for {}", bank.name()));
        let digest = event.digest(bank).ok_or_else(missing)?;
        let extended = bank.hash(&[&self.value, digest]);
        self.value = extended.ok_or_else(|| malformed(0, "bank", "SHA-1 is read, and never replayed"))?;
        self.events.push(event.index);
        Ok(())
    }
}

/// How much of a quote a log explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explained {
    /// All four registers.
    Everything,
    /// RTMR0 to RTMR2. RTMR3 was extended at run time, and the log says nothing about it: firmware and boot loader never
    /// use it. Say so wherever the log is shown.
    AllButRtmr3,
}

/// A register that the log does not explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// RTMR number: 0 to 3.
    pub register: usize,
    /// What the log replays to.
    pub replayed: [u8; 48],
    /// What the quote says.
    pub quoted: [u8; 48],
    /// How many events the log has for it.
    pub events: usize,
    /// Index and title of the last of them.
    pub last: Option<(usize, String)>,
    /// The event after which the replay had the quote's value, if there is one: what follows it was added to the log.
    pub agrees_until: Option<usize>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { register, replayed, quoted, events, .. } = self;
        let (replayed, quoted) = (hex::encode(replayed), hex::encode(quoted));
        write!(f, "RTMR{register}: {events} events replay to {replayed}, the quote has {quoted}")?;
        if let Some((index, title)) = &self.last {
            write!(f, "; the last is event {index}, {title}")?;
        }
        match self.agrees_until {
            Some(0) => f.write_str("; the quote's register was never extended"),
            Some(index) => write!(f, "; they agree until event {index}: what follows was never measured"),
            None => Ok(()),
        }
    }
}

impl EventLog<'_> {
    /// Replays a TPM's log into PCRs: those that have events, in ascending order.
    ///
    /// # Errors
    /// If the log has no digests of this bank, the bank is SHA-1, or an event extends a PCR of a dynamic launch.
    pub fn replay_pcrs(&self, bank: Bank) -> Result<Vec<Register>, Malformed> {
        let mut registers: Vec<Register> = Vec::new();
        let mut locality = None;
        for event in &self.events {
            if event.kind == EventType::NO_ACTION {
                startup_locality(event, &mut locality, &registers)?;
                continue;
            }
            if DYNAMIC.contains(&event.register) {
                let reason = format_args!("PCR {} of a dynamic launch is not replayed", event.register);
                return Err(malformed(event.offset, "register", reason.to_string()));
            }
            let at = registers.iter().position(|register| register.index == event.register);
            let at = at.unwrap_or_else(|| {
                let mut register = Register::new(event.register, bank);
                if let (0, Some(locality), Some(last)) = (event.register, locality, register.value.last_mut())
                {
                    *last = locality;
                }
                registers.push(register);
                registers.len() - 1
            });
            registers[at].extend(event, bank)?;
        }
        registers.sort_by_key(|register| register.index);
        Ok(registers)
    }

    /// Replays a CCEL into RTMR0 to RTMR3. Its register 0 is MRTD, 1 to 4 are the RTMRs (UEFI 2.10, 38.4.1).
    ///
    /// # Errors
    /// If the log has no SHA-384 digests, or an event extends a register that a TD cannot extend.
    pub fn replay_rtmrs(&self) -> Result<[Register; RTMRS], Malformed> {
        self.replay_watching(|_, _| {})
    }

    fn replay_watching(
        &self,
        mut watch: impl FnMut(usize, &Register),
    ) -> Result<[Register; RTMRS], Malformed> {
        let mut registers = [0, 1, 2, 3].map(|index| Register::new(index, Bank::Sha384));
        for event in self.events.iter().filter(|event| event.kind != EventType::NO_ACTION) {
            let at = event.register.checked_sub(MRTD + 1).and_then(|at| usize::try_from(at).ok());
            let Some((at, register)) = at.and_then(|at| registers.get_mut(at).map(|found| (at, found)))
            else {
                let reason = format_args!("{}: a TD can extend 1 to 4 alone", event.register).to_string();
                return Err(malformed(event.offset, "register", reason));
            };
            register.extend(event, Bank::Sha384)?;
            watch(at, register);
        }
        Ok(registers)
    }

    /// Does this log explain the registers of a quote?
    ///
    /// RTMR0 to RTMR2 must be exactly what the log replays to, and zero if it has no event for them. RTMR3 likewise, unless
    /// the log has no event for it at all: programs extend it at run time, and firmware's log cannot know.
    ///
    /// # Errors
    /// The first register that differs; or `Malformed`, within, if the log cannot be replayed into RTMRs.
    pub fn explains(&self, rtmr: &[[u8; 48]; RTMRS]) -> Result<Explained, NotExplained> {
        let mut agrees: [Option<usize>; RTMRS] = rtmr.map(|quoted| (quoted == [0; 48]).then_some(0));
        let replayed = self
            .replay_watching(|at, register| {
                if register.value == rtmr[at] {
                    agrees[at] = register.events.last().copied();
                }
            })
            .map_err(NotExplained::Malformed)?;
        let mut explained = Explained::Everything;
        for (at, register) in replayed.iter().enumerate() {
            if register.value == rtmr[at] {
                continue;
            }
            if at == 3 && register.events.is_empty() {
                explained = Explained::AllButRtmr3;
                continue;
            }
            return Err(NotExplained::Differs(Box::new(
                self.difference(at, register, &rtmr[at], agrees[at]),
            )));
        }
        Ok(explained)
    }

    fn difference(
        &self,
        at: usize,
        register: &Register,
        quoted: &[u8; 48],
        agrees_until: Option<usize>,
    ) -> Difference {
        let last = register.events.last().and_then(|index| self.events.get(index.checked_sub(1)?));
        Difference {
            register: at,
            replayed: register.value.as_slice().try_into().expect("SHA-384 is 48 bytes"),
            quoted: *quoted,
            events: register.events.len(),
            last: last.map(|event| (event.index, event.title())),
            agrees_until,
        }
    }
}

/// Why a log does not explain a quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotExplained {
    /// It cannot be replayed into a TD's registers.
    #[error("{0}")]
    Malformed(Malformed),
    /// A register holds something else.
    #[error("{0}")]
    Differs(Box<Difference>),
}

/// PCR 0 starts with the locality of TPM2_Startup in its last byte. Said once, before anything is extended there.
fn startup_locality(
    event: &Event<'_>,
    locality: &mut Option<u8>,
    registers: &[Register],
) -> Result<(), Malformed> {
    let Some(said) = event.data.strip_prefix(STARTUP_LOCALITY) else { return Ok(()) };
    let refuse = |reason| Err(malformed(event.offset, "startup locality", reason));
    let &[said @ (0 | 3 | 4)] = said else { return refuse("must be 0, 3 or 4") };
    if locality.is_some() {
        return refuse("comes twice");
    }
    if event.register != 0 || registers.iter().any(|register| register.index == 0) {
        return refuse("must be said for PCR 0, before it is extended");
    }
    *locality = Some(said);
    Ok(())
}
