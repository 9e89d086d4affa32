//! The table of GUIDs at the end of an OVMF image, by which QEMU finds what it needs.
//!
//! OVMF's ResetVector/Ia16/ResetVectorVtf0.asm: the table ends 32 bytes before the end of the image and is read backwards.
//! Each entry is its data, then its whole length (2 bytes, little endian), then its GUID; the first entry that is read
//! (the last in the file) has the whole table's length and [`FOOTER`].

use crate::reader::{bytes, u16};

/// 96b582de-1fb2-45f7-baea-a366c55a082d
const FOOTER: [u8; 16] =
    [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
/// What follows the table: the reset vector.
const AFTER: usize = 32;
/// Length and GUID of an entry.
const TAIL: usize = 18;

/// The data of the entry with this GUID (as its bytes lie in the file); `None` if there is no table or no such entry.
pub(crate) fn find<'a>(image: &'a [u8], guid: &[u8; 16]) -> Option<&'a [u8]> {
    let end = image.len().checked_sub(AFTER)?;
    let (table, _) = image.split_at_checked(end)?;
    let footer = table.len().checked_sub(TAIL)?;
    if bytes::<16>(table, footer + 2)? != FOOTER {
        return None;
    }
    let length = usize::from(u16(table, footer)?);
    let start = table.len().checked_sub(length)?;
    let mut rest = table.get(start..footer)?;
    while let Some(tail) = rest.len().checked_sub(TAIL) {
        let length = usize::from(u16(rest, tail)?);
        let start = rest.len().checked_sub(length)?;
        if length < TAIL {
            return None;
        }
        if bytes::<16>(rest, tail + 2)? == *guid {
            return rest.get(start..tail);
        }
        rest = rest.get(..start)?;
    }
    None
}
