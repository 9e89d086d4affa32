//! GET_MEASUREMENTS and its signed answer (DMTF DSP0274, SPDM 1.1, 10.11), in the shape NVIDIA's devices give them.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 2 | request: version 0x11, code 0xe0 |
//! | 2 | 2 | param1 (bit 0: a signature is asked for), param2 (0xff: all measurements) |
//! | 4 | 32 | requester's nonce |
//! | 36 | 1 | certificate slot |
//! | 37 | 4 | response: version 0x11, code 0x60, two parameters |
//! | 41 | 1 | number of blocks |
//! | 42 | 3 | length of the record, little-endian |
//! | 45 | … | record: the blocks, nothing else |
//! | | 32 | responder's nonce |
//! | | 2 | length of the opaque data, little-endian |
//! | | … | opaque data: see [`super::opaque`] |
//! | | 96 | ECDSA P-384 r ‖ s over all that precedes |
//!
//! NVML has been seen to leave one zero byte after the signature; nothing else may follow.

use super::opaque::Opaque;
use crate::Malformed;

/// The largest report, in bytes. NVML's buffer has 8 KiB.
pub(crate) const MAX_REPORT: usize = 16 * 1024;
/// How a report begins: version and code of the request.
pub(crate) const MAGIC: [u8; 2] = [0x11, 0xe0];

const WHAT: &str = "SPDM report";
const SIGNATURE: usize = 96;
/// MeasurementSpecification: DMTF.
const DMTF: u8 = 1;

/// A report taken apart. Nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report<'a> {
    /// The challenge in the request.
    pub(crate) nonce: &'a [u8; 32],
    /// In their order; each index once.
    pub(crate) blocks: Vec<Block<'a>>,
    pub(crate) opaque: Opaque<'a>,
    /// What the signature covers.
    pub(crate) signed: &'a [u8],
    /// r ‖ s.
    pub(crate) signature: &'a [u8],
}

/// One measurement (DSP0274, table 53 and 54).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// 1 to 254. RIMs count from 0: their index is one less.
    pub(crate) index: u8,
    pub(crate) value: &'a [u8],
}

impl<'a> Report<'a> {
    /// Reads exact lengths and nothing beside them.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_REPORT {
            let reason = format!("{} bytes, at most {MAX_REPORT}", bytes.len());
            return Err(Malformed::at(WHAT, 0, "length", reason));
        }
        let mut cursor = Cursor { bytes, at: 0, what: WHAT };
        let nonce = request(&mut cursor)?;
        cursor.exactly(&[0x11, 0x60], "response version and code")?;
        cursor.take(2, "response parameters")?;
        let count = cursor.byte("number of blocks")?;
        let length = cursor.little_endian(3, "record length")?;
        let record = cursor.part(length, "record")?;
        let blocks = blocks(record, count)?;
        cursor.take(32, "responder's nonce")?;
        let length = cursor.little_endian(2, "opaque length")?;
        let opaque = Opaque::parse(cursor.part(length, "opaque data")?)?;
        let signed = &bytes[..cursor.at];
        let signature = cursor.take(SIGNATURE, "signature")?;
        match cursor.rest() {
            [] | [0] => Ok(Self { nonce, blocks, opaque, signed, signature }),
            rest => Err(cursor.error("end", format!("{} bytes after the signature", rest.len()))),
        }
    }

    /// The measurement of an index as RIMs count them, from 0.
    pub(crate) fn measurement(&self, rim_index: u8) -> Option<&'a [u8]> {
        let index = rim_index.checked_add(1)?;
        self.blocks.iter().find(|block| block.index == index).map(|block| block.value)
    }
}

fn request<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8; 32], Malformed> {
    cursor.exactly(&MAGIC, "request version and code")?;
    if cursor.byte("request attributes")? & 1 == 0 {
        return Err(cursor.error("request attributes", "no signature was asked for"));
    }
    cursor.exactly(&[0xff], "measurement operation: all measurements")?;
    let nonce = cursor.take(32, "nonce")?.try_into().expect("32 bytes were taken");
    cursor.take(1, "slot")?;
    Ok(nonce)
}

fn blocks<'a>(mut record: Cursor<'a>, count: u8) -> Result<Vec<Block<'a>>, Malformed> {
    let mut seen = [false; 256];
    let mut blocks = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let index = record.byte("index")?;
        if index == 0 || index == 255 || std::mem::replace(&mut seen[usize::from(index)], true) {
            return Err(record.error("index", format!("{index} is reserved, or stands there twice")));
        }
        record.exactly(&[DMTF], "measurement specification: DMTF")?;
        let size = record.little_endian(2, "measurement size")?;
        let mut measurement = record.part(size, "measurement")?;
        measurement.take(1, "value type")?;
        let size = measurement.little_endian(2, "value size")?;
        let value = measurement.take(size, "value")?;
        measurement.end("measurement")?;
        blocks.push(Block { index, value });
    }
    record.end("record")?;
    Ok(blocks)
}

/// Takes bytes from the front.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(super) fn error(&self, field: &'static str, reason: impl Into<String>) -> Malformed {
        Malformed::at(self.what, self.at, field, reason)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let rest = self.rest();
        let Some(taken) = rest.get(..length) else {
            return Err(self.error(field, format!("{length} bytes needed, {} left", rest.len())));
        };
        self.at += length;
        Ok(taken)
    }

    /// The next bytes by themselves, with offsets that count from the whole.
    fn part(&mut self, length: usize, field: &'static str) -> Result<Self, Malformed> {
        let at = self.at;
        self.take(length, field)?;
        Ok(Self { bytes: &self.bytes[..self.at], at, what: self.what })
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(self.take(1, field)?[0])
    }

    /// A number of at most 3 bytes.
    pub(super) fn little_endian(&mut self, length: usize, field: &'static str) -> Result<usize, Malformed> {
        Ok(self.take(length, field)?.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    fn exactly(&mut self, expected: &[u8], field: &'static str) -> Result<(), Malformed> {
        let start = self.clone();
        let got = self.take(expected.len(), field)?;
        if got == expected {
            Ok(())
        } else {
            Err(start.error(field, format!("must be 0x{}, is 0x{}", hex::encode(expected), hex::encode(got))))
        }
    }

    fn end(&self, field: &'static str) -> Result<(), Malformed> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(self.error(field, format!("{left} bytes too many"))),
        }
    }
}
