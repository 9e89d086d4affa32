//! The forward pass: tokens of any sequences through all layers, in one step.
//!
//! Each row of a step is a token at a position of some sequence, which is a list of pages of the KV cache. What a row
//! comes to depends on its own sequence alone: not on the other rows, nor on how a prompt was cut into steps.

use crate::{
    cache::{Cache, Table},
    kernels::{self, Activations, InstructionSet, MAX_HEAD, Matrix, Pool, Query, TILE},
    model::{Activation, Layer, Model, Rotation},
};

/// Queries that attention takes together: more do not fit the registers, and take ten times as long.
const QUERIES: usize = 6;

/// One row of a step.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) token: u32,
    /// Tokens of its sequence before it. They are in the cache, or in this step before it.
    pub(crate) position: usize,
    /// Which of the step's tables its sequence is.
    pub(crate) table: usize,
    /// Whether the logits after it are wanted.
    pub(crate) logits: bool,
}

/// What one token carries from layer to layer.
struct Row {
    x: Vec<f32>,
    input: Activations,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    /// How far its position turns each pair, in layers that see all and in those with a window.
    angles: [Vec<(f32, f32)>; 2],
    /// A product that is not added as it is.
    product: Vec<f32>,
}

impl AsRef<Activations> for Row {
    fn as_ref(&self) -> &Activations {
        &self.input
    }
}

impl Row {
    /// Queries and keys as attention takes them: with their biases, normalised, turned, and queries scaled.
    fn prepare(&mut self, set: InstructionSet, model: &Model, layer: &Layer, index: usize) {
        let (shape, local) = (&model.shape, model.shape.architecture.is_local(index));
        if let Some([query, key, value]) = &layer.biases {
            let add = |heads: &mut [f32], bias: &[f32]| {
                heads.iter_mut().zip(bias).for_each(|(value, more)| *value += more);
            };
            add(&mut self.query, query);
            add(&mut self.key, key);
            add(&mut self.value, value);
        }
        let angles = &self.angles[usize::from(local && model.local_positions.is_some())];
        for (nth, heads) in [&mut self.query, &mut self.key].into_iter().enumerate() {
            for head in heads.chunks_exact_mut(shape.head_len) {
                if let Some(norms) = &layer.head_norms {
                    let before = &mut self.product[..shape.head_len];
                    before.copy_from_slice(head);
                    kernels::rms_norm(set, before, &norms[nth], shape.epsilon, head);
                }
                match shape.architecture.rotation {
                    Rotation::Neighbours => kernels::rotate(head, angles),
                    Rotation::Halves => kernels::rotate_halves(head, angles),
                }
            }
        }
        self.query.iter_mut().for_each(|value| *value *= shape.query_scale);
    }
}

/// The memory of a step, used again in each.
#[derive(Default)]
pub(crate) struct Forward {
    rows: Vec<Row>,
    /// Tokens of this step: as many rows are in use.
    tokens: usize,
    /// Products, in tiles.
    tiles: Vec<f32>,
    /// Attention's results: for each head of keys and values, for each token, the heads that share it.
    attended: Vec<f32>,
    /// Logits of the rows that asked for them, one after the other.
    logits: Vec<f32>,
    vocabulary: usize,
}

impl Forward {
    /// Runs the rows, whose tokens are in the vocabulary and whose tables have pages for their positions. Rows of one
    /// sequence are in the order of their positions.
    pub(crate) fn run(
        &mut self,
        model: &Model,
        pool: &Pool,
        cache: &mut Cache,
        tables: &[&Table],
        places: &[Place],
    ) {
        self.begin(model, pool, places);
        for (index, layer) in model.layers.iter().enumerate() {
            self.attention(model, pool, layer, index, cache, tables, places);
            self.feed(model, pool, layer);
        }
        self.output(model, pool, places);
    }

    /// The logits of the `nth` row of the last step that asked for them.
    pub(crate) fn logits(&self, nth: usize) -> &[f32] {
        &self.logits[nth * self.vocabulary..][..self.vocabulary]
    }

    /// Takes the tokens' embeddings.
    fn begin(&mut self, model: &Model, pool: &Pool, places: &[Place]) {
        let shape = &model.shape;
        let queries = shape.heads * shape.head_len;
        while self.rows.len() < places.len() {
            self.rows.push(Row {
                x: vec![0.0; shape.width],
                input: Activations::new(shape.width.max(shape.feed_width).max(queries)),
                query: vec![0.0; queries],
                key: vec![0.0; shape.kv_heads * shape.head_len],
                value: vec![0.0; shape.kv_heads * shape.head_len],
                angles: Default::default(),
                product: vec![0.0; shape.width.max(MAX_HEAD)],
            });
        }
        self.tokens = places.len();
        self.each_row(pool, |index, row, _| {
            model.embedding.row(places[index].token as usize, &mut row.x);
            if let Some(scale) = shape.embedding_scale() {
                row.x.iter_mut().for_each(|value| *value *= scale);
            }
            let [all, local] = &mut row.angles;
            model.positions.angles(places[index].position, all);
            if let Some(positions) = &model.local_positions {
                positions.angles(places[index].position, local);
            }
        });
    }

    /// Calls `body` with each row in use, on any thread; it may read the products.
    fn each_row(&mut self, pool: &Pool, body: impl Fn(usize, &mut Row, &[f32]) + Sync) {
        let tiles = self.tiles.as_slice();
        pool.each_chunk(&mut self.rows[..self.tokens], 1, |index, row| body(index, &mut row[0], tiles));
    }

    /// Multiplies matrices with the rows' inputs, into the tiles.
    fn multiply(&mut self, pool: &Pool, matrices: &[&Matrix]) {
        let tiles: usize = matrices.iter().map(|matrix| matrix.tiles()).sum();
        let length = tiles * TILE * self.tokens;
        if self.tiles.len() < length {
            self.tiles.resize(length, 0.0);
        }
        kernels::multiply(pool, matrices, &self.rows[..self.tokens], &mut self.tiles[..length]);
    }

    /// The rows' inputs become the norms of what they carry.
    fn norm(&mut self, model: &Model, pool: &Pool, weight: &[f32]) {
        let (set, width) = (pool.instruction_set(), model.shape.width);
        self.each_row(pool, |_, row, _| {
            kernels::rms_norm(set, &row.x, weight, model.shape.epsilon, &mut row.input.floats[..width]);
            row.input.quantise(set, width);
        });
    }

    /// Adds the product in the tiles to what the rows carry, normalised first where the family has a norm for it.
    fn add(&mut self, model: &Model, pool: &Pool, norm: Option<&[f32]>) {
        let (set, tokens, shape) = (pool.instruction_set(), self.tokens, &model.shape);
        let Some(norm) = norm else {
            self.each_row(pool, |index, row, tiles| kernels::add(set, &mut row.x, tiles, tokens, index));
            return;
        };
        self.each_row(pool, |index, row, tiles| {
            let product = &mut row.product[..shape.width];
            untile(tiles, 0, tokens, index, product);
            let out = &mut row.input.floats[..shape.width];
            kernels::rms_norm(set, product, norm, shape.epsilon, out);
            row.x.iter_mut().zip(out).for_each(|(value, more)| *value += *more);
        });
    }

    #[expect(clippy::too_many_arguments, reason = "what a step has and what a layer is")]
    fn attention(
        &mut self,
        model: &Model,
        pool: &Pool,
        layer: &Layer,
        layer_index: usize,
        cache: &mut Cache,
        tables: &[&Table],
        places: &[Place],
    ) {
        let (set, tokens, shape) = (pool.instruction_set(), self.tokens, &model.shape);
        self.norm(model, pool, &layer.attention_norm);
        self.multiply(pool, &[&layer.query, &layer.key, &layer.value]);
        let (key_at, value_at) = (layer.query.tiles(), layer.query.tiles() + layer.key.tiles());
        self.each_row(pool, |index, row, tiles| {
            untile(tiles, 0, tokens, index, &mut row.query);
            untile(tiles, key_at, tokens, index, &mut row.key);
            untile(tiles, value_at, tokens, index, &mut row.value);
            row.prepare(set, model, layer, layer_index);
        });
        for (row, place) in self.rows[..tokens].iter().zip(places) {
            cache.write(tables[place.table], layer_index, place.position, &row.key, &row.value);
        }

        // The heads that share keys and values, of some neighbouring tokens, are one piece of work: they read them once.
        let (head_len, share) = (shape.head_len, shape.heads / shape.kv_heads);
        let together = (QUERIES / share).max(1);
        let (piece, pieces) = (share * head_len, tokens.div_ceil(together));
        let (rows, cache) = (&self.rows[..tokens], &*cache);
        self.attended.resize(shape.kv_heads * pieces * together * piece, 0.0);
        pool.each_chunk(&mut self.attended, together * piece, |chunk, mut out| {
            let (head, first) = (chunk / pieces, chunk % pieces * together);
            let mut queries = Vec::with_capacity(together * share);
            let neighbours = first..(first + together).min(tokens);
            let places = &places[neighbours.clone()];
            let mut rows = rows[neighbours].iter().zip(places);
            for places in places.chunk_by(|a, b| a.table == b.table) {
                queries.clear();
                for (row, place) in rows.by_ref().take(places.len()) {
                    let heads = row.query[head * piece..][..piece].chunks_exact(head_len);
                    // All before it, or those in the window, and itself.
                    let (first, end) = (shape.unseen(layer_index, place.position), place.position + 1);
                    queries.extend(heads.map(|values| Query { values, first, end }));
                }
                let (now, later) = out.split_at_mut(places.len() * piece);
                kernels::attend(
                    set,
                    &queries,
                    cache.sequence(tables[places[0].table]),
                    layer_index,
                    head,
                    now,
                );
                out = later;
            }
        });

        let queries = shape.heads * head_len;
        let attended = std::mem::take(&mut self.attended);
        self.each_row(pool, |index, row, _| {
            let heads = row.input.floats[..queries].chunks_exact_mut(piece);
            for (floats, head) in heads.zip(attended.chunks_exact(pieces * together * piece)) {
                floats.copy_from_slice(&head[index * piece..][..piece]);
            }
            row.input.quantise(set, queries);
        });
        self.attended = attended;
        self.multiply(pool, &[&layer.attention_out]);
        self.add(model, pool, layer.post_norms.as_ref().map(|norms| norms[0].as_slice()));
    }

    fn feed(&mut self, model: &Model, pool: &Pool, layer: &Layer) {
        let (set, tokens, width) = (pool.instruction_set(), self.tokens, model.shape.feed_width);
        self.norm(model, pool, &layer.feed_norm);
        self.multiply(pool, &[&layer.gate, &layer.up]);
        let up_at = layer.gate.tiles() * tokens * TILE;
        self.each_row(pool, |index, row, tiles| {
            let (gate, up) = tiles.split_at(up_at);
            let out = &mut row.input.floats[..width];
            match model.shape.architecture.activation {
                Activation::Silu => kernels::swiglu(set, gate, up, tokens, index, out),
                Activation::GeluTanh => kernels::geglu(set, gate, up, tokens, index, out),
            }
            row.input.quantise(set, width);
        });
        self.multiply(pool, &[&layer.down]);
        self.add(model, pool, layer.post_norms.as_ref().map(|norms| norms[1].as_slice()));
    }

    /// The logits of the rows that ask for them, in one product.
    fn output(&mut self, model: &Model, pool: &Pool, places: &[Place]) {
        let (set, width) = (pool.instruction_set(), model.shape.width);
        // Rows that ask come first: the product takes neighbours.
        let mut asking = 0;
        for (row, _) in places.iter().enumerate().filter(|(_, place)| place.logits) {
            self.rows.swap(asking, row);
            asking += 1;
        }
        self.tokens = asking;
        self.vocabulary = model.vocab_size();
        self.logits.resize(asking * self.vocabulary, 0.0);
        if asking == 0 {
            return;
        }
        self.each_row(pool, |_, row, _| {
            let out = &mut row.input.floats[..width];
            kernels::rms_norm(set, &row.x, &model.output_norm, model.shape.epsilon, out);
            row.input.quantise(set, width);
        });
        self.multiply(pool, &[model.output()]);
        let tiles = self.tiles.as_slice();
        pool.each_chunk(&mut self.logits, self.vocabulary, |row, out| untile(tiles, 0, asking, row, out));
    }
}

/// Copies one token's rows out of tiles, from tile `first` on.
pub(crate) fn untile(tiles: &[f32], first: usize, tokens: usize, token: usize, out: &mut [f32]) {
    for (tile, piece) in out.chunks_mut(TILE).enumerate() {
        let from = ((first + tile) * tokens + token) * TILE;
        piece.copy_from_slice(&tiles[from..from + piece.len()]);
    }
}
