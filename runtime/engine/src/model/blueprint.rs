//! A model as an accelerator takes it: sizes, what it computes beside a Llama, and weights as GGUF stores them.

use super::{Activation, Layer, Model, Rotation};
use crate::{container::Format, kernels::Matrix};

/// Sizes and constants of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
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
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Layers.
    pub layers: usize,
    /// Of the norms.
    pub epsilon: f32,
    /// What queries are multiplied by.
    pub query_scale: f32,
}

/// A model to be moved to a device.
pub struct Blueprint<'m>(&'m Model);

/// One layer.
pub struct LayerPlan<'m>(&'m Layer);

/// A matrix of weights.
pub struct MatrixPlan<'m>(&'m Matrix);

impl Model {
    /// What an accelerator needs to run it.
    pub fn blueprint(&self) -> Blueprint<'_> {
        Blueprint(self)
    }
}

impl<'m> Blueprint<'m> {
    /// Its sizes.
    pub fn sizes(&self) -> Sizes {
        let shape = &self.0.shape;
        Sizes {
            width: shape.width,
            feed_width: shape.feed_width,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_len: shape.head_len,
            vocabulary: self.0.vocab_size(),
            layers: shape.layers,
            epsilon: shape.epsilon,
            query_scale: shape.query_scale,
        }
    }

    /// The family's name, as GGUF has it.
    pub fn family(&self) -> &'static str {
        self.0.shape.architecture.name
    }

    /// What it computes that a Llama does not. A device that does not know one of these cannot run it.
    pub fn beyond_llama(&self) -> Vec<&'static str> {
        let (shape, family) = (&self.0.shape, self.0.shape.architecture);
        let windowed = (0..shape.layers).any(|layer| family.is_local(layer)) && shape.window.is_some();
        let all = [
            (family.biases, "biases of queries, keys and values"),
            (family.head_norms, "norms of each head's query and key"),
            (family.post_norms, "norms after attention and feed-forward"),
            (family.rotation == Rotation::Halves, "halves of a head that turn together"),
            (family.activation == Activation::GeluTanh, "GELU in the feed-forward layer"),
            (family.scaled_embedding, "scaled embeddings"),
            (windowed, "a window that layers see"),
            (self.0.local_positions.is_some(), "layers that turn another way"),
            (!self.0.positions.is_plain(), "scaled sines and cosines"),
        ];
        all.into_iter().filter(|(has, _)| *has).map(|(_, what)| what).collect()
    }

    /// Radians that one position turns each pair of a head by.
    pub fn frequencies(&self) -> &'m [f64] {
        self.0.positions.frequencies()
    }

    /// One row for each token.
    pub fn embedding(&self) -> MatrixPlan<'m> {
        MatrixPlan(&self.0.embedding)
    }

    /// What makes logits, where it is not the embedding.
    pub fn output(&self) -> Option<MatrixPlan<'m>> {
        self.0.output.as_ref().map(MatrixPlan)
    }

    /// The norm before it.
    pub fn output_norm(&self) -> &'m [f32] {
        &self.0.output_norm
    }

    /// The layers, from the first to the last.
    pub fn layers(&self) -> impl Iterator<Item = LayerPlan<'m>> {
        self.0.layers.iter().map(LayerPlan)
    }
}

impl<'m> LayerPlan<'m> {
    /// The norm before attention.
    pub fn attention_norm(&self) -> &'m [f32] {
        &self.0.attention_norm
    }

    /// The norm before the feed-forward layer.
    pub fn feed_norm(&self) -> &'m [f32] {
        &self.0.feed_norm
    }

    /// Query, key, value, attention's output, gate, up and down.
    pub fn matrices(&self) -> [MatrixPlan<'m>; 7] {
        let layer = self.0;
        [&layer.query, &layer.key, &layer.value, &layer.attention_out, &layer.gate, &layer.up, &layer.down]
            .map(MatrixPlan)
    }
}

impl MatrixPlan<'_> {
    /// Its format.
    pub fn format(&self) -> Format {
        self.0.format()
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    /// Its columns.
    pub fn columns(&self) -> usize {
        self.0.columns()
    }

    /// Its rows as GGUF stores them, one after the other.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.unpack()
    }
}
