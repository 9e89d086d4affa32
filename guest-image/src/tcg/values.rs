//! The bytes behind events: UEFI variables and boot options.

use crate::digest::sha384;

/// 8be4df61-93ca-11d2-aa0d-00e098032b8c: EFI_GLOBAL_VARIABLE (UEFI 2.10, 3.3).
pub(super) const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// d719b2cb-3d3a-4596-a3bc-dad00e67656f: EFI_IMAGE_SECURITY_DATABASE (UEFI 2.10, 32.6.1).
pub(super) const IMAGE_SECURITY: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// 462caa21-7614-4503-836e-8ab6f4662331: the file of the set-up program in OVMF's volume.
pub(super) const UI_APP: [u8; 16] =
    [0x21, 0xaa, 0x2c, 0x46, 0x14, 0x76, 0x03, 0x45, 0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31];
/// eec25bdc-67f2-4d95-b1d5-f81b2039d11d: the file of the boot menu in OVMF's volume.
pub(super) const BOOT_MANAGER_MENU: [u8; 16] =
    [0xdc, 0x5b, 0xc2, 0xee, 0xf2, 0x67, 0x95, 0x4d, 0xb1, 0xd5, 0xf8, 0x1b, 0x20, 0x39, 0xd1, 0x1d];
/// 7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1: OVMF's volume of drivers and programs.
const VOLUME: [u8; 16] =
    [0xc9, 0xbd, 0xb8, 0x7c, 0xeb, 0xf8, 0x34, 0x4f, 0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1];

/// A boot option for a program in the firmware itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadOption {
    pub(super) attributes: u32,
    pub(super) title: &'static str,
    /// GUID of the program's file, as its bytes lie in a device path.
    pub(super) program: [u8; 16],
}

impl LoadOption {
    /// EFI_LOAD_OPTION (UEFI 2.10, 3.1.3): attributes, length of the path, title, path of volume and file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        const VOLUME_NODE: [u8; 4] = [4, 7, 20, 0];
        const FILE_NODE: [u8; 4] = [4, 6, 20, 0];
        const END_NODE: [u8; 4] = [0x7f, 0xff, 4, 0];
        const PATH: u16 = 20 + 20 + 4;
        let mut option = self.attributes.to_le_bytes().to_vec();
        option.extend_from_slice(&PATH.to_le_bytes());
        option.extend_from_slice(&utf16(self.title));
        for part in [&VOLUME_NODE[..], &VOLUME, &FILE_NODE, &self.program, &END_NODE] {
            option.extend_from_slice(part);
        }
        option
    }
}

/// UTF-16, little endian, with a closing zero.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// SHA-384 of UEFI_VARIABLE_DATA (TCG PFP 1.06, 10.4.2.6) of a variable that does not exist: vendor, lengths, name.
pub(super) fn absent_variable(vendor: &[u8; 16], name: &str) -> [u8; 48] {
    let utf16 = utf16(name);
    let without_zero = &utf16[..utf16.len() - 2];
    let characters = (without_zero.len() / 2) as u64;
    sha384(&[vendor, &characters.to_le_bytes(), &0_u64.to_le_bytes(), without_zero])
}
