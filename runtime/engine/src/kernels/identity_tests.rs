//! Products by hash, format by format: see [`crate::identity`]. A new format gets an entry of its own there, so that those
//! of the others stay what they are.

use super::*;

/// Rows of random blocks: bytes, with scales that are numbers of a sane size at these places.
fn rows(numbers: &mut Numbers, format: Format, count: usize, scales: &[usize]) -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..count {
        let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| numbers.next() as u8).collect();
        for &at in scales {
            block[at..at + 2].copy_from_slice(&half::narrow(numbers.float() * 0.1).to_le_bytes());
        }
        if format == Format::F32 {
            block = numbers.float().to_le_bytes().to_vec();
        }
        data.extend(block);
    }
    data
}

#[test]
fn products_are_those_that_the_digest_stands_on() {
    let formats: [(Format, &[usize]); 5] = [
        (Format::F32, &[]),
        (Format::F16, &[0]),
        (Format::Q4_0, &[0]),
        (Format::Q4_1, &[0, 2]),
        (Format::Q8_0, &[0]),
    ];
    for set in sets() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for (seed, (format, scales)) in (1..).zip(formats) {
            let (height, columns, tokens) = (33, 576, 3);
            let mut numbers = Numbers(seed * 104_729);
            let data = rows(&mut numbers, format, height * columns / format.block_len(), scales);
            let matrix = Matrix::pack(format, height, columns, &data);
            let all = inputs(&mut numbers, set, tokens, columns);
            let mut out = vec![0.0; matrix.tiles() * TILE * tokens];
            multiply(&Pool::new(2, set), &[&matrix], &all, &mut out);
            for byte in out.iter().flat_map(|float| float.to_le_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        assert_eq!(Some(hash), crate::Identity::bits("products"), "{}: {hash:#018x}", set.name());
    }
}
