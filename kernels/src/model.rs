//! A model's sizes and weights on the host, and whether they fit together and the kernels.

use crate::{BLOCK, MAX_HEAD, error::DecodeError, layout::Packed};

/// Widest layer.
const MAX_WIDTH: usize = 1 << 17;
/// Most heads, and most layers.
const MAX_HEADS: usize = 1 << 10;
/// Most tokens of a vocabulary, and most pages of a sequence.
const MAX_TOKENS: usize = 1 << 20;
/// Most rows of a step: with [`MAX_WIDTH`] it keeps every count of a kernel in 32 bits.
const MAX_ROWS: usize = 1 << 12;
/// Most pages.
const MAX_PAGES: usize = 1 << 24;

/// Sizes of a model, and of what runs at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Numbers that a token carries from layer to layer.
    pub width: usize,
    /// Width of the feed-forward layer.
    pub feed_width: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_len: usize,
    /// Of the norms.
    pub epsilon: f32,
    /// What queries are multiplied by.
    pub query_scale: f32,
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Pages of keys and values on the device.
    pub pages: usize,
    /// Most pages of a sequence.
    pub table_width: usize,
    /// Most rows of a step.
    pub rows: usize,
}

/// A layer's weights: packed on the host, or in memory of a device.
pub struct Layer<M, V> {
    /// Before attention.
    pub attention_norm: V,
    /// Queries.
    pub query: M,
    /// Keys.
    pub key: M,
    /// Values.
    pub value: M,
    /// After attention.
    pub attention_out: M,
    /// Before the feed-forward layer.
    pub feed_norm: V,
    /// Gate.
    pub gate: M,
    /// Up.
    pub up: M,
    /// Down.
    pub down: M,
}

/// A model's weights.
pub struct Weights {
    /// One row a token.
    pub embedding: Packed,
    /// Where the embedding does not serve as the output too.
    pub output: Option<Packed>,
    /// Before the output.
    pub output_norm: Vec<f32>,
    /// From the first to the last.
    pub layers: Vec<Layer<Packed, Vec<f32>>>,
    /// Radians that one position turns each pair of a head by.
    pub frequencies: Vec<f64>,
}

/// Whether the sizes are those of the weights, and of what kernels can do.
pub(crate) fn check_shape(shape: &Shape, weights: &Weights) -> Result<(), DecodeError> {
    let fail = |what, found: usize, expected: String| Err(DecodeError::Shape { what, found, expected });
    for (what, found, most) in [
        ("width", shape.width, MAX_WIDTH),
        ("feed-forward width", shape.feed_width, MAX_WIDTH),
        ("heads", shape.heads, MAX_HEADS),
        ("KV heads", shape.kv_heads, MAX_HEADS),
        ("head length", shape.head_len, MAX_HEAD),
        ("vocabulary", shape.vocabulary, MAX_TOKENS),
        ("layers", weights.layers.len(), MAX_HEADS),
        ("rows", shape.rows, MAX_ROWS),
        ("pages", shape.pages, MAX_PAGES),
        ("pages of a sequence", shape.table_width, MAX_TOKENS),
    ] {
        if found == 0 || found > most {
            return fail(what, found, format!("1 to {most}"));
        }
    }
    let (queries, keys) = (shape.heads * shape.head_len, shape.kv_heads * shape.head_len);
    for (what, found, block) in [
        ("width", shape.width, BLOCK),
        ("feed-forward width", shape.feed_width, BLOCK),
        ("width of all heads", queries, BLOCK),
        ("head length", shape.head_len, 16),
        ("heads", shape.heads, shape.kv_heads),
    ] {
        if !found.is_multiple_of(block) {
            return fail(what, found, format!("a multiple of {block}"));
        }
    }
    if weights.frequencies.len() > shape.head_len / 2 {
        return fail("rotated pairs", weights.frequencies.len(), format!("{} or less", shape.head_len / 2));
    }
    let mut matrices = vec![("embedding", &weights.embedding, shape.vocabulary, shape.width)];
    matrices.extend(weights.output.as_ref().map(|output| ("output", output, shape.vocabulary, shape.width)));
    let mut norms = vec![("output norm", &weights.output_norm)];
    for layer in &weights.layers {
        norms.extend([("attention norm", &layer.attention_norm), ("feed-forward norm", &layer.feed_norm)]);
        matrices.extend([
            ("query", &layer.query, queries, shape.width),
            ("key", &layer.key, keys, shape.width),
            ("value", &layer.value, keys, shape.width),
            ("attention output", &layer.attention_out, shape.width, queries),
            ("gate", &layer.gate, shape.feed_width, shape.width),
            ("up", &layer.up, shape.feed_width, shape.width),
            ("down", &layer.down, shape.width, shape.feed_width),
        ]);
    }
    for (what, matrix, rows, columns) in matrices {
        if matrix.rows != rows || matrix.columns != columns {
            return fail(what, matrix.rows, format!("{rows} rows of {columns} columns"));
        }
    }
    match norms.into_iter().find(|(_, norm)| norm.len() != shape.width) {
        Some((what, norm)) => fail(what, norm.len(), shape.width.to_string()),
        None => Ok(()),
    }
}
