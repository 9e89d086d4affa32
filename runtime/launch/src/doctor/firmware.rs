//! What a guest's firmware can do, from the table of GUIDs at its end (OVMF's reset vector; edk2,
//! OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm).

/// No firmware that is looked at is longer.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// The reset vector's last bytes, behind the table.
const BEHIND_TABLE: usize = 32;
/// An entry ends with its length (u16) and its GUID.
const ENTRY_END: usize = 18;

/// GUIDs as they lie in the file.
const FOOTER: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
const TDX_METADATA: [u8; 16] =
    guid(0xe47a_6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);
const SEV_METADATA: [u8; 16] =
    guid(0xdc88_6566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
const SEV_HASHES: [u8; 16] =
    guid(0x7255_371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// What a firmware can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It has the table at all: it is an OVMF.
    pub(super) table: bool,
    /// TDVF metadata, where a TD's builder finds its sections.
    pub(super) tdx: bool,
    /// SEV metadata, where an SNP guest's builder finds its sections.
    pub(super) snp: bool,
    /// A place for the hashes of kernel, initrd and command line: without it they are not in the launch digest.
    pub(super) snp_hashes: bool,
}

/// Reads the table. A file of any other kind can do nothing.
pub(super) fn abilities(file: &[u8]) -> Abilities {
    let mut found = Abilities::default();
    let Some(mut rest) = table(file) else { return found };
    found.table = true;
    while let Some((guid, data, before)) = entry(rest) {
        let points = data.get(..4).is_some_and(|offset| offset != [0; 4]);
        match guid {
            TDX_METADATA => {
                found.tdx = points && at_offset(file, data).is_some_and(|m| m.starts_with(b"TDVF"))
            }
            SEV_METADATA => {
                found.snp = points && at_offset(file, data).is_some_and(|m| m.starts_with(b"ASEV"))
            }
            // Builds without it keep the entry, with address 0.
            SEV_HASHES => found.snp_hashes = points,
            _ => {}
        }
        rest = before;
    }
    found
}

/// The entries: everything before the footer, as long as the footer says.
fn table(file: &[u8]) -> Option<&[u8]> {
    let file = file.get(..file.len().checked_sub(BEHIND_TABLE)?)?;
    let before = file.len().checked_sub(ENTRY_END)?;
    let length = usize::from(u16::from_le_bytes(file.get(before..before + 2)?.try_into().ok()?));
    (file.get(before + 2..)? == FOOTER).then_some(())?;
    file.get(file.len().checked_sub(length)?..before)
}

/// The last entry: its GUID, its data, and what comes before it.
fn entry(table: &[u8]) -> Option<([u8; 16], &[u8], &[u8])> {
    let guid_at = table.len().checked_sub(16)?;
    let length_at = guid_at.checked_sub(2)?;
    let length = usize::from(u16::from_le_bytes(table.get(length_at..guid_at)?.try_into().ok()?));
    if length < ENTRY_END {
        return None;
    }
    let start = table.len().checked_sub(length)?;
    let guid = table.get(guid_at..)?.try_into().ok()?;
    Some((guid, table.get(start..length_at)?, table.get(..start)?))
}

/// What lies so many bytes before the file's end as the data's first four bytes say.
fn at_offset<'f>(file: &'f [u8], data: &[u8]) -> Option<&'f [u8]> {
    let offset = u32::from_le_bytes(data.get(..4)?.try_into().ok()?);
    file.get(file.len().checked_sub(usize::try_from(offset).ok()?)?..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A firmware with these entries and metadata.
    fn build(entries: &[([u8; 16], &[u8])], metadata: &[u8]) -> Vec<u8> {
        let mut file = vec![0xff; 256];
        file[..metadata.len()].copy_from_slice(metadata);
        let begin = file.len();
        for (guid, data) in entries {
            file.extend_from_slice(data);
            file.extend_from_slice(&u16::try_from(data.len() + ENTRY_END).expect("short").to_le_bytes());
            file.extend_from_slice(guid);
        }
        let length = u16::try_from(file.len() - begin + ENTRY_END).expect("short");
        file.extend_from_slice(&length.to_le_bytes());
        file.extend_from_slice(&FOOTER);
        file.extend_from_slice(&[0; BEHIND_TABLE]);
        file
    }

    fn tdx() -> Vec<u8> {
        let length = build(&[(TDX_METADATA, &[0; 4]), (SEV_HASHES, &[0; 8])], b"").len();
        let offset = u32::try_from(length).expect("short").to_le_bytes();
        build(&[(TDX_METADATA, &offset), (SEV_HASHES, &[0; 8])], b"TDVF")
    }

    #[test]
    fn an_entry_that_points_nowhere_is_no_ability() {
        assert_eq!(abilities(&tdx()), Abilities { table: true, tdx: true, snp: false, snp_hashes: false });
        let hashes = build(&[(SEV_HASHES, &[0, 0x0c, 0x81, 0, 0, 4, 0, 0])], b"");
        assert!(abilities(&hashes).snp_hashes);
    }

    #[test]
    fn a_file_without_the_table_is_no_firmware() {
        for file in [&b""[..], b"x", &[0; 31], &[0; 50], &[0xff; 4096]] {
            assert_eq!(abilities(file), Abilities::default());
        }
    }

    proptest! {
        #[test]
        fn a_damaged_firmware_does_no_harm(at in 0..400_usize, byte: u8, cut in 0..400_usize) {
            let mut file = tdx();
            let length = file.len();
            file[at % length] = byte;
            abilities(&file);
            abilities(file.get(..cut.min(length)).expect("shorter"));
        }
    }
}
