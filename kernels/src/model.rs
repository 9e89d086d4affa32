//! A model's sizes and weights on the host, and whether they fit together and the kernels.

use crate::{BLOCK, MAX_HEAD, decode::DecodeError, layout::Packed};

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
    let (queries, keys) = (shape.heads * shape.head_len, shape.kv_heads * shape.head_len);
    for (what, found) in
        [("width", shape.width), ("feed-forward width", shape.feed_width), ("width of all heads", queries)]
    {
        if found == 0 || !found.is_multiple_of(BLOCK) {
            return fail(what, found, format!("a multiple of {BLOCK}"));
        }
    }
    if shape.head_len == 0 || shape.head_len > MAX_HEAD || !shape.head_len.is_multiple_of(16) {
        return fail("head length", shape.head_len, format!("a multiple of 16 up to {MAX_HEAD}"));
    }
    if shape.kv_heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
        return fail("heads", shape.heads, format!("a multiple of its {} KV heads", shape.kv_heads));
    }
    if weights.frequencies.len() > shape.head_len / 2 {
        return fail("rotated pairs", weights.frequencies.len(), format!("{} or less", shape.head_len / 2));
    }
    for (what, found) in
        [("pages", shape.pages), ("rows", shape.rows), ("pages of a sequence", shape.table_width)]
    {
        if found == 0 {
            return fail(what, found, "1 or more".to_owned());
        }
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
