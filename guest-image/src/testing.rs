//! Small files of the real formats, for tests.

/// A firmware image of 64 KiB with metadata for TDX and SNP: code that counts, 4 KiB of variables, memory as OVMF 2025.02
/// has it.
pub(crate) fn firmware() -> Vec<u8> {
    const SIZE: usize = 0x10000;
    let base = 0x1_0000_0000_u64 - SIZE as u64;
    let mut image: Vec<u8> = (0..SIZE).map(|at| (at / 7 + at % 251) as u8).collect();
    image[..0x1000].fill(0xff);
    let sections: [(u32, u32, u64, u64, u32, u32); 6] = [
        (0x1000, 0xf000, base + 0x1000, 0xf000, 0, 1),
        (0, 0x1000, base, 0x1000, 1, 0),
        (0, 0, 0x81_1000, 0xf000, 3, 0),
        (0, 0, 0x80_b000, 0x2000, 3, 0),
        (0, 0, 0x80_9000, 0x2000, 2, 0),
        (0, 0, 0x80_0000, 0x6000, 3, 0),
    ];
    let mut tdvf = b"TDVF".to_vec();
    for word in [16 + 32 * 6, 1, 6_u32] {
        tdvf.extend_from_slice(&word.to_le_bytes());
    }
    for (offset, length, address, size, kind, attributes) in sections {
        tdvf.extend_from_slice(&offset.to_le_bytes());
        tdvf.extend_from_slice(&length.to_le_bytes());
        tdvf.extend_from_slice(&address.to_le_bytes());
        tdvf.extend_from_slice(&size.to_le_bytes());
        tdvf.extend_from_slice(&kind.to_le_bytes());
        tdvf.extend_from_slice(&attributes.to_le_bytes());
    }
    put(&mut image, TDVF_AT, &tdvf);
    let pages: [(u32, u32, u32); 4] =
        [(0x80_0000, 0x9000, 1), (0x80_d000, 0x1000, 2), (0x80_e000, 0x1000, 3), (0x81_0000, 0x1000, 0x10)];
    let mut asev = b"ASEV".to_vec();
    for word in [16 + 12 * 4, 1, 4_u32].into_iter().chain(pages.into_iter().flat_map(|(a, s, k)| [a, s, k])) {
        asev.extend_from_slice(&word.to_le_bytes());
    }
    put(&mut image, ASEV_AT, &asev);
    let from_end = |at: usize| ((SIZE - at) as u32).to_le_bytes().to_vec();
    let entries = [
        (from_end(ASEV_AT), 0xdc88_6566_984a_4798_a75e_5585_a7bf_67cc),
        (from_end(TDVF_AT), 0xe47a_6535_984a_4798_865e_4685_a7bf_8ec2),
        ([0x81_0c00_u32, 0x400].map(u32::to_le_bytes).concat(), 0x7255_371f_3a3b_4b04_927b_1da6_efa8_d454),
        (0x0080_b004_u32.to_le_bytes().to_vec(), 0x00f7_71de_1a7e_4fcb_890e_68c7_7e2f_b44e_u128),
    ];
    let mut table = Vec::new();
    for (data, guid) in entries {
        let length = (data.len() + 18) as u16;
        table.extend_from_slice(&data);
        table.extend_from_slice(&length.to_le_bytes());
        table.extend_from_slice(&in_file(guid));
    }
    let whole = (table.len() + 18) as u16;
    table.extend_from_slice(&whole.to_le_bytes());
    table.extend_from_slice(&in_file(0x96b5_82de_1fb2_45f7_baea_a366_c55a_082d));
    put(&mut image, SIZE - 32 - table.len(), &table);
    image
}

/// Where [`firmware`] has its metadata for TDX, in bytes.
pub(crate) const TDVF_AT: usize = 0xf000;
/// Where [`firmware`] has its metadata for SNP, in bytes.
pub(crate) const ASEV_AT: usize = 0xf200;

/// A PE32+ program of 1,096 bytes: headers, two sections out of order, 16 bytes behind them, a certificate table of 24.
pub(crate) fn program() -> Vec<u8> {
    let mut file = vec![0; 0x400];
    put(&mut file, 0, b"MZ");
    put(&mut file, 0x3c, &0x40_u32.to_le_bytes());
    put(&mut file, 0x40, b"PE\0\0");
    put(&mut file, 0x46, &2_u16.to_le_bytes()); // sections
    put(&mut file, 0x54, &(112_u16 + 16 * 8).to_le_bytes()); // optional header
    put(&mut file, 0x58, &0x20b_u16.to_le_bytes());
    put(&mut file, 0x58 + 60, &0x200_u32.to_le_bytes()); // headers
    put(&mut file, 0x58 + 64, &0x1234_5678_u32.to_le_bytes()); // checksum
    put(&mut file, 0x58 + 108, &16_u32.to_le_bytes()); // directories
    put(&mut file, SECURITY_AT, &[0x410_u32, 24].map(u32::to_le_bytes).concat());
    for (index, (size, start)) in [(0x100_u32, 0x300_u32), (0x100, 0x200)].into_iter().enumerate() {
        put(&mut file, 0x148 + index * 40 + 16, &[size, start].map(u32::to_le_bytes).concat());
    }
    for (at, byte) in file.iter_mut().enumerate().skip(0x200) {
        *byte = (at % 253) as u8;
    }
    file.extend_from_slice(&[0xaa; 16]);
    file.extend_from_slice(&[0xcc; 24]);
    file
}

/// Where [`program`] has the entry for its certificates, in bytes.
pub(crate) const SECURITY_AT: usize = 0x58 + 112 + 4 * 8;

/// A GUID's bytes as files have them.
fn in_file(guid: u128) -> [u8; 16] {
    let mut bytes = guid.to_be_bytes();
    for field in [0..4, 4..6, 6..8] {
        bytes[field].reverse();
    }
    bytes
}

pub(crate) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}
