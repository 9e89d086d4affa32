//! What a TPM signs about itself: TPMS_ATTEST with TPMS_QUOTE_INFO (TPM 2.0 Library, part 2).

use crate::Malformed;
use crate::crypto::sha256;

/// How many registers a TPM has.
pub(crate) const PCRS: usize = 24;

const WHAT: &str = "TPM quote";
const GENERATED: u32 = 0xff54_4347;
const QUOTE: u16 = 0x8018;
const SHA256: u16 = 0x000b;
/// All registers, as a selection names them.
const ALL: [u8; 3] = [0xff; 3];

/// A quote's message taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attest<'a> {
    /// 0xff54_4347 says that a TPM made it.
    pub(crate) magic: u32,
    /// 0x8018 is a quote.
    pub(crate) kind: u16,
    /// What the asker gave.
    pub(crate) extra_data: &'a [u8],
    /// The bank and the registers of the one selection.
    selection: (u16, &'a [u8]),
    /// SHA-256 over the selected registers.
    pcr_digest: &'a [u8],
}

impl<'a> Attest<'a> {
    /// Reads it; nothing may follow.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { bytes, at: 0 };
        let magic = u32::from_be_bytes(reader.array("magic")?);
        let kind = u16::from_be_bytes(reader.array("type")?);
        reader.counted("qualifiedSigner")?;
        let extra_data = reader.counted("extraData")?;
        reader.take(17, "clockInfo")?;
        reader.take(8, "firmwareVersion")?;
        let count = u32::from_be_bytes(reader.array("pcrSelect")?);
        if count != 1 {
            return Err(reader.error("pcrSelect", format!("{count} selections, must be 1")));
        }
        let hash = u16::from_be_bytes(reader.array("pcrSelect")?);
        let [length] = reader.array("pcrSelect")?;
        let registers = reader.take(length.into(), "pcrSelect")?;
        let pcr_digest = reader.counted("pcrDigest")?;
        match reader.bytes.len() {
            0 => Ok(Self { magic, kind, extra_data, selection: (hash, registers), pcr_digest }),
            left => Err(reader.error("end", format!("{left} bytes too many"))),
        }
    }

    /// Did a TPM make it, and is it a quote? The AK signs nothing else that begins so.
    pub(crate) fn is_quote(&self) -> bool {
        self.magic == GENERATED && self.kind == QUOTE
    }

    /// Are all registers of the SHA-256 bank selected?
    pub(crate) fn selects_all(&self) -> bool {
        self.selection == (SHA256, &ALL)
    }

    /// Are these the registers that were quoted?
    pub(crate) fn agrees_with(&self, pcrs: &[[u8; 32]; PCRS]) -> bool {
        self.pcr_digest == sha256(&[pcrs.as_flattened()])
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, field: &'static str, reason: impl Into<String>) -> Malformed {
        Malformed::at(WHAT, self.at, field, reason)
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else {
            return Err(self.error(field, format!("{length} bytes, {} left", self.bytes.len())));
        };
        (self.bytes, self.at) = (rest, self.at + length);
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        self.take(N, field).map(|bytes| bytes.try_into().expect("N bytes were taken"))
    }

    /// A TPM2B: its length in two bytes, big endian, then that many.
    fn counted(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let length = u16::from_be_bytes(self.array(field)?);
        self.take(length.into(), field)
    }
}
