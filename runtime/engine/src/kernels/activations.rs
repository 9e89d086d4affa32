//! What flows between layers: floats, and the same as int8 in blocks of 32 for the integer kernels.

use super::on_each_set;

/// Adding this and taking it away rounds to an integer, ties to even; the low bits of the sum hold the integer.
pub(super) const ROUND: f32 = 12_582_912.0;

/// Columns in a block.
pub(super) const BLOCK: usize = 32;

/// 32 activations as `scale * quant`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Block {
    /// Four quants each, the first in the lowest byte.
    pub(super) words: [i32; 8],
    pub(super) scale: f32,
    /// `scale * sum`: what a weight's minimum is multiplied by.
    pub(super) offset: f32,
    /// The sum of the quants.
    pub(super) sum: i32,
    /// The sum of the first sixteen quants.
    pub(super) first: i32,
}

/// One token's activations, as floats and as blocks.
#[derive(Default)]
pub(crate) struct Activations {
    pub(crate) floats: Vec<f32>,
    pub(super) blocks: Vec<Block>,
}

impl Activations {
    /// Zeroes for rows of `columns`.
    pub(crate) fn new(columns: usize) -> Self {
        Self {
            floats: vec![0.0; columns.next_multiple_of(BLOCK)],
            blocks: vec![Block::default(); columns.div_ceil(BLOCK)],
        }
    }

    /// Brings the blocks of the first `columns` up to date with the floats.
    pub(crate) fn quantise(&mut self, set: super::InstructionSet, columns: usize) {
        let blocks = columns.div_ceil(BLOCK);
        self.floats[columns..blocks * BLOCK].fill(0.0);
        let (floats, blocks) = (&self.floats[..blocks * BLOCK], &mut self.blocks[..blocks]);
        #[cfg(target_arch = "x86_64")]
        if set == super::InstructionSet::Avx512Vnni {
            super::avx512::quantise(floats, blocks);
            return;
        }
        quantise(set, floats, blocks);
    }
}

/// What values are multiplied by, so that the largest becomes 127.
#[inline(always)]
pub(super) fn inverse(largest: f32) -> f32 {
    // So near to zero the inverse would be infinite.
    if largest > 1e-30 { 127.0 / largest } else { 0.0 }
}

on_each_set! {
    /// Quantises whole blocks to the nearest of 255 steps, ties to even.
    fn quantise(floats: &[f32], blocks: &mut [Block]) = quantise_body
}

#[inline(always)]
fn quantise_body<W: super::half::Widen>(floats: &[f32], blocks: &mut [Block]) {
    for (values, block) in floats.chunks_exact(BLOCK).zip(blocks) {
        let values: &[f32; BLOCK] = values.try_into().expect("whole blocks");
        // Magnitudes order as integers, and what is not a number is over all of them.
        let largest = values.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        let inverse = inverse(largest);
        let mut quants = [0i32; BLOCK];
        for (quant, value) in quants.iter_mut().zip(values) {
            *quant = (value * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        }
        for (word, four) in block.words.iter_mut().zip(quants.chunks_exact(4)) {
            *word = four[0] & 255 | (four[1] & 255) << 8 | (four[2] & 255) << 16 | (four[3] & 255) << 24;
        }
        block.first = quants[..BLOCK / 2].iter().map(|q| i32::from(*q as i8)).sum();
        block.sum = quants.iter().map(|q| i32::from(*q as i8)).sum();
        block.scale = largest / 127.0;
        block.offset = block.scale * block.sum as f32;
    }
}
