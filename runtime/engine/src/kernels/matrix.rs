//! Weights, repacked into tiles of 16 rows so that a register holds the same columns of 16 rows and no sum ever
//! runs across a register.
//!
//! | kind | one block of a tile: 16 rows × 32 columns |
//! | --- | --- |
//! | Q4, Q4Min | 4 lines; in line `l`, 32-bit word `r`, byte `k`: row `r`, columns `4l+k` (low nibble) and `16+4l+k` |
//! | Q8 | 8 lines; in line `l`, word `r`, byte `k`: row `r`, column `4l+k`, plus 128 |
//! | scales | 16 halves, and for Q4Min 16 minima after them |
//!
//! F16, BF16 and F32 tiles hold 16 rows of column 0, then of column 1, and so on. Blocks of five and six bits, and those
//! with scales of scales, are in `kquants`.

use super::{
    InstructionSet, Pool,
    activations::Activations,
    half,
    kquants::{Kind, Packed},
    memory::filled,
    scalar,
};
use crate::container::Format;

/// Rows in a tile.
pub(crate) const TILE: usize = 16;
/// Tokens that one pass over a tile serves at most.
pub(super) const TOKENS: usize = 8;

/// 64 bytes on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u8; 64]);

/// How the weights of a matrix are stored.
pub(super) enum Weights {
    /// Nibbles less 8, times a scale.
    Q4 {
        lines: Vec<Line>,
        scales: Vec<u16>,
    },
    /// Nibbles times a scale, plus a minimum.
    Q4Min {
        lines: Vec<Line>,
        scales: Vec<u16>,
    },
    /// Bytes less 128, times a scale.
    Q8 {
        lines: Vec<Line>,
        scales: Vec<u16>,
    },
    /// Q5_0, Q4_K, Q5_K and Q6_K.
    Finer(Packed),
    F16(Vec<u16>),
    Bf16(Vec<u16>),
    F32(Vec<f32>),
}

/// A matrix of weights in tiles.
pub(crate) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) weights: Weights,
}

impl Matrix {
    /// Repacks `data`, the rows of a tensor one after the other. The caller has checked that their sizes fit.
    pub(crate) fn pack(format: Format, rows: usize, columns: usize, data: &[u8]) -> Self {
        let row_bytes = columns / format.block_len() * format.block_bytes();
        assert_eq!(data.len(), rows * row_bytes, "the directory was checked");
        let weights = match format {
            Format::Q4_0 => {
                let (lines, scales) = pack_blocks(data, rows, columns, 18, 1, 4, 0);
                Weights::Q4 { lines, scales }
            }
            Format::Q4_1 => {
                let (lines, scales) = pack_blocks(data, rows, columns, 20, 2, 4, 0);
                Weights::Q4Min { lines, scales }
            }
            Format::Q8_0 => {
                let (lines, scales) = pack_blocks(data, rows, columns, 34, 1, 8, 0x80);
                Weights::Q8 { lines, scales }
            }
            Format::Q5_0 => Weights::Finer(Packed::pack(Kind::Q5, rows, columns, data)),
            Format::Q4K => Weights::Finer(Packed::pack(Kind::Q4K, rows, columns, data)),
            Format::Q5K => Weights::Finer(Packed::pack(Kind::Q5K, rows, columns, data)),
            Format::Q6K => Weights::Finer(Packed::pack(Kind::Q6K, rows, columns, data)),
            Format::F16 => Weights::F16(pack_numbers(data, rows, columns, u16::from_le_bytes)),
            Format::Bf16 => Weights::Bf16(pack_numbers(data, rows, columns, u16::from_le_bytes)),
            Format::F32 => Weights::F32(pack_numbers(data, rows, columns, f32::from_le_bytes)),
        };
        Self { rows, columns, weights }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// How a GGUF file stores it.
    pub(crate) fn format(&self) -> Format {
        match &self.weights {
            Weights::Q4 { .. } => Format::Q4_0,
            Weights::Q4Min { .. } => Format::Q4_1,
            Weights::Q8 { .. } => Format::Q8_0,
            Weights::Finer(packed) => packed.format(),
            Weights::F16(_) => Format::F16,
            Weights::Bf16(_) => Format::Bf16,
            Weights::F32(_) => Format::F32,
        }
    }

    /// What [`Self::pack`] was given.
    pub(crate) fn unpack(&self) -> Vec<u8> {
        let row_bytes = self.columns / self.format().block_len() * self.format().block_bytes();
        let mut out = Vec::with_capacity(self.rows * row_bytes);
        for row in 0..self.rows {
            match &self.weights {
                Weights::Q4 { lines, scales } => self.unpack_blocks(row, lines, scales, 1, 0, &mut out),
                Weights::Q4Min { lines, scales } => self.unpack_blocks(row, lines, scales, 2, 0, &mut out),
                Weights::Q8 { lines, scales } => self.unpack_blocks(row, lines, scales, 1, 0x80, &mut out),
                Weights::Finer(packed) => packed.unpack(row, &mut out),
                Weights::F16(values) | Weights::Bf16(values) => {
                    out.extend(self.numbers(row, values).flat_map(u16::to_le_bytes));
                }
                Weights::F32(values) => out.extend(self.numbers(row, values).flat_map(f32::to_le_bytes)),
            }
        }
        out
    }

    /// A row of quantised blocks, as [`pack_blocks`] took it.
    fn unpack_blocks(
        &self,
        row: usize,
        lines: &[Line],
        scales: &[u16],
        halves: usize,
        flip: u8,
        out: &mut Vec<u8>,
    ) {
        let (blocks, tile, lane) = (self.columns / 32, row / TILE, row % TILE);
        let each = lines.len() / (self.tiles() * blocks);
        for at in tile * blocks..(tile + 1) * blocks {
            let scales = scales[at * halves * TILE..].chunks_exact(TILE).take(halves);
            out.extend(scales.flat_map(|scales| scales[lane].to_le_bytes()));
            for line in &lines[at * each..(at + 1) * each] {
                out.extend(line.0[lane * 4..lane * 4 + 4].iter().map(|byte| byte ^ flip));
            }
        }
    }

    /// A row of numbers.
    fn numbers<'v, T: Copy>(&self, row: usize, values: &'v [T]) -> impl Iterator<Item = T> + 'v {
        let start = row / TILE * self.columns * TILE + row % TILE;
        values[start..].iter().step_by(TILE).take(self.columns).copied()
    }

    /// Bytes of weights that one product reads.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match &self.weights {
            Weights::Q4 { lines, scales }
            | Weights::Q4Min { lines, scales }
            | Weights::Q8 { lines, scales } => size_of_val(lines.as_slice()) + size_of_val(scales.as_slice()),
            Weights::Finer(packed) => packed.bytes(),
            Weights::F16(values) | Weights::Bf16(values) => size_of_val(values.as_slice()),
            Weights::F32(values) => size_of_val(values.as_slice()),
        };
        bytes as u64
    }

    /// Whether every weight, or every scale of quantised ones, is a finite number.
    pub(crate) fn is_finite(&self) -> bool {
        match &self.weights {
            Weights::Q4 { scales, .. } | Weights::Q4Min { scales, .. } | Weights::Q8 { scales, .. } => {
                scales.iter().all(|scale| half::is_finite(*scale))
            }
            Weights::Finer(packed) => packed.is_finite(),
            Weights::F16(values) => values.iter().all(|value| half::is_finite(*value)),
            Weights::Bf16(values) => values.iter().all(|value| half::widen_brain(*value).is_finite()),
            Weights::F32(values) => values.iter().all(|value| value.is_finite()),
        }
    }

    /// Writes one row as floats: the embedding of a token.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let blocks = self.columns / 32;
        let (tile, lane) = (row / TILE, row % TILE);
        let each = |out: &mut [f32], scales: &[u16], step: usize, value: &dyn Fn(usize, usize) -> f32| {
            for (block, out) in out.chunks_exact_mut(32).enumerate() {
                let at = (tile * blocks + block) * step;
                let scale = half::widen(scales[at + lane]);
                let least = if step == 2 * TILE { half::widen(scales[at + TILE + lane]) } else { 0.0 };
                for (column, out) in out.iter_mut().enumerate() {
                    *out = value(tile * blocks + block, column).mul_add(scale, least);
                }
            }
        };
        let nibble = |lines: &[Line], block: usize, column: usize| {
            let byte = lines[block * 4 + column % 16 / 4].0[lane * 4 + column % 4];
            f32::from(if column < 16 { byte & 15 } else { byte >> 4 })
        };
        match &self.weights {
            Weights::Q4 { lines, scales } => each(out, scales, TILE, &|b, c| nibble(lines, b, c) - 8.0),
            Weights::Q4Min { lines, scales } => each(out, scales, 2 * TILE, &|b, c| nibble(lines, b, c)),
            Weights::Q8 { lines, scales } => each(out, scales, TILE, &|block, column| {
                f32::from(lines[block * 8 + column / 4].0[lane * 4 + column % 4]) - 128.0
            }),
            Weights::Finer(packed) => packed.row(row, out),
            Weights::F16(values) => {
                let tile = &values[tile * self.columns * TILE..];
                out.iter_mut().zip(tile.chunks_exact(TILE)).for_each(|(out, v)| *out = half::widen(v[lane]));
            }
            Weights::Bf16(values) => {
                let tile = values[tile * self.columns * TILE..].chunks_exact(TILE);
                out.iter_mut().zip(tile).for_each(|(out, v)| *out = half::widen_brain(v[lane]));
            }
            Weights::F32(values) => {
                let tile = &values[tile * self.columns * TILE..];
                out.iter_mut().zip(tile.chunks_exact(TILE)).for_each(|(out, v)| *out = v[lane]);
            }
        }
    }

    /// The product of one tile with the activations of some tokens: 16 floats for each.
    fn product(&self, set: InstructionSet, tile: usize, inputs: &[&Activations], out: &mut [f32]) {
        if let Weights::Finer(packed) = &self.weights {
            return packed.product(set, tile, inputs, out);
        }
        #[cfg(target_arch = "x86_64")]
        match set {
            InstructionSet::Avx512Vnni if super::avx512::product(self, tile, inputs, out) => return,
            InstructionSet::Avx2 if super::avx2::product(self, tile, inputs, out) => return,
            _ => {}
        }
        scalar::product(set, self, tile, inputs, out);
    }
}

/// Multiplies several matrices with the same activations. `out` is in tiles: for each tile of each matrix, for each
/// token, 16 rows.
pub(crate) fn multiply<I: AsRef<Activations> + Sync>(
    pool: &Pool,
    matrices: &[&Matrix],
    inputs: &[I],
    out: &mut [f32],
) {
    let tiles: usize = matrices.iter().map(|matrix| matrix.tiles()).sum();
    let tile_len = TILE * inputs.len();
    let set = pool.instruction_set();
    pool.each_run(&mut out[..tiles * tile_len], tile_len, |first, out| {
        let (mut tile, mut rest) = (first, matrices.iter());
        let mut matrix = rest.next().expect("tiles come from a matrix");
        for out in out.chunks_exact_mut(tile_len) {
            while tile >= matrix.tiles() {
                tile -= matrix.tiles();
                matrix = rest.next().expect("tiles come from a matrix");
            }
            for (inputs, out) in inputs.chunks(TOKENS).zip(out.chunks_mut(TOKENS * TILE)) {
                let first = inputs[0].as_ref();
                let mut group = [first; TOKENS];
                group.iter_mut().zip(inputs).for_each(|(place, input)| *place = input.as_ref());
                matrix.product(set, tile, &group[..inputs.len()], out);
            }
            tile += 1;
        }
    });
}

/// Repacks quantised blocks: `halves` scales first, then `lines` 32-bit words. `flip` is xored into each byte.
fn pack_blocks(
    data: &[u8],
    rows: usize,
    columns: usize,
    block_bytes: usize,
    halves: usize,
    lines: usize,
    flip: u8,
) -> (Vec<Line>, Vec<u16>) {
    let blocks = columns / 32;
    let tiles = rows.div_ceil(TILE);
    // Rows that fill the last tile up: quants that mean zero, scales of zero.
    let mut packed = filled(Line([flip; 64]), tiles * blocks * lines);
    let mut scales = filled(0u16, tiles * blocks * halves * TILE);
    for (row, data) in data.chunks_exact(blocks * block_bytes).enumerate() {
        let (tile, lane) = (row / TILE, row % TILE);
        for (block, data) in data.chunks_exact(block_bytes).enumerate() {
            let at = tile * blocks + block;
            let (head, quants) = data.split_at(halves * 2);
            for (index, half) in head.chunks_exact(2).enumerate() {
                scales[(at * halves + index) * TILE + lane] = u16::from_le_bytes([half[0], half[1]]);
            }
            let target = &mut packed[at * lines..(at + 1) * lines];
            for (line, word) in target.iter_mut().zip(quants.chunks_exact(4)) {
                let word = u32::from_ne_bytes(word.try_into().expect("four bytes"));
                let word = word ^ u32::from_ne_bytes([flip; 4]);
                line.0[lane * 4..lane * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
        }
    }
    (packed, scales)
}

fn pack_numbers<const N: usize, T: Copy + Default>(
    data: &[u8],
    rows: usize,
    columns: usize,
    read: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let mut packed = filled(T::default(), rows.div_ceil(TILE) * columns * TILE);
    for (row, data) in data.chunks_exact(columns * N).enumerate() {
        let start = row / TILE * columns * TILE + row % TILE;
        for (column, number) in data.chunks_exact(N).enumerate() {
            packed[start + column * TILE] = read(number.try_into().expect("N bytes"));
        }
    }
    packed
}
