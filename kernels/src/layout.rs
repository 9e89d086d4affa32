//! Quantised weights as they lie in device memory: tiles of 16 rows, vectors of 16 bytes. `cuda/formats.cuh` has the
//! same table.

use crate::{BLOCK, TILE};

/// Most bytes of one matrix, before and after: offsets of kernels have 32 bits, over vectors of 16 bytes.
const MAX_BYTES: u64 = 1 << 36;

/// How a tensor's blocks of 32 columns are stored in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A half as scale, 32 nibbles less 8.
    Q4_0,
    /// Halves as scale and minimum, 32 nibbles.
    Q4_1,
    /// A half as scale, 32 signed bytes.
    Q8_0,
}

/// Why a tensor cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Rows are not whole blocks, or there are none.
    #[error("{rows} rows of {columns} columns: columns come in blocks of {BLOCK}")]
    Shape {
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
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
    /// For each tile, for each block, one vector a row (and for Q8_0 another).
    pub quants: Vec<u8>,
    /// For each tile, for each block, 16 halves; for Q4_1 16 minima after them.
    pub scales: Vec<u8>,
}

impl Format {
    /// Bytes of a block in a GGUF file.
    pub fn block_bytes(self) -> usize {
        2 * self.halves() + 16 * self.vectors()
    }

    /// Vectors of 16 bytes for each row of a block.
    fn vectors(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 => 1,
            Self::Q8_0 => 2,
        }
    }

    fn halves(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q8_0 => 1,
            Self::Q4_1 => 2,
        }
    }
}

impl Packed {
    /// Lays out `data`, the rows of a tensor one after the other.
    ///
    /// # Errors
    /// Columns are not whole blocks, or the length is not what the shape says.
    pub fn new(format: Format, rows: usize, columns: usize, data: &[u8]) -> Result<Self, LayoutError> {
        if rows == 0 || columns == 0 || !columns.is_multiple_of(BLOCK) {
            return Err(LayoutError::Shape { rows, columns });
        }
        let (blocks, tiles) = (columns / BLOCK, rows.div_ceil(TILE));
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
        let (vectors, halves) = (format.vectors(), format.halves());
        let mut quants = vec![0; tiles * blocks * vectors * TILE * 16];
        let mut scales = vec![0; tiles * blocks * halves * TILE * 2];
        for (row, data) in data.chunks_exact(blocks * format.block_bytes()).enumerate() {
            let (tile, lane) = (row / TILE, row % TILE);
            for (block, data) in data.chunks_exact(format.block_bytes()).enumerate() {
                let at = tile * blocks + block;
                let (head, body) = data.split_at(2 * halves);
                for (index, half) in head.chunks_exact(2).enumerate() {
                    let place = ((at * halves + index) * TILE + lane) * 2;
                    scales[place..place + 2].copy_from_slice(half);
                }
                for (index, vector) in body.chunks_exact(16).enumerate() {
                    let place = ((at * vectors + index) * TILE + lane) * 16;
                    quants[place..place + 16].copy_from_slice(vector);
                }
            }
        }
        Ok(Self { format, rows, columns, quants, scales })
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
        assert_eq!(new(2, 48, 54), Err(LayoutError::Shape { rows: 2, columns: 48 }));
        assert_eq!(new(0, 64, 0), Err(LayoutError::Shape { rows: 0, columns: 64 }));
        assert_eq!(new(2, 64, 71), Err(LayoutError::Length { expected: 72, found: 71 }));
        assert!(matches!(new(1 << 40, 1 << 20, 0), Err(LayoutError::TooLarge { .. })));
    }
}
