//! TPM2_PCR_Read (TPM 2.0 Library, part 3, 22.4) of the SHA-384 bank.
//!
//! ```text
//! command:  8001 ‖ u32 length ‖ 0000017e ‖ 00000001 ‖ 000c ‖ 03 ‖ 3 bytes: bit n of the 24 is PCR n, lowest first
//! response: 8001 ‖ u32 length ‖ u32 code ‖ u32 update counter ‖ u32 1 ‖ 000c ‖ 03 ‖ 3 bytes
//!           ‖ u32 count ‖ count × (0030 ‖ 48 bytes), lowest PCR first; at most 8
//! ```

use std::io;

use super::relay::HEADER;

/// PCRs that a TPM of a PC has.
pub(super) const PCRS: usize = 24;
/// Bytes of a register.
const DIGEST: usize = 48;
const SHA384: [u8; 2] = [0x00, 0x0c];
const NO_SESSIONS: [u8; 2] = [0x80, 0x01];
const PCR_READ: [u8; 4] = [0, 0, 0x01, 0x7e];
/// TPM_RC_INITIALIZE: nobody has sent TPM2_Startup.
const NOT_STARTED: u32 = 0x100;

/// Why registers could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PcrError {
    /// The firmware has not started the TPM.
    #[error("the TPM is not started yet; ask again when the guest's firmware runs")]
    NotStarted,
    /// It does not answer.
    #[error("the software TPM is gone: {0}; its last words are in the run folder's tpm/log")]
    Gone(#[from] io::Error),
    /// It refused.
    #[error("the TPM refused to read its registers with code {0:#x}")]
    Refused(u32),
    /// The bank is not active, or there is no such register.
    #[error("the TPM gives no SHA-384 value of PCR {0}; it must be 0 to 23, and the SHA-384 bank active")]
    Missing(u8),
    /// Not what the library's specification says.
    #[error("the TPM's response is malformed")]
    Malformed,
    /// They changed between two reads, although nobody else could ask.
    #[error("the registers changed while they were read; ask again")]
    Changed,
}

/// Registers of the SHA-384 bank, as the TPM itself gave them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcrs {
    values: [Option<[u8; DIGEST]>; PCRS],
    counter: u32,
}

impl Pcrs {
    /// A register; `None` if it was not asked for.
    pub fn value(&self, pcr: u8) -> Option<&[u8; DIGEST]> {
        self.values.get(usize::from(pcr))?.as_ref()
    }

    /// Grows with every change of a register: equal counters mean nothing changed in between.
    pub fn update_counter(&self) -> u32 {
        self.counter
    }
}

/// Reads `wanted` through `ask`, which has the TPM to itself.
pub(super) fn read(
    wanted: &[u8],
    mut ask: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> Result<Pcrs, PcrError> {
    let mut open = 0u32;
    for &pcr in wanted {
        let bit = 1u32.checked_shl(pcr.into()).filter(|_| usize::from(pcr) < PCRS);
        open |= bit.ok_or(PcrError::Missing(pcr))?;
    }
    let mut values = [None; PCRS];
    let mut counter = None;
    while open != 0 {
        let response = ask(&command(open))?;
        let part = parse(&response)?;
        if *counter.get_or_insert(part.counter) != part.counter {
            return Err(PcrError::Changed);
        }
        let given = part.selected & open;
        if given == 0 {
            let first = u8::try_from(open.trailing_zeros()).expect("below 32");
            return Err(PcrError::Missing(first));
        }
        let mut digests = part.digests.chunks_exact(2 + DIGEST);
        for (pcr, value) in values.iter_mut().enumerate().filter(|(pcr, _)| part.selected >> pcr & 1 == 1) {
            let digest = digests.next().and_then(|sized| sized.strip_prefix(&[0, DIGEST as u8]));
            let digest = digest.and_then(|digest| digest.try_into().ok()).ok_or(PcrError::Malformed)?;
            if given >> pcr & 1 == 1 {
                *value = Some(digest);
            }
        }
        open &= !given;
    }
    Ok(Pcrs { values, counter: counter.unwrap_or_default() })
}

fn command(selected: u32) -> Vec<u8> {
    let [a, b, c, _] = selected.to_le_bytes();
    let mut command = [&NO_SESSIONS[..], &[0; 4], &PCR_READ, &[0, 0, 0, 1], &SHA384, &[3, a, b, c]].concat();
    let length = u32::try_from(command.len()).expect("20 bytes");
    command[2..6].copy_from_slice(&length.to_be_bytes());
    command
}

struct Part<'a> {
    counter: u32,
    selected: u32,
    digests: &'a [u8],
}

fn parse(response: &[u8]) -> Result<Part<'_>, PcrError> {
    let word = |at: usize| response.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    match word(6) {
        Some(0) => {}
        Some(NOT_STARTED) => return Err(PcrError::NotStarted),
        Some(code) => return Err(PcrError::Refused(code)),
        None => return Err(PcrError::Malformed),
    }
    let counter = word(HEADER).ok_or(PcrError::Malformed)?;
    // A bank that is not active gives an empty selection, or none.
    let (selected, rest) = match word(HEADER + 4) {
        Some(0) => (0, HEADER + 8),
        Some(1) => match response.get(HEADER + 8..HEADER + 14) {
            Some(&[0x00, 0x0c, 3, a, b, c]) => (u32::from_le_bytes([a, b, c, 0]), HEADER + 14),
            _ => return Err(PcrError::Malformed),
        },
        _ => return Err(PcrError::Malformed),
    };
    let count = word(rest).and_then(|count| usize::try_from(count).ok()).ok_or(PcrError::Malformed)?;
    let digests = response.get(rest + 4..).ok_or(PcrError::Malformed)?;
    if count != selected.count_ones() as usize || count > PCRS || digests.len() != count * (2 + DIGEST) {
        return Err(PcrError::Malformed);
    }
    Ok(Part { counter, selected, digests })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TPM that answers for at most `most` registers at once; register n is filled with n.
    fn tpm(command: &[u8], most: u32, counter: u32) -> Vec<u8> {
        let wanted = u32::from_le_bytes([command[17], command[18], command[19], 0]);
        let mut given = 0;
        for pcr in (0..24).filter(|pcr| wanted >> pcr & 1 == 1).take(most as usize) {
            given |= 1u32 << pcr;
        }
        let [a, b, c, _] = given.to_le_bytes();
        let mut out = [&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &counter.to_be_bytes()].concat();
        out.extend([0, 0, 0, 1, 0, 0x0c, 3, a, b, c]);
        out.extend(given.count_ones().to_be_bytes());
        for pcr in (0..24u8).filter(|pcr| given >> pcr & 1 == 1) {
            out.extend([0, 48]);
            out.extend([pcr; 48]);
        }
        let length = (out.len() as u32).to_be_bytes();
        out[2..6].copy_from_slice(&length);
        out
    }

    #[test]
    fn all_registers_come_in_as_many_answers_as_the_tpm_needs() {
        let all: Vec<u8> = (0..24).collect();
        let mut asked = 0;
        let pcrs = read(&all, |command| {
            asked += 1;
            assert_eq!(command[..10], [0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e]);
            Ok(tpm(command, 8, 5))
        });
        let pcrs = pcrs.expect("good");
        assert_eq!(asked, 3);
        assert!(all.iter().all(|pcr| pcrs.value(*pcr) == Some(&[*pcr; 48])));
        let some = read(&[23, 7], |command| Ok(tpm(command, 8, 5))).expect("good");
        assert_eq!((some.value(7), some.value(8), some.value(24)), (Some(&[7; 48]), None, None));
        assert_eq!(some.update_counter(), 5);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(matches!(read(&[24], |_| unreachable!("it is never asked")), Err(PcrError::Missing(24))));
        assert!(matches!(read(&[255], |_| unreachable!("it is never asked")), Err(PcrError::Missing(255))));
        assert!(matches!(read(&[3], |c| Ok(tpm(c, 0, 1))), Err(PcrError::Missing(3))));
        let all: Vec<u8> = (0..24).collect();
        let mut counter = 0;
        let changing = read(&all, |command| {
            counter += 1;
            Ok(tpm(command, 8, counter))
        });
        assert!(matches!(changing, Err(PcrError::Changed)));
        let coded = |code: u32| [&[0x80, 1, 0, 0, 0, 10][..], &code.to_be_bytes()].concat();
        assert!(matches!(read(&[0], |_| Ok(coded(0x100))), Err(PcrError::NotStarted)));
        assert!(matches!(read(&[0], |_| Ok(coded(0x101))), Err(PcrError::Refused(0x101))));
    }

    #[test]
    fn every_cut_and_every_longer_response_is_malformed() {
        let good = tpm(&command(0b1001), 8, 1);
        for cut in 10..good.len() {
            assert!(matches!(read(&[0, 3], |_| Ok(good[..cut].to_vec())), Err(PcrError::Malformed)), "{cut}");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(matches!(read(&[0, 3], |_| Ok(longer.clone())), Err(PcrError::Malformed)));
        for (at, bit) in [(17, 1), (19, 2), (20, 1), (21, 0x10), (27, 1), (29, 1)] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            assert!(read(&[0, 3], |_| Ok(bad.clone())).is_err(), "byte {at}");
        }
    }
}
