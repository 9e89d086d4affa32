//! BERT's encoder: attention in both directions, and norms after each sum.
//!
//! ```text
//! x = norm(word + position + kind)
//! x = norm(x + out · attention(q · x, k · x, v · x))      each product with its bias
//! x = norm(x + down · gelu(up · x))
//! ```

use zeroize::Zeroize;

use crate::{
    container::{Header, Source},
    error::ModelError,
    forward::untile,
    kernels::{self, Activations, Matrix, Pool, TILE},
    model::Plan,
};

/// Sizes of an encoder.
#[derive(Clone, Copy)]
pub(super) struct EncoderShape {
    pub(super) layers: usize,
    pub(super) width: usize,
    pub(super) feed_width: usize,
    pub(super) heads: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    pub(super) kinds: usize,
    pub(super) epsilon: f32,
}

/// A norm's weight and bias.
type Norm = [Vec<f32>; 2];

/// A layer. Biases are in the order of the matrices.
struct Layer {
    /// Queries, keys, values, out, up, down.
    matrices: [Matrix; 6],
    biases: [Vec<f32>; 6],
    attention_norm: Norm,
    feed_norm: Norm,
}

/// An encoder's weights.
pub(super) struct Encoder {
    shape: EncoderShape,
    /// Words, positions, kinds.
    embeddings: [Matrix; 3],
    norm: Norm,
    layers: Vec<Layer>,
}

/// One token on its way.
struct Row {
    x: Vec<f32>,
    input: Activations,
}

impl AsRef<Activations> for Row {
    fn as_ref(&self) -> &Activations {
        &self.input
    }
}

/// The memory of a run, used again in each and wiped between.
#[derive(Default)]
pub(super) struct Work {
    rows: Vec<Row>,
    tiles: Vec<f32>,
    /// Queries, keys and values: token by token.
    heads: [Vec<f32>; 3],
    attended: Vec<f32>,
}

impl Work {
    /// What the first tokens came to.
    pub(super) fn rows(&self, count: usize) -> impl Iterator<Item = &[f32]> {
        self.rows[..count].iter().map(|row| row.x.as_slice())
    }

    /// Forgets the text.
    pub(super) fn wipe(&mut self) {
        for row in &mut self.rows {
            row.x.zeroize();
            row.input.floats.zeroize();
        }
        self.tiles.zeroize();
        self.attended.zeroize();
        self.heads.iter_mut().for_each(Zeroize::zeroize);
        *self = Self::default();
    }
}

/// A layer's products, with the sizes of a layer: rows first.
const PRODUCTS: [(&str, bool, bool); 6] = [
    ("attention.self.query", false, false),
    ("attention.self.key", false, false),
    ("attention.self.value", false, false),
    ("attention.output.dense", false, false),
    ("intermediate.dense", true, false),
    ("output.dense", false, true),
];

impl Encoder {
    /// Reads an encoder whose tensors have BERT's own names.
    pub(super) fn load(
        source: &dyn Source,
        header: &Header,
        shape: EncoderShape,
    ) -> Result<Self, ModelError> {
        let mut plan = Plan::new(header);
        let width = shape.width;
        plan.matrix("embeddings.word_embeddings.weight", shape.vocabulary, width)?;
        plan.matrix("embeddings.position_embeddings.weight", shape.positions, width)?;
        plan.matrix("embeddings.token_type_embeddings.weight", shape.kinds, width)?;
        let norm = read_norm(&mut plan, source, "embeddings.LayerNorm", width)?;
        let size = |is_feed| if is_feed { shape.feed_width } else { width };
        let mut vectors = Vec::new();
        for layer in 0..shape.layers {
            let prefix = format!("encoder.layer.{layer}");
            let mut biases = Vec::new();
            for (name, rows, columns) in PRODUCTS {
                plan.matrix(&format!("{prefix}.{name}.weight"), size(rows), size(columns))?;
                biases.push(plan.vector(source, &format!("{prefix}.{name}.bias"), size(rows))?);
            }
            let biases: [Vec<f32>; 6] = biases.try_into().expect("one for each product");
            let attention =
                read_norm(&mut plan, source, &format!("{prefix}.attention.output.LayerNorm"), width)?;
            let feed = read_norm(&mut plan, source, &format!("{prefix}.output.LayerNorm"), width)?;
            vectors.push((biases, attention, feed));
        }
        plan.finish()?;
        let mut matrices = plan.read(source)?.into_iter();
        let mut next = |_| matrices.next().expect("the plan has all matrices in this order");
        Ok(Self {
            shape,
            embeddings: std::array::from_fn(&mut next),
            norm,
            layers: vectors
                .into_iter()
                .map(|(biases, attention_norm, feed_norm)| Layer {
                    matrices: std::array::from_fn(&mut next),
                    biases,
                    attention_norm,
                    feed_norm,
                })
                .collect(),
        })
    }

    /// Length of a vector.
    pub(super) fn width(&self) -> usize {
        self.shape.width
    }

    /// Tokens that it knows.
    pub(super) fn vocabulary(&self) -> usize {
        self.shape.vocabulary
    }

    /// Runs a text's tokens, which are in the vocabulary and no more than there are positions.
    pub(super) fn run(&self, pool: &Pool, tokens: &[u32], work: &mut Work) {
        let (set, shape) = (pool.instruction_set(), &self.shape);
        let largest = shape.width.max(shape.feed_width);
        work.rows.resize_with(tokens.len(), || Row {
            x: vec![0.0; shape.width],
            input: Activations::new(largest),
        });
        pool.each_chunk(&mut work.rows, 1, |index, row| {
            let row = &mut row[0];
            let more = &mut row.input.floats[..shape.width];
            self.embeddings[0].row(tokens[index] as usize, &mut row.x);
            for (embedding, nth) in self.embeddings[1..].iter().zip([index, 0]) {
                embedding.row(nth, more);
                row.x.iter_mut().zip(&*more).for_each(|(value, more)| *value += more);
            }
            kernels::layer_norm(set, &mut row.x, &self.norm[0], &self.norm[1], shape.epsilon);
        });
        for layer in &self.layers {
            self.attention(pool, layer, work);
            self.feed(pool, layer, work);
        }
    }

    fn attention(&self, pool: &Pool, layer: &Layer, work: &mut Work) {
        let (set, width, tokens) = (pool.instruction_set(), self.shape.width, work.rows.len());
        let head_len = width / self.shape.heads;
        for row in &mut work.rows {
            row.input.floats[..width].copy_from_slice(&row.x);
        }
        for (nth, matrix) in layer.matrices[..3].iter().enumerate() {
            multiply(pool, matrix, &work.rows, &mut work.tiles);
            let (tiles, bias) = (&work.tiles, &layer.biases[nth]);
            let factor = if nth == 0 { 1.0 / (head_len as f32).sqrt() } else { 1.0 };
            work.heads[nth].resize(tokens * width, 0.0);
            pool.each_chunk(&mut work.heads[nth], width, |token, out| {
                untile(tiles, 0, tokens, token, out);
                out.iter_mut().zip(bias).for_each(|(value, bias)| *value = (*value + bias) * factor);
            });
        }
        work.attended.resize(tokens * width, 0.0);
        let [queries, keys, values] = &work.heads;
        pool.each_chunk(&mut work.attended, head_len, |chunk, out| {
            let head = chunk % self.shape.heads * head_len;
            let query = &queries[chunk * head_len..][..head_len];
            let mut scores = vec![0.0; tokens];
            kernels::attend_to_all(set, query, &keys[head..], &values[head..], width, &mut scores, out);
        });
        for (row, attended) in work.rows.iter_mut().zip(work.attended.chunks_exact(width)) {
            row.input.floats[..width].copy_from_slice(attended);
        }
        self.add(pool, &layer.matrices[3], &layer.biases[3], &layer.attention_norm, work);
    }

    fn feed(&self, pool: &Pool, layer: &Layer, work: &mut Work) {
        let (set, tokens, width) = (pool.instruction_set(), work.rows.len(), self.shape.feed_width);
        for row in &mut work.rows {
            row.input.floats[..self.shape.width].copy_from_slice(&row.x);
        }
        multiply(pool, &layer.matrices[4], &work.rows, &mut work.tiles);
        let (tiles, bias) = (&work.tiles, &layer.biases[4]);
        pool.each_chunk(&mut work.rows, 1, |index, row| {
            let out = &mut row[0].input.floats[..width];
            untile(tiles, 0, tokens, index, out);
            out.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            kernels::gelu(set, out);
        });
        self.add(pool, &layer.matrices[5], &layer.biases[5], &layer.feed_norm, work);
    }

    /// Adds a product of the rows' inputs to what they carry, and normalises it.
    fn add(&self, pool: &Pool, matrix: &Matrix, bias: &[f32], norm: &Norm, work: &mut Work) {
        let (set, tokens, epsilon) = (pool.instruction_set(), work.rows.len(), self.shape.epsilon);
        multiply(pool, matrix, &work.rows, &mut work.tiles);
        let tiles = &work.tiles;
        pool.each_chunk(&mut work.rows, 1, |index, row| {
            let x = &mut row[0].x;
            kernels::add(set, x, tiles, tokens, index);
            x.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            kernels::layer_norm(set, x, &norm[0], &norm[1], epsilon);
        });
    }
}

fn multiply(pool: &Pool, matrix: &Matrix, rows: &[Row], tiles: &mut Vec<f32>) {
    let length = matrix.tiles() * TILE * rows.len();
    if tiles.len() < length {
        tiles.resize(length, 0.0);
    }
    kernels::multiply(pool, &[matrix], rows, &mut tiles[..length]);
}

fn read_norm(plan: &mut Plan<'_>, source: &dyn Source, name: &str, width: usize) -> Result<Norm, ModelError> {
    let weight = plan.vector(source, &format!("{name}.weight"), width)?;
    Ok([weight, plan.vector(source, &format!("{name}.bias"), width)?])
}
