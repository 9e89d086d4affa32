//! The opaque data of a report: what firmware says about itself in type, length and value.
//!
//! Types, names and encodings are those of NVIDIA's attestation-sdk (`gpu_opaque_data_parser.hpp`,
//! `switch_opaque_data_parser.hpp`) and nvtrust (`spdm_msrt_resp_msg.py`).

use super::spdm::Cursor;
use crate::Malformed;

/// Types of fields that are read here.
pub(super) mod field {
    pub(in super::super) const DRIVER_VERSION: u16 = 3;
    pub(in super::super) const VBIOS_VERSION: u16 = 6;
    pub(in super::super) const NVDEC0_STATUS: u16 = 11;
    pub(in super::super) const CHIP_SKU: u16 = 15;
    pub(in super::super) const PROJECT: u16 = 17;
    pub(in super::super) const PROJECT_SKU: u16 = 18;
    pub(in super::super) const FWID: u16 = 20;
    pub(in super::super) const PROTECTED_PCIE: u16 = 21;
    /// A GPU's: the switch at each of its links. A switch's: its own id.
    pub(in super::super) const PDI: u16 = 22;
    /// A switch's alone: ids of eight GPUs, then what is at each port.
    pub(in super::super) const SWITCH_GPU_PDIS: u16 = 26;
    pub(in super::super) const OPAQUE_VERSION: u16 = 34;
    pub(in super::super) const CHIP_INFO: u16 = 35;
    pub(in super::super) const FEATURE_FLAG: u16 = 36;
}

/// The newest layout of the opaque data that NVIDIA's SDK knows, and so do we.
pub(super) const NEWEST_VERSION: u64 = 1;
/// What a one-byte status says when the feature is on.
pub(super) const ON: u8 = 0xaa;
/// What a one-byte status says when the feature is off.
pub(super) const OFF: u8 = 0x55;

/// Bytes of a device's id on NVLink.
const PDI: usize = 8;
/// GPUs that a switch names.
const SWITCH_GPUS: usize = 8;
/// Longest text in a field, in bytes.
const MAX_TEXT: usize = 64;

/// Fields in their order, each type once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Opaque<'a> {
    fields: Vec<(u16, &'a [u8])>,
}

impl<'a> Opaque<'a> {
    /// Reads fields to the very end. Types that are not known are kept, and mean nothing here.
    pub(super) fn parse(mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let mut fields = Vec::with_capacity(20);
        while !cursor.rest().is_empty() {
            let kind = cursor.little_endian(2, "opaque type")? as u16;
            if fields.iter().any(|(other, _)| *other == kind) {
                return Err(cursor.error("opaque type", format!("field {kind} stands there twice")));
            }
            let size = cursor.little_endian(2, "opaque size")?;
            fields.push((kind, cursor.take(size, "opaque value")?));
        }
        Ok(Self { fields })
    }

    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.fields.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value)
    }

    /// Printable ASCII up to the first zero byte, if the field is that.
    pub(super) fn text(&self, kind: u16) -> Option<String> {
        let value = self.get(kind)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        let (text, padding) = value.split_at(end);
        let plain = (1..=MAX_TEXT).contains(&end) && text.iter().all(u8::is_ascii_graphic);
        (plain && padding.iter().all(|byte| *byte == 0)).then(|| String::from_utf8_lossy(text).into_owned())
    }

    /// A little-endian number of at most 8 bytes.
    pub(super) fn number(&self, kind: u16) -> Option<u64> {
        let value = self.get(kind).filter(|value| (1..=8).contains(&value.len()))?;
        Some(value.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// A status of one byte: on, off, or something else.
    pub(super) fn status(&self, kind: u16) -> Option<Result<bool, String>> {
        Some(match self.get(kind)? {
            [ON] => Ok(true),
            [OFF] => Ok(false),
            other => Err(hex::encode(other)),
        })
    }

    /// As NVML shows it, for example `96.00.9F.00.01`. A GPU writes eight bytes in little-endian order, four of the version
    /// and one more in front of them; a switch writes text.
    pub(super) fn vbios_version(&self) -> Option<String> {
        match *self.get(field::VBIOS_VERSION)? {
            [d, c, b, a, last, ..] if self.get(field::VBIOS_VERSION)?.len() == 8 => {
                Some(format!("{a:02X}.{b:02X}.{c:02X}.{d:02X}.{last:02X}"))
            }
            _ => self.text(field::VBIOS_VERSION),
        }
    }

    /// The version of this layout; 0 where the field is missing.
    pub(super) fn version(&self) -> Option<u64> {
        if self.get(field::OPAQUE_VERSION).is_none() { Some(0) } else { self.number(field::OPAQUE_VERSION) }
    }

    /// Ids of the switches that a GPU sees, in the byte order in which switches write their own (it is the other way
    /// round in a GPU's report).
    pub(super) fn switches(&self) -> Option<Vec<[u8; PDI]>> {
        let ids = self.get(field::PDI)?.chunks_exact(PDI);
        ids.remainder().is_empty().then(|| ids.map(reversed).collect())
    }

    /// A switch's own id.
    pub(super) fn switch_id(&self) -> Option<[u8; PDI]> {
        self.get(field::PDI)?.try_into().ok()
    }

    /// Ids of the GPUs that a switch sees, as it writes them.
    pub(super) fn gpus(&self) -> Option<Vec<[u8; PDI]>> {
        let ids = self.get(field::SWITCH_GPU_PDIS)?.get(..SWITCH_GPUS * PDI)?;
        Some(ids.chunks_exact(PDI).map(|id| id.try_into().expect("chunks have this length")).collect())
    }
}

fn reversed(id: &[u8]) -> [u8; PDI] {
    let mut id: [u8; PDI] = id.try_into().expect("chunks have this length");
    id.reverse();
    id
}
