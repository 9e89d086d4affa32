//! Weights of five and six bits, and of four with scales of scales: ggml's Q5_0, Q4_K, Q5_K and Q6_K in tiles.
//!
//! A block of a tile is 16 rows × 32 columns. Its first four lines hold the low four bits as `matrix.rs` has them: line
//! `l`, 32-bit word `r`, byte `k` is row `r`, columns `4l+k` (low nibble) and `16+4l+k` (high nibble). Higher bits follow
//! in lines of their own, so placed that one shift brings those of a line to their places in all bytes at once:
//!
//! | kind | lines | higher bits: byte `k` of word `r` | value |
//! | --- | --- | --- | --- |
//! | Q5 | 5 | bit `l`: column `4l+k`; bit `4+l`: column `16+4l+k` | `d (q - 16)` |
//! | Q4K | 4 | | `(d s) q - (m t)` |
//! | Q5K | 5 | as Q5 | `(d s) q - (m t)` |
//! | Q6K | 6 | two bits from `PLACES[l]` on: column `4l+k` in line 4, `16+4l+k` in line 5 | `d s (q - 32)`, `s` for 16 columns |
//!
//! `d` and `m` are halves for 256 columns (Q5: 32), `s` and `t` small integers for 32 columns. The products `d s` and
//! `m t` are exact in single precision, and so is Q6K's integer sum over 32 columns, of which no magnitude is over
//! 2 · 128 · 16 · 32 · 128 = 2^24. So each block adds to the sum by one fused multiplication (and one for the minimum),
//! in the order of the columns.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use super::{
    InstructionSet,
    activations::{Activations, Block},
    half,
    matrix::{Line, TILE},
    memory::filled,
};
use crate::container::Format;

/// Where in a byte Q6K keeps the two high bits of line `l`: shifts by 0, -2, +4 and +2 bring them to bits 4 and 5.
const PLACES: [u32; 4] = [4, 6, 0, 2];

/// Which of the layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Q5,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    /// Lines of a block.
    const fn lines(self) -> usize {
        match self {
            Self::Q4K => 4,
            Self::Q5 | Self::Q5K => 5,
            Self::Q6K => 6,
        }
    }

    /// Whether a block has a minimum.
    const fn has_minimum(self) -> bool {
        matches!(self, Self::Q4K | Self::Q5K)
    }

    /// Halves for each row of a super-block.
    const fn halves(self) -> usize {
        if self.has_minimum() { 2 } else { 1 }
    }

    /// Small integers for each row of a block.
    const fn steps(self) -> usize {
        if matches!(self, Self::Q5) { 0 } else { 2 }
    }

    /// Blocks of a super-block.
    const fn span(self) -> usize {
        if matches!(self, Self::Q5) { 1 } else { 8 }
    }

    /// Bytes of a super-block in the file.
    const fn file_bytes(self) -> usize {
        match self {
            Self::Q5 => 22,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

/// A matrix in tiles of one of these kinds.
pub(super) struct Packed {
    kind: Kind,
    /// Blocks of 32 columns in a row.
    blocks: usize,
    lines: Vec<Line>,
    /// For each super-block 16 halves `d`, and for kinds with a minimum 16 halves `m` after them.
    scales: Vec<u16>,
    /// For each block 16 bytes `s`, then 16 bytes `t` (Q6K: `s` of columns 0 to 15 and of 16 to 31, signed).
    steps: Vec<u8>,
}

/// What one block of a tile is made of.
struct Parts<'a> {
    lines: &'a [Line],
    scales: &'a [u16],
    steps: &'a [u8],
}

impl Packed {
    /// Repacks the rows of a tensor, `columns` long each; the caller has checked that the sizes fit.
    pub(super) fn pack(kind: Kind, rows: usize, columns: usize, data: &[u8]) -> Self {
        let blocks = columns / 32;
        let supers = blocks / kind.span();
        let tiles = rows.div_ceil(TILE);
        let mut packed = Self {
            kind,
            blocks,
            lines: filled(Line([0; 64]), tiles * blocks * kind.lines()),
            scales: filled(0, tiles * supers * kind.halves() * TILE),
            steps: filled(0, tiles * blocks * kind.steps() * TILE),
        };
        for (row, data) in data.chunks_exact(supers * kind.file_bytes()).enumerate() {
            for (index, data) in data.chunks_exact(kind.file_bytes()).enumerate() {
                packed.take(row, index, &Unpacked::read(kind, data));
            }
        }
        packed
    }

    /// Puts super-block `index` of a row in its place.
    fn take(&mut self, row: usize, index: usize, from: &Unpacked) {
        let (kind, tile, lane) = (self.kind, row / TILE, row % TILE);
        let at = tile * (self.blocks / kind.span()) + index;
        for (nth, half) in from.halves[..kind.halves()].iter().enumerate() {
            self.scales[(at * kind.halves() + nth) * TILE + lane] = *half;
        }
        for block in 0..kind.span() {
            let at = at * kind.span() + block;
            for (nth, step) in from.steps[block][..kind.steps()].iter().enumerate() {
                self.steps[(at * kind.steps() + nth) * TILE + lane] = *step;
            }
            let lines = &mut self.lines[at * kind.lines()..][..kind.lines()];
            for (column, quant) in from.quants[block * 32..][..32].iter().enumerate() {
                let (l, byte, high) = (column % 16 / 4, lane * 4 + column % 4, column / 16);
                lines[l].0[byte] |= (quant & 15) << (4 * high);
                match kind {
                    Kind::Q4K => {}
                    Kind::Q5 | Kind::Q5K => lines[4].0[byte] |= (quant >> 4) << (l + 4 * high),
                    Kind::Q6K => lines[4 + high].0[byte] |= (quant >> 4) << PLACES[l],
                }
            }
        }
    }

    /// How a GGUF file stores it.
    pub(super) fn format(&self) -> Format {
        match self.kind {
            Kind::Q5 => Format::Q5_0,
            Kind::Q4K => Format::Q4K,
            Kind::Q5K => Format::Q5K,
            Kind::Q6K => Format::Q6K,
        }
    }

    /// Appends a row as [`Self::pack`] took it.
    pub(super) fn unpack(&self, row: usize, out: &mut Vec<u8>) {
        let (kind, lane) = (self.kind, row % TILE);
        for index in 0..self.blocks / kind.span() {
            let mut taken = Unpacked { halves: [0; 2], steps: [[0; 2]; 8], quants: [0; 256] };
            for block in 0..kind.span() {
                let parts = self.parts(kind, row / TILE, index * kind.span() + block);
                for (nth, half) in taken.halves[..kind.halves()].iter_mut().enumerate() {
                    *half = parts.scales[nth * TILE + lane];
                }
                for (nth, step) in taken.steps[block][..kind.steps()].iter_mut().enumerate() {
                    *step = parts.steps[nth * TILE + lane];
                }
                for (column, quant) in taken.quants[block * 32..][..32].iter_mut().enumerate() {
                    *quant = parts.quant(kind, lane, column);
                }
            }
            taken.write(kind, out);
        }
    }

    /// Bytes that one product reads.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.scales) + self.steps.len()
    }

    /// Whether every scale and minimum is a finite number.
    pub(super) fn is_finite(&self) -> bool {
        self.scales.iter().all(|scale| half::is_finite(*scale))
    }

    /// A block of a tile; `kind` is this one's, known when kernels are compiled.
    #[inline(always)]
    fn parts(&self, kind: Kind, tile: usize, block: usize) -> Parts<'_> {
        let at = tile * self.blocks + block;
        let (lines, halves, steps) = (kind.lines(), kind.halves() * TILE, kind.steps() * TILE);
        Parts {
            lines: &self.lines[at * lines..][..lines],
            scales: &self.scales[at / kind.span() * halves..][..halves],
            steps: &self.steps[at * steps..][..steps],
        }
    }

    /// Writes one row as floats, with the bits that ggml's reference gives.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let (tile, lane) = (row / TILE, row % TILE);
        for (block, out) in out.chunks_exact_mut(32).enumerate() {
            let parts = self.parts(self.kind, tile, block);
            let d = half::widen(parts.scales[lane]);
            for (column, out) in out.iter_mut().enumerate() {
                let quant = f32::from(parts.quant(self.kind, lane, column));
                let step = |nth: usize| parts.steps[nth * TILE + lane];
                *out = match self.kind {
                    Kind::Q5 => (quant - 16.0) * d,
                    Kind::Q4K | Kind::Q5K => {
                        let least = half::widen(parts.scales[TILE + lane]) * f32::from(step(1));
                        quant.mul_add(d * f32::from(step(0)), -least)
                    }
                    Kind::Q6K => (quant - 32.0) * (d * f32::from(step(column / 16) as i8)),
                };
            }
        }
    }

    /// The product of one tile with the activations of up to eight tokens: 16 floats for each.
    pub(super) fn product(&self, set: InstructionSet, tile: usize, inputs: &[&Activations], out: &mut [f32]) {
        match self.kind {
            Kind::Q5 => self.product_of::<Q5>(set, tile, inputs, out),
            Kind::Q4K => self.product_of::<Q4K>(set, tile, inputs, out),
            Kind::Q5K => self.product_of::<Q5K>(set, tile, inputs, out),
            Kind::Q6K => self.product_of::<Q6K>(set, tile, inputs, out),
        }
    }

    fn product_of<L: Layout>(
        &self,
        set: InstructionSet,
        tile: usize,
        inputs: &[&Activations],
        out: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        match set {
            InstructionSet::Avx512Vnni => return avx512::product::<L>(self, tile, inputs, out),
            InstructionSet::Avx2 => return avx2::product::<L>(self, tile, inputs, out),
            InstructionSet::Scalar => {}
        }
        let _ = set;
        scalar::product::<L>(self, tile, inputs, out);
    }

    /// The blocks of some tokens' activations.
    fn inputs<'a, const T: usize>(&self, inputs: &[&'a Activations]) -> [&'a [Block]; T] {
        std::array::from_fn(|token| &inputs[token].blocks[..self.blocks])
    }
}

impl Parts<'_> {
    /// The weight of a row and column before scales.
    fn quant(&self, kind: Kind, lane: usize, column: usize) -> u8 {
        let (l, byte, high) = (column % 16 / 4, lane * 4 + column % 4, column / 16);
        let low = self.lines[l].0[byte] >> (4 * high) & 15;
        match kind {
            Kind::Q4K => low,
            Kind::Q5 | Kind::Q5K => low | (self.lines[4].0[byte] >> (l + 4 * high) & 1) << 4,
            Kind::Q6K => low | (self.lines[4 + high].0[byte] >> PLACES[l] & 3) << 4,
        }
    }
}

/// A kind that is known when the kernels are compiled.
trait Layout {
    const KIND: Kind;
}

macro_rules! layouts {
    ($($name:ident),*) => {$(
        struct $name;
        impl Layout for $name {
            const KIND: Kind = Kind::$name;
        }
    )*};
}
layouts!(Q5, Q4K, Q5K, Q6K);

/// A super-block of the file, taken apart.
struct Unpacked {
    halves: [u16; 2],
    steps: [[u8; 2]; 8],
    quants: [u8; 256],
}

impl Unpacked {
    /// The structures of ggml's `ggml-common.h`.
    fn read(kind: Kind, data: &[u8]) -> Self {
        let mut new = Self { halves: [0; 2], steps: [[0; 2]; 8], quants: [0; 256] };
        let half = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        match kind {
            // d, 32 high bits, 16 bytes of nibbles.
            Kind::Q5 => {
                new.halves[0] = half(0);
                for (column, quant) in new.quants[..32].iter_mut().enumerate() {
                    let low = data[6 + column % 16] >> (4 * (column / 16)) & 15;
                    *quant = low | (data[2 + column / 8] >> (column % 8) & 1) << 4;
                }
            }
            // d, m, 12 bytes of scales; Q5_K: 32 bytes of high bits; 128 bytes of nibbles.
            Kind::Q4K | Kind::Q5K => {
                new.halves = [half(0), half(2)];
                new.steps = six_bits(data[4..16].try_into().expect("12 bytes"));
                let (high, low) = data[16..].split_at(if kind == Kind::Q5K { 32 } else { 0 });
                for (column, quant) in new.quants.iter_mut().enumerate() {
                    let (block, place) = (column / 32, column % 32);
                    *quant = low[block / 2 * 32 + place] >> (4 * (block % 2)) & 15;
                    if let Some(high) = high.get(place) {
                        *quant |= (high >> block & 1) << 4;
                    }
                }
            }
            // 128 bytes of nibbles, 64 of pairs of bits, 16 scales, d.
            Kind::Q6K => {
                new.halves[0] = half(208);
                new.steps = std::array::from_fn(|block| [data[192 + block * 2], data[193 + block * 2]]);
                for (column, quant) in new.quants.iter_mut().enumerate() {
                    let (part, quarter, place) = (column / 128, column % 128 / 32, column % 32);
                    let low = data[part * 64 + quarter % 2 * 32 + place] >> (4 * (quarter / 2)) & 15;
                    let high = data[128 + part * 32 + place] >> (2 * quarter) & 3;
                    *quant = low | high << 4;
                }
            }
        }
        new
    }
}

impl Unpacked {
    /// Appends what [`Self::read`] took.
    fn write(&self, kind: Kind, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + kind.file_bytes(), 0);
        let data = &mut out[start..];
        let [d, m] = self.halves.map(u16::to_le_bytes);
        match kind {
            Kind::Q5 => {
                data[..2].copy_from_slice(&d);
                for (column, quant) in self.quants[..32].iter().enumerate() {
                    data[6 + column % 16] |= (quant & 15) << (4 * (column / 16));
                    data[2 + column / 8] |= (quant >> 4) << (column % 8);
                }
            }
            Kind::Q4K | Kind::Q5K => {
                data[..2].copy_from_slice(&d);
                data[2..4].copy_from_slice(&m);
                data[4..16].copy_from_slice(&to_six_bits(&self.steps));
                let (high, low) = data[16..].split_at_mut(if kind == Kind::Q5K { 32 } else { 0 });
                for (column, quant) in self.quants.iter().enumerate() {
                    let (block, place) = (column / 32, column % 32);
                    low[block / 2 * 32 + place] |= (quant & 15) << (4 * (block % 2));
                    if let Some(high) = high.get_mut(place) {
                        *high |= (quant >> 4) << block;
                    }
                }
            }
            Kind::Q6K => {
                data[208..].copy_from_slice(&d);
                data[192..208].copy_from_slice(self.steps.as_flattened());
                for (column, quant) in self.quants.iter().enumerate() {
                    let (part, quarter, place) = (column / 128, column % 128 / 32, column % 32);
                    data[part * 64 + quarter % 2 * 32 + place] |= (quant & 15) << (4 * (quarter / 2));
                    data[128 + part * 32 + place] |= (quant >> 4) << (2 * quarter);
                }
            }
        }
    }
}

/// What [`six_bits`] takes apart.
fn to_six_bits(steps: &[[u8; 2]; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for (block, [scale, least]) in steps.iter().enumerate() {
        if block < 4 {
            packed[block] |= scale;
            packed[block + 4] |= least;
        } else {
            packed[block + 4] = scale & 15 | least << 4;
            packed[block - 4] |= scale >> 4 << 6;
            packed[block] |= least >> 4 << 6;
        }
    }
    packed
}

/// Eight scales and eight minima of six bits each, as Q4_K and Q5_K pack them.
fn six_bits(packed: [u8; 12]) -> [[u8; 2]; 8] {
    std::array::from_fn(|block| {
        if block < 4 {
            [packed[block] & 63, packed[block + 4] & 63]
        } else {
            let both = packed[block + 4];
            [both & 15 | packed[block - 4] >> 6 << 4, both >> 4 | packed[block] >> 6 << 4]
        }
    })
}
