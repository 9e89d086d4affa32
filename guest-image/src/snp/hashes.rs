//! The page of hashes by which SNP firmware knows kernel, initrd and command line.
//!
//! QEMU, target/i386/sev.c, "SEV hash table": a head with GUID and whole length, then three entries of GUID, length and SHA-256;
//! zeros up to a multiple of 16 bytes, and around it up to the page.

use super::{Launch, PAGE};
use crate::digest::sha256;

/// 9438d606-4f22-4cc9-b479-a793d411fd21
const TABLE: [u8; 16] =
    [0x06, 0xd6, 0x38, 0x94, 0x22, 0x4f, 0xc9, 0x4c, 0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21];
/// 97d02dd8-bd20-4c94-aa78-e7714d36ab2a
const COMMAND_LINE: [u8; 16] =
    [0xd8, 0x2d, 0xd0, 0x97, 0x20, 0xbd, 0x94, 0x4c, 0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a];
/// 44baf731-3a2f-4bd7-9af1-41e29169781d
const INITRD: [u8; 16] =
    [0x31, 0xf7, 0xba, 0x44, 0x2f, 0x3a, 0xd7, 0x4b, 0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d];
/// 4de79437-abd2-427f-b835-d5b172d2045b
const KERNEL: [u8; 16] =
    [0x37, 0x94, 0xe7, 0x4d, 0xd2, 0xab, 0x7f, 0x42, 0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b];
/// GUID, length, hash.
const ENTRY: u16 = 16 + 2 + 32;
const TABLE_LENGTH: u16 = 16 + 2 + 3 * ENTRY;

/// The page, with the table `offset` bytes into it; `None` if it does not fit.
pub(super) fn page(offset: usize, launch: &Launch<'_>) -> Option<[u8; PAGE]> {
    let mut table = Vec::with_capacity(usize::from(TABLE_LENGTH));
    table.extend_from_slice(&TABLE);
    table.extend_from_slice(&TABLE_LENGTH.to_le_bytes());
    let command_line = sha256(&[launch.command_line.as_bytes(), b"\0"]);
    let entries = [
        (COMMAND_LINE, command_line),
        (INITRD, sha256(&[launch.initrd])),
        (KERNEL, sha256(&[launch.kernel])),
    ];
    for (guid, hash) in entries {
        table.extend_from_slice(&guid);
        table.extend_from_slice(&ENTRY.to_le_bytes());
        table.extend_from_slice(&hash);
    }
    let mut page = [0; PAGE];
    page.get_mut(offset..offset + table.len())?.copy_from_slice(&table);
    Some(page)
}
