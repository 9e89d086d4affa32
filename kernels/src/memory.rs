//! What a model takes on a device.

use crate::{
    BLOCK, PAGE,
    backend::{Arg, Backend},
    decode::CHOSEN_BYTES,
    error::DecodeError,
    layout::{Format, Packed},
    model::Shape,
};

/// Bytes of 32 quantised activations: `Quants` in `cuda/common.cuh`.
const QUANTS_BYTES: usize = 48;

/// A matrix on a device.
pub(crate) struct Matrix<B> {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) quants: B,
    /// Where its format has lines of halves.
    pub(crate) scales: Option<B>,
}

impl<B> Matrix<B> {
    /// What kernels take of it, before all else.
    pub(crate) fn args(&self) -> Vec<Arg<'_, B>> {
        let scales = self.scales.iter().map(|scales| Arg::In(scales, 0));
        [Arg::In(&self.quants, 0)].into_iter().chain(scales).collect()
    }
}

/// Memory that is used again in each step.
pub(crate) struct Work<B> {
    pub(crate) input: B,
    pub(crate) x: B,
    /// Input of a product, quantised and as floats.
    pub(crate) quants: B,
    pub(crate) floats: B,
    pub(crate) query: B,
    pub(crate) key: B,
    pub(crate) value: B,
    pub(crate) attended: B,
    pub(crate) gate: B,
    pub(crate) up: B,
    pub(crate) product: B,
    pub(crate) logits: B,
    /// Room to sort in.
    pub(crate) keys: B,
    pub(crate) chosen: B,
    pub(crate) pages: B,
    pub(crate) list: B,
    pub(crate) dirty: B,
}

impl<B> Work<B> {
    /// All of it.
    pub(crate) fn all(&self) -> [&B; 17] {
        [
            &self.input,
            &self.x,
            &self.quants,
            &self.floats,
            &self.query,
            &self.key,
            &self.value,
            &self.attended,
            &self.gate,
            &self.up,
            &self.product,
            &self.logits,
            &self.keys,
            &self.chosen,
            &self.pages,
            &self.list,
            &self.dirty,
        ]
    }
}

/// A device's error in our words.
pub(crate) fn device<E: std::error::Error>(error: E) -> DecodeError {
    DecodeError::Device(error.to_string())
}

/// Bytes of a page in all layers.
pub(crate) fn page_bytes(shape: &Shape, layers: usize) -> usize {
    layers * shape.kv_heads * 2 * shape.head_len * PAGE * 2
}

/// Moves a matrix to a device.
pub(crate) fn upload<B: Backend>(backend: &mut B, packed: &Packed) -> Result<Matrix<B::Buffer>, DecodeError> {
    Ok(Matrix {
        format: packed.format,
        rows: packed.rows,
        columns: packed.columns,
        quants: backend.upload(&packed.quants).map_err(device)?,
        scales: match packed.format.is_numbers() {
            true => None,
            false => Some(backend.upload(&packed.scales).map_err(device)?),
        },
    })
}

/// Takes the memory of all steps.
pub(crate) fn work<B: Backend>(
    backend: &mut B,
    shape: &Shape,
    layers: usize,
    input: usize,
) -> Result<Work<B::Buffer>, DecodeError> {
    let queries = shape.heads * shape.head_len;
    let keys = shape.kv_heads * shape.head_len;
    let widest = shape.width.max(shape.feed_width).max(queries);
    let mut room = |bytes: usize| backend.allocate(bytes).map_err(device);
    Ok(Work {
        input: room(input)?,
        x: room(shape.rows * shape.width * 4)?,
        quants: room(shape.rows * widest / BLOCK * QUANTS_BYTES)?,
        floats: room(shape.rows * shape.width.max(shape.feed_width) * 4)?,
        query: room(shape.rows * queries * 4)?,
        key: room(shape.rows * keys * 4)?,
        value: room(shape.rows * keys * 4)?,
        attended: room(shape.rows * queries * 4)?,
        gate: room(shape.rows * shape.feed_width * 4)?,
        up: room(shape.rows * shape.feed_width * 4)?,
        product: room(shape.rows * shape.width * 4)?,
        logits: room(shape.rows * shape.vocabulary * 4)?,
        keys: room(shape.rows * shape.vocabulary.next_power_of_two() * 8)?,
        chosen: room(shape.rows * CHOSEN_BYTES)?,
        pages: room(shape.pages * page_bytes(shape, layers))?,
        list: room(shape.pages * 4)?,
        dirty: room(shape.pages * 4)?,
    })
}
