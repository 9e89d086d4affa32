//! A question whose answer is known before a GPU is trusted with anybody's prompt. Ask it at start, after a write
//! through every mapping that will be used, and refuse to serve when the answer differs.

use crate::{
    arithmetic::{dot, exponential, through_half},
    backend::{Arg, Backend},
    kernel::{Grid, Kernel},
};

/// Words of a question, and of its answer.
pub const WORDS: usize = 256;

/// A device that does not compute as it has to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanaryError<E: std::error::Error> {
    /// It could not even be asked.
    #[error("the canary did not run: {0}")]
    Backend(E),
    /// It answered something else.
    #[error("the GPU gives wrong answers ({wrong} of {WORDS} words): do not serve from it")]
    Wrong {
        /// Words that differ.
        wrong: usize,
    },
}

/// Asks a device, twice: the second question is written over the first, so that a copy that comes late or a stale
/// cache is seen.
///
/// # Errors
/// It answers wrongly, or not at all.
pub fn ask<B: Backend>(backend: &mut B) -> Result<(), CanaryError<B::Error>> {
    let question = backend.upload(&bytes(&question(1))).map_err(CanaryError::Backend)?;
    let out = backend.allocate(WORDS * 4).map_err(CanaryError::Backend)?;
    for round in [1, 2] {
        let words = self::question(round);
        backend.write(&question, &bytes(&words)).map_err(CanaryError::Backend)?;
        let args = [Arg::In(&question, 0), Arg::Out(&out, 0)];
        backend.launch(Kernel::Canary, Grid::each(1), &args).map_err(CanaryError::Backend)?;
        let found = backend.read(&out, WORDS * 4).map_err(CanaryError::Backend)?;
        let expected = bytes(&answer(&words));
        let wrong =
            found.chunks(4).zip(expected.chunks(4)).filter(|(found, expected)| found != expected).count();
        if wrong > 0 || found.len() != expected.len() {
            return Err(CanaryError::Wrong { wrong });
        }
    }
    Ok(())
}

/// A question: words that look random, and are the same for the same round.
pub fn question(round: u32) -> [u32; WORDS] {
    let mut state = round;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(0x915f_77f5).wrapping_add(0x3c6e_f372);
        state ^ state >> 15
    })
}

/// What `cuda/canary.cu` answers.
pub fn answer(words: &[u32; WORDS]) -> [u32; WORDS] {
    struct Parts {
        shared: u32,
        ratio: u32,
        root: u32,
        dot: u32,
        e: u32,
    }
    let parts = |(i, word): (usize, &u32)| {
        let x = (word & 0xffff) as f32 * 0.000_976_562_5 - 31.5;
        let y = through_half(x);
        let lost = x.mul_add(x, -(x * x));
        let e = exponential(-y.abs());
        Parts {
            shared: y.to_bits() ^ lost.to_bits().rotate_left(3),
            ratio: (x / (1.0 + e)).to_bits(),
            root: e.sqrt().to_bits(),
            dot: dot(*word, word.rotate_right(7), i as i32) as u32,
            e: e.to_bits(),
        }
    };
    let parts: Vec<Parts> = words.iter().enumerate().map(parts).collect();
    std::array::from_fn(|i| {
        let neighbour = parts[(i + 77) % WORDS].shared;
        let mixed = neighbour.wrapping_add(parts[i].ratio.wrapping_mul(0x9e37_79b9));
        mixed ^ parts[i ^ 5].root.wrapping_add(parts[i].dot) ^ parts[i].e
    })
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
