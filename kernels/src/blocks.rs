//! GGUF's blocks taken apart (the structures of ggml's `ggml-common.h`), and put together as kernels read them.

use crate::layout::Format;

/// Most halves of a row of a group: Q6_K's.
pub(crate) const MAX_LINES: usize = 41;
/// Most bytes of vectors of a row of a group.
const MAX_VECTORS: usize = 8 * 16;

/// One row of a group of blocks that share something, as `cuda/formats.cuh` has it.
pub(crate) struct Group {
    /// Vectors of its blocks, one after the other.
    pub(crate) vectors: [u8; MAX_VECTORS],
    /// Its lines of halves.
    pub(crate) lines: [u16; MAX_LINES],
}

impl Group {
    /// Takes a group of the file, of [`Format::block_bytes`]. Formats of single numbers have none.
    pub(crate) fn read(format: Format, data: &[u8]) -> Self {
        let mut group = Self { vectors: [0; MAX_VECTORS], lines: [0; MAX_LINES] };
        let half = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        match format {
            Format::Q4_0 | Format::Q8_0 => {
                group.lines[0] = half(0);
                group.vectors[..data.len() - 2].copy_from_slice(&data[2..]);
            }
            Format::Q4_1 => {
                group.lines[..2].copy_from_slice(&[half(0), half(2)]);
                group.vectors[..16].copy_from_slice(&data[4..]);
            }
            Format::Q5_0 => {
                group.lines[0] = half(0);
                let quants = std::array::from_fn(|column| {
                    let low = data[6 + column % 16] >> (4 * (column / 16)) & 15;
                    low | (data[2 + column / 8] >> (column % 8) & 1) << 4
                });
                group.take(0, &quants);
                group.fifth(1, &quants);
            }
            Format::Q4K | Format::Q5K => group.stepped(format, data),
            Format::Q6K => group.sixth(data),
            Format::F16 | Format::Bf16 | Format::F32 => {}
        }
        group
    }

    /// The low nibbles of a block.
    fn take(&mut self, block: usize, quants: &[u8; 32]) {
        for (column, byte) in self.vectors[block * 16..][..16].iter_mut().enumerate() {
            *byte = quants[column] & 15 | quants[16 + column] << 4;
        }
    }

    /// The fifth bits of a block, as two lines.
    fn fifth(&mut self, line: usize, quants: &[u8; 32]) {
        let word = quants.iter().enumerate().fold(0u32, |word, (column, quant)| {
            word | u32::from(quant >> 4 & 1) << (column % 4 * 8 + column % 16 / 4 + column / 16 * 4)
        });
        self.word(line, word);
    }

    fn word(&mut self, line: usize, word: u32) {
        self.lines[line] = word as u16;
        self.lines[line + 1] = (word >> 16) as u16;
    }

    /// Q4_K and Q5_K: d, m, 12 bytes of scales; Q5_K: 32 bytes of high bits; 128 bytes of nibbles.
    fn stepped(&mut self, format: Format, data: &[u8]) {
        let fifth = format == Format::Q5K;
        self.lines[0] = u16::from_le_bytes([data[0], data[1]]);
        self.lines[1] = u16::from_le_bytes([data[2], data[3]]);
        let (high, low) = data[16..].split_at(if fifth { 32 } else { 0 });
        for block in 0..8 {
            let [scale, least] = steps(&data[4..16], block);
            self.lines[2 + block] = u16::from_le_bytes([scale, least]);
            let quants = std::array::from_fn(|place| {
                let low = low[block / 2 * 32 + place] >> (4 * (block % 2)) & 15;
                low | high.get(place).map_or(0, |high| (high >> block & 1) << 4)
            });
            self.take(block, &quants);
            if fifth {
                self.fifth(10 + block * 2, &quants);
            }
        }
    }

    /// Q6_K: 128 bytes of nibbles, 64 of pairs of bits, 16 scales, d.
    fn sixth(&mut self, data: &[u8]) {
        self.lines[0] = u16::from_le_bytes([data[208], data[209]]);
        for block in 0..8 {
            self.lines[1 + block] = u16::from_le_bytes([data[192 + block * 2], data[193 + block * 2]]);
            let (part, quarter) = (block / 4, block % 4);
            let quants: [u8; 32] = std::array::from_fn(|place| {
                let low = data[part * 64 + quarter % 2 * 32 + place] >> (4 * (quarter / 2)) & 15;
                low | (data[128 + part * 32 + place] >> (2 * quarter) & 3) << 4
            });
            self.take(block, &quants);
            for (nth, quants) in quants.chunks_exact(16).enumerate() {
                let word = quants.iter().enumerate().fold(0u32, |word, (column, quant)| {
                    word | u32::from(quant >> 4) << (column % 4 * 8 + column / 4 * 2)
                });
                self.word(9 + block * 4 + nth * 2, word);
            }
        }
    }
}

/// Scale and minimum of a block, of the six bits each that Q4_K and Q5_K pack.
fn steps(packed: &[u8], block: usize) -> [u8; 2] {
    if block < 4 {
        return [packed[block] & 63, packed[block + 4] & 63];
    }
    let both = packed[block + 4];
    [both & 15 | packed[block - 4] >> 6 << 4, both >> 4 | packed[block] >> 6 << 4]
}
