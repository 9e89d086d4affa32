//! Where an event's digest comes from: recomputed from the event's own bytes, or not.

use super::Event;
use super::bank::Bank;
use super::kind::{EventType, Rule};
use super::parse::malformed;
use super::uefi::Variable;
use crate::Malformed;

/// How far an event's text can be believed, once the log replays to the registers of a genuine quote.
///
/// The registers hold digests and nothing else: an event's *type* is never hashed, nor is the prefix by which GRUB tells a
/// command from a kernel's command line. What is recomputed was measured, byte by byte; that it was measured *as* this is
/// the log's word, as is everything that is not recomputed. Who must know that the type is true compares the registers with
/// reference values, where one event at another's place gives another register.
///
/// Of the 18,101 bytes of a real log (`tests/eventlog_real.rs` changes each), 882 can change unnoticed: 6 of the header, the
/// types of the events (172), text of external events (450), names of boot variables (98) and GRUB's prefixes (156).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// What is shown is what was hashed.
    Recomputed,
    /// A variable's value is what was hashed; its name is as claimed.
    ValueRecomputed,
    /// The digest is over something outside the log, or under an algorithm that is not believed: the text is as claimed.
    External,
    /// Not extended into any register (EV_NO_ACTION): all of it is as claimed.
    Unmeasured,
}

impl Origin {
    /// Its words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Recomputed => "recomputed from the event",
            Self::ValueRecomputed => "value recomputed, name as claimed",
            Self::External => "as claimed: the digest is over something outside the log",
            Self::Unmeasured => "as claimed: not measured",
        }
    }
}

/// What an event has before [`of`] has judged it.
pub(super) const UNKNOWN: Origin = Origin::External;

/// What GRUB writes before a string that it measured (grub-core/commands/tpm.c).
pub(super) const GRUB_PREFIXES: [&[u8]; 3] = [b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: "];

/// Recomputes the event's digests in every bank that is believed.
///
/// # Errors
/// If the type says that the data was hashed and it was not, or if banks disagree about what was hashed.
pub(super) fn of(event: &Event<'_>) -> Result<Origin, Malformed> {
    if event.kind == EventType::NO_ACTION {
        return Ok(Origin::Unmeasured);
    }
    let mut found = None;
    for (bank, digest) in event.digests().filter(|(bank, _)| *bank != Bank::Sha1) {
        let origin = in_bank(event, bank, digest)?;
        match found.replace(origin) {
            Some(other) if other != origin => {
                return Err(mismatch(
                    event,
                    bank,
                    "this bank's digest is over something else than the others'",
                ));
            }
            _ => {}
        }
    }
    Ok(found.unwrap_or(Origin::External))
}

fn in_bank(event: &Event<'_>, bank: Bank, digest: &[u8]) -> Result<Origin, Malformed> {
    let hashed = |bytes: &[u8]| bank.hash(&[bytes]).is_some_and(|own| own == digest);
    let data = event.data;
    let rule = event.kind.rule();
    // GRUB's strings are hashed without their prefix: a string with one is never hashed whole.
    if rule == Rule::BootLoader
        && let Some(text) = grub_string(data)
    {
        return if hashed(text) {
            Ok(Origin::Recomputed)
        } else {
            Err(mismatch(event, bank, "GRUB's string does not hash to the digest"))
        };
    }
    if hashed(data) {
        return Ok(Origin::Recomputed);
    }
    match rule {
        Rule::Data => Err(mismatch(event, bank, "the event's data does not hash to the digest")),
        Rule::Variable => match Variable::parse(data) {
            Some(variable) if hashed(variable.value) => Ok(Origin::ValueRecomputed),
            _ => Err(mismatch(event, bank, "the variable does not hash to the digest")),
        },
        Rule::BootLoader if section_name(data).is_some_and(|name| hashed(&name)) => Ok(Origin::Recomputed),
        Rule::Tagged if tagged(data).is_some_and(|(_, inner)| hashed(inner)) => Ok(Origin::Recomputed),
        Rule::BootLoader | Rule::Tagged | Rule::Anything | Rule::NotExtended => Ok(Origin::External),
    }
}

/// The string that GRUB measured: behind its prefix, without the zero that ends it.
pub(super) fn grub_string(data: &[u8]) -> Option<&[u8]> {
    let text = GRUB_PREFIXES.iter().find_map(|prefix| data.strip_prefix(*prefix))?;
    Some(text.strip_suffix(b"\0").unwrap_or(text))
}

/// systemd-stub logs a section's name in UTF-16 and hashes it in ASCII, closing zero included.
fn section_name(data: &[u8]) -> Option<Vec<u8>> {
    const LONGEST: usize = 2 * 16;
    if data.len() > LONGEST || !data.starts_with(b".\0") || !data.ends_with(&[0, 0]) {
        return None;
    }
    let (units, odd) = data.as_chunks::<2>();
    (odd.is_empty() && units.iter().all(|unit| unit[1] == 0))
        .then(|| units.iter().map(|unit| unit[0]).collect())
}

/// TCG_PCClientTaggedEvent (PFP 10.4.2.1): id, size, data.
pub(super) fn tagged(data: &[u8]) -> Option<(u32, &[u8])> {
    let (id, rest) = data.split_first_chunk::<4>()?;
    let (size, inner) = rest.split_first_chunk::<4>()?;
    (usize::try_from(u32::from_le_bytes(*size)) == Ok(inner.len())).then(|| (u32::from_le_bytes(*id), inner))
}

fn mismatch(event: &Event<'_>, bank: Bank, what: &str) -> Malformed {
    let (index, kind) = (event.index, event.kind.name());
    malformed(event.offset, "digest", format_args!("event {index} ({kind}), {}: {what}", bank.name()))
}
