//! What firmware measured into a software TPM, as a TDX module would hold it.
//!
//! The emulated module has no firmware of its own: OVMF under QEMU measures each boot into a TPM. The guest hands in the
//! firmware's log; it is believed only as far as it replays to the PCRs, which are read from the TPM on the host's side.
//!
//! | PCR | register | as in |
//! | --- | --- | --- |
//! | 0 | none: MRTD is computed from the firmware's file | TDVF design guide, "Measurement register usage" |
//! | 1, 7 | RTMR0 | UEFI 2.10, 38.4.1 |
//! | 2 to 6 | RTMR1 | the same |
//! | 8, 9 | RTMR2 | the same |

use cocoon_attestation::eventlog::{Bank, Event, EventLog, EventType};
use cocoon_attestation::extend;

/// How many PCRs a boot concerns: 0 to 9. Linux extends PCR 10 later (IMA), and firmware uses none above.
pub const BOOT_PCRS: usize = 10;
/// The TPM's PCR 0 to 9 in its SHA-384 bank.
pub type Pcrs = [[u8; 48]; BOOT_PCRS];

/// A boot that the TPM confirms.
pub(crate) struct Boot {
    /// RTMR0, RTMR1, RTMR2.
    pub(crate) rtmr: [[u8; 48]; 3],
    /// The same events as a TDX machine's CCEL has them: registers 1 to 3, SHA-384 alone.
    pub(crate) log: Vec<u8>,
}

/// The RTMR of a PCR's events.
fn register(pcr: u32) -> Option<usize> {
    match pcr {
        1 | 7 => Some(0),
        2..=6 => Some(1),
        8 | 9 => Some(2),
        _ => None,
    }
}

/// Replays `log` against the TPM's PCRs, and its events into RTMRs.
///
/// # Errors
/// With the reason, if it is no log, has no SHA-384 digests, or does not replay to `pcrs`.
pub(crate) fn replay(log: &[u8], pcrs: &Pcrs) -> Result<Boot, String> {
    let log = EventLog::parse(log).map_err(|error| format!("boot: {error}"))?;
    let replayed = log.replay_pcrs(Bank::Sha384).map_err(|error| format!("boot: {error}"))?;
    for (index, pcr) in (0..).zip(pcrs) {
        let found = replayed.iter().find(|register| register.index == index);
        let found = found.map_or(&[0; 48][..], |register| &register.value);
        if found != pcr {
            return Err(format!(
                "boot: the log replays PCR {index} to {}, but the TPM holds {}",
                hex::encode(found),
                hex::encode(pcr)
            ));
        }
    }
    let mut boot = Boot { rtmr: [[0; 48]; 3], log: header() };
    for event in log.events().iter().filter(|event| event.kind() != EventType::NO_ACTION) {
        let Some(at) = register(event.register()) else { continue };
        let digest = event.digest(Bank::Sha384).and_then(|digest| <&[u8; 48]>::try_from(digest).ok());
        let digest = digest.ok_or("boot: an event has no SHA-384 digest")?;
        boot.rtmr[at] = extend(&boot.rtmr[at], digest);
        write(&mut boot.log, at + 1, event, digest);
    }
    Ok(boot)
}

const SHA384: u16 = 0x000c;

/// The header event of a log with SHA-384 alone (TCG PFP 1.06, 10.4.5.1).
fn header() -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend(0_u32.to_le_bytes()); // platform class: client
    spec.extend([0, 2, 0, 2]); // version 2.0, errata 0, native words of 64 bits
    spec.extend(1_u32.to_le_bytes());
    spec.extend(SHA384.to_le_bytes());
    spec.extend(48_u16.to_le_bytes());
    spec.push(0); // no vendor information
    let mut log = vec![0; 4];
    log.extend(3_u32.to_le_bytes()); // EV_NO_ACTION
    log.extend([0; 20]);
    log.extend((spec.len() as u32).to_le_bytes());
    log.extend(spec);
    log
}

fn write(log: &mut Vec<u8>, register: usize, event: &Event<'_>, digest: &[u8; 48]) {
    log.extend((register as u32).to_le_bytes());
    log.extend(event.kind().code().to_le_bytes());
    log.extend(1_u32.to_le_bytes());
    log.extend(SHA384.to_le_bytes());
    log.extend(digest);
    log.extend((event.data().len() as u32).to_le_bytes());
    log.extend(event.data());
}
