//! Quantised weights as they lie in device memory: tiles of 16 rows, vectors of 16 bytes. `cuda/formats.cuh` has the
//! same table.

use crate::{
    BLOCK, TILE,
    blocks::{Group, MAX_LINES},
};

/// Most bytes of one matrix: kernels count its vectors and halves in 32 bits.
const MAX_BYTES: u64 = 1 << 34;

/// How a tensor is stored in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32 columns: a half as scale, nibbles less 8.
    Q4_0,
    /// 32 columns: halves as scale and minimum, nibbles.
    Q4_1,
    /// 32 columns: a half as scale, five bits less 16.
    Q5_0,
    /// 32 columns: a half as scale, signed bytes.
    Q8_0,
    /// 256 columns: nibbles, with scales and minima of 32.
    Q4K,
    /// 256 columns: five bits, with scales and minima of 32.
    Q5K,
    /// 256 columns: six bits less 32, with scales of 16.
    Q6K,
    /// Halves.
    F16,
    /// Upper halves of singles.
    Bf16,
    /// Singles.
    F32,
}

/// Why a tensor cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Rows are not whole blocks, or there are none.
    #[error("{rows} rows of {columns} columns: columns come in blocks of {whole}")]
    Shape {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
        /// Columns of a block.
        whole: usize,
    },
    /// The data are not as long as their shape says.
    #[error("{found} bytes of weights, where the shape says {expected}")]
    Length {
        /// By the shape.
        expected: u64,
        /// Given.
        found: u64,
    },
    /// Kernels would not reach all of it.
    #[error("{bytes} bytes of weights; {MAX_BYTES} can be")]
    TooLarge {
        /// By the shape.
        bytes: u64,
    },
}

/// A matrix as kernels read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its format.
    pub format: Format,
    /// Rows, without those that fill the last tile up.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// For each tile, for each block, one vector a row (and for Q8_0 another); or single numbers.
    pub quants: Vec<u8>,
    /// For each tile, for each block of the file, lines of 16 halves; none of single numbers.
    pub scales: Vec<u8>,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::F16,
        Self::Bf16,
        Self::F32,
    ];

    /// Whether it is of single numbers, which are multiplied with activations as they are.
    pub fn is_numbers(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32)
    }

    /// Columns of a block in a GGUF file.
    pub fn block_len(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 | Self::F32 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block in a GGUF file.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Vectors of 16 bytes for each row of 32 columns.
    fn vectors(self) -> usize {
        if self == Self::Q8_0 { 2 } else { 1 }
    }

    /// Lines of halves of a block of the file: `cuda/formats.cuh` says which.
    fn lines(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 | Self::F32 => 0,
            Self::Q4_0 | Self::Q8_0 => 1,
            Self::Q4_1 => 2,
            Self::Q5_0 => 3,
            Self::Q4K => 10,
            Self::Q5K => 26,
            Self::Q6K => MAX_LINES,
        }
    }
}

impl Packed {
    /// Lays out `data`, the rows of a tensor one after the other.
    ///
    /// # Errors
    /// Columns are not whole blocks, or the length is not what the shape says.
    pub fn new(format: Format, rows: usize, columns: usize, data: &[u8]) -> Result<Self, LayoutError> {
        let whole = format.block_len().max(BLOCK);
        if rows == 0 || columns == 0 || !columns.is_multiple_of(whole) {
            return Err(LayoutError::Shape { rows, columns, whole });
        }
        let (blocks, tiles) = (columns / format.block_len(), rows.div_ceil(TILE));
        let bytes = |rows: usize| {
            (rows as u64).saturating_mul(blocks as u64).saturating_mul(format.block_bytes() as u64)
        };
        let (expected, found) = (bytes(rows), data.len() as u64);
        if bytes(tiles * TILE) > MAX_BYTES {
            return Err(LayoutError::TooLarge { bytes: expected });
        }
        if expected != found {
            return Err(LayoutError::Length { expected, found });
        }
        let mut packed = Self { format, rows, columns, quants: Vec::new(), scales: Vec::new() };
        if format.is_numbers() {
            packed.numbers(data)
        } else {
            packed.groups(data)
        }
        Ok(packed)
    }

    /// Single numbers: 16 rows of each column.
    fn numbers(&mut self, data: &[u8]) {
        let size = self.format.block_bytes();
        self.quants = vec![0; self.rows.div_ceil(TILE) * self.columns * TILE * size];
        for (row, data) in data.chunks_exact(self.columns * size).enumerate() {
            let start = (row / TILE * self.columns * TILE + row % TILE) * size;
            for (column, number) in data.chunks_exact(size).enumerate() {
                self.quants[start + column * TILE * size..][..size].copy_from_slice(number);
            }
        }
    }

    /// Blocks: vectors, and lines of halves.
    fn groups(&mut self, data: &[u8]) {
        let (format, tiles) = (self.format, self.rows.div_ceil(TILE));
        let groups = self.columns / format.block_len();
        // Vectors of a group.
        let (vectors, lines) = (format.block_len() / BLOCK * format.vectors(), format.lines());
        self.quants = vec![0; tiles * groups * vectors * TILE * 16];
        self.scales = vec![0; tiles * groups * lines * TILE * 2];
        for (row, data) in data.chunks_exact(groups * format.block_bytes()).enumerate() {
            let (tile, lane) = (row / TILE, row % TILE);
            for (group, data) in data.chunks_exact(format.block_bytes()).enumerate() {
                let (at, from) = (tile * groups + group, Group::read(format, data));
                for (index, vector) in from.vectors.chunks_exact(16).take(vectors).enumerate() {
                    let place = ((at * vectors + index) * TILE + lane) * 16;
                    self.quants[place..place + 16].copy_from_slice(vector);
                }
                for (index, half) in from.lines[..lines].iter().enumerate() {
                    let place = ((at * lines + index) * TILE + lane) * 2;
                    self.scales[place..place + 2].copy_from_slice(&half.to_le_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_lies_where_the_table_says() {
        // Row, block and byte are told apart by their values.
        let block = |row: usize, block: usize| (0..34).map(move |byte| (row * 100 + block * 40 + byte) as u8);
        let data: Vec<u8> = (0..18).flat_map(|row| (0..2).flat_map(move |b| block(row, b))).collect();
        let packed = Packed::new(Format::Q8_0, 18, 64, &data).expect("fits");
        assert_eq!((packed.quants.len(), packed.scales.len()), (2 * 2 * 2 * 256, 2 * 2 * 32));
        // Row 17 is lane 1 of tile 1; block 1; columns 16 to 31 are its second vector.
        let (block, second) = (2 + 1, 1);
        let at = (block * 2 + second) * 256 + 16;
        assert_eq!(packed.quants[at], (17usize * 100 + 40 + 18) as u8);
        assert_eq!(packed.scales[(3 * 16 + 1) * 2], (17usize * 100 + 40) as u8);
        assert!(packed.quants[at + 16..].iter().all(|byte| *byte == 0), "rows 18 to 31 are not there");
    }

    #[test]
    fn shapes_that_lie_are_refused_before_memory_is_taken() {
        let new = |rows, columns, bytes: usize| Packed::new(Format::Q4_0, rows, columns, &vec![0; bytes]);
        assert!(new(2, 64, 2 * 2 * 18).is_ok());
        assert_eq!(new(2, 48, 54), Err(LayoutError::Shape { rows: 2, columns: 48, whole: 32 }));
        assert_eq!(new(0, 64, 0), Err(LayoutError::Shape { rows: 0, columns: 64, whole: 32 }));
        assert_eq!(new(2, 64, 71), Err(LayoutError::Length { expected: 72, found: 71 }));
        assert!(matches!(new(1 << 40, 1 << 20, 0), Err(LayoutError::TooLarge { .. })));
    }
}
