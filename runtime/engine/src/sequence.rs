//! One sequence of tokens through the model: the forward pass over a KV cache of pages.

use std::ops::ControlFlow;

use crate::{
    error::GenerateError,
    generate::Engine,
    kernels::{self, Activations, Matrix, PAGE, Page, Pool, TILE},
    model::{Layer, Model},
    sampling::Sampler,
};

/// Tokens of a prompt that go through the model together. The bits do not depend on it.
const CHUNK: usize = 64;

/// One conversation in the making, with its own KV cache.
pub struct Sequence<'e> {
    engine: &'e Engine,
    capacity: usize,
    pages: Vec<Page>,
    /// Tokens in the cache.
    length: usize,
    /// Chosen, and not yet in the cache.
    pending: Option<u32>,
    logits: Vec<f32>,
    work: Workspace,
}

impl<'e> Sequence<'e> {
    pub(crate) fn new(engine: &'e Engine, capacity: usize) -> Self {
        let work = Workspace::default();
        Self { engine, capacity, pages: Vec::new(), length: 0, pending: None, logits: Vec::new(), work }
    }

    /// Tokens that it holds.
    pub fn len(&self) -> usize {
        self.length + usize::from(self.pending.is_some())
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no further token fits.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Reads tokens into the context.
    ///
    /// # Errors
    /// There are none, one is not in the vocabulary, or they do not fit.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<(), GenerateError> {
        self.prefill_with(tokens, |_| ControlFlow::Continue(()))
    }

    /// The same, and calls `keep_going` after each piece with the number of tokens read so far.
    ///
    /// # Errors
    /// As [`Self::prefill`]; [`GenerateError::Cancelled`] when `keep_going` breaks off before the end: what was read
    /// until then stays in the context.
    pub fn prefill_with(
        &mut self,
        tokens: &[u32],
        mut keep_going: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), GenerateError> {
        self.check(tokens)?;
        let mut read = 0;
        for piece in tokens.chunks(CHUNK) {
            self.forward(piece, &mut |_| {}, false);
            read += piece.len();
            if keep_going(read).is_break() {
                return Err(GenerateError::Cancelled);
            }
        }
        Ok(())
    }

    /// The same, and calls `visit` with the logits after each token, not only the last.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn prefill_visiting(
        &mut self,
        tokens: &[u32],
        mut visit: impl FnMut(&[f32]),
    ) -> Result<(), GenerateError> {
        self.check(tokens)?;
        for piece in tokens.chunks(CHUNK) {
            self.forward(piece, &mut visit, true);
        }
        Ok(())
    }

    /// Chooses the next token, which will be in the context of the one after; `None` when it is one that ends the
    /// answer.
    ///
    /// # Errors
    /// The context is empty or full, or the model's weights are damaged.
    pub fn next(&mut self, sampler: &mut Sampler) -> Result<Option<u32>, GenerateError> {
        if self.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if self.is_full() {
            return Err(GenerateError::ContextOverflow { tokens: self.len() + 1, context: self.capacity });
        }
        if let Some(token) = self.pending.take() {
            self.forward(&[token], &mut |_| {}, false);
        }
        let token = sampler.choose(&self.logits)?;
        if self.engine.model().tokenizer().end_tokens().contains(&token) {
            return Ok(None);
        }
        self.pending = Some(token);
        Ok(Some(token))
    }

    /// One logit for each token of the vocabulary, after the last token that was read; empty before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn check(&mut self, tokens: &[u32]) -> Result<(), GenerateError> {
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let all = self.len() + tokens.len();
        if all > self.capacity {
            return Err(GenerateError::ContextOverflow { tokens: all, context: self.capacity });
        }
        let vocab_size = self.engine.model().vocab_size();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(GenerateError::UnknownToken { token, vocab_size });
        }
        if let Some(token) = self.pending.take() {
            self.forward(&[token], &mut |_| {}, false);
        }
        Ok(())
    }

    /// Runs up to [`CHUNK`] tokens, which are known to fit, when this sequence's turn has come.
    fn forward(&mut self, tokens: &[u32], visit: &mut dyn FnMut(&[f32]), every: bool) {
        let engine = self.engine;
        engine.in_turn(|model, pool| {
            while self.pages.len() * PAGE < self.length + tokens.len() {
                self.pages.push(Page::new(model.shape.page()));
            }
            let start = self.length;
            self.work.begin(model, pool, tokens, start);
            for (index, layer) in model.layers.iter().enumerate() {
                self.work.attention(model, pool, layer, index, &mut self.pages, start);
                self.work.feed(model, pool, layer);
            }
            self.length += tokens.len();
            let first = if every { 0 } else { tokens.len() - 1 };
            for row in first..tokens.len() {
                self.work.logits(model, pool, row, &mut self.logits);
                visit(&self.logits);
            }
        });
    }
}

/// What one token carries from layer to layer.
struct Row {
    x: Vec<f32>,
    input: Activations,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    angles: Vec<(f32, f32)>,
}

impl AsRef<Activations> for Row {
    fn as_ref(&self) -> &Activations {
        &self.input
    }
}

/// Memory that is used again in each step.
#[derive(Default)]
struct Workspace {
    rows: Vec<Row>,
    /// Tokens of this step: as many rows are in use.
    tokens: usize,
    /// Products, in tiles.
    tiles: Vec<f32>,
    /// Attention's results: for each token, each head.
    attended: Vec<f32>,
}

impl Workspace {
    /// Takes the tokens' embeddings.
    fn begin(&mut self, model: &Model, pool: &Pool, tokens: &[u32], start: usize) {
        let shape = &model.shape;
        let queries = shape.heads * shape.head_len;
        while self.rows.len() < tokens.len() {
            self.rows.push(Row {
                x: vec![0.0; shape.width],
                input: Activations::new(shape.width.max(shape.feed_width).max(queries)),
                query: vec![0.0; queries],
                key: vec![0.0; shape.kv_heads * shape.head_len],
                value: vec![0.0; shape.kv_heads * shape.head_len],
                angles: Vec::new(),
            });
        }
        self.tokens = tokens.len();
        self.attended.resize(CHUNK.min(self.rows.len()) * queries, 0.0);
        self.each_row(pool, |index, row, _| {
            model.embedding.row(tokens[index] as usize, &mut row.x);
            model.angles(start + index, &mut row.angles);
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

    /// Adds the product in the tiles to what the rows carry.
    fn add(&mut self, pool: &Pool) {
        let (set, tokens) = (pool.instruction_set(), self.tokens);
        self.each_row(pool, |index, row, tiles| kernels::add(set, &mut row.x, tiles, tokens, index));
    }

    fn attention(
        &mut self,
        model: &Model,
        pool: &Pool,
        layer: &Layer,
        index: usize,
        pages: &mut [Page],
        start: usize,
    ) {
        let (set, tokens, shape) = (pool.instruction_set(), self.tokens, &model.shape);
        self.norm(model, pool, &layer.attention_norm);
        self.multiply(pool, &[&layer.query, &layer.key, &layer.value]);
        let (key_at, value_at) = (layer.query.tiles(), layer.query.tiles() + layer.key.tiles());
        let factor = 1.0 / (shape.head_len as f32).sqrt();
        self.each_row(pool, |index, row, tiles| {
            untile(tiles, 0, tokens, index, &mut row.query);
            untile(tiles, key_at, tokens, index, &mut row.key);
            untile(tiles, value_at, tokens, index, &mut row.value);
            kernels::rotate(&mut row.query, shape.head_len, &row.angles);
            kernels::rotate(&mut row.key, shape.head_len, &row.angles);
            row.query.iter_mut().for_each(|value| *value *= factor);
        });
        let page_shape = shape.page();
        for (row, position) in self.rows[..tokens].iter().zip(start..) {
            pages[position / PAGE].write(page_shape, index, position % PAGE, &row.key, &row.value);
        }

        let (rows, pages) = (&self.rows, &*pages);
        let (head_len, share) = (shape.head_len, shape.heads / shape.kv_heads);
        let attended = &mut self.attended[..tokens * shape.heads * head_len];
        pool.each_chunk(attended, head_len, |chunk, out| {
            let (token, head) = (chunk / shape.heads, chunk % shape.heads);
            let query = &rows[token].query[head * head_len..][..head_len];
            let seen = start + token + 1; // itself and all before it
            kernels::attend(set, query, pages, page_shape, index, head / share, seen, out);
        });

        let queries = shape.heads * head_len;
        let attended = std::mem::take(&mut self.attended);
        self.each_row(pool, |index, row, _| {
            row.input.floats[..queries].copy_from_slice(&attended[index * queries..][..queries]);
            row.input.quantise(set, queries);
        });
        self.attended = attended;
        self.multiply(pool, &[&layer.attention_out]);
        self.add(pool);
    }

    fn feed(&mut self, model: &Model, pool: &Pool, layer: &Layer) {
        let (set, tokens, width) = (pool.instruction_set(), self.tokens, model.shape.feed_width);
        self.norm(model, pool, &layer.feed_norm);
        self.multiply(pool, &[&layer.gate, &layer.up]);
        let up_at = layer.gate.tiles() * tokens * TILE;
        self.each_row(pool, |index, row, tiles| {
            let (gate, up) = tiles.split_at(up_at);
            kernels::swiglu(set, gate, up, tokens, index, &mut row.input.floats[..width]);
            row.input.quantise(set, width);
        });
        self.multiply(pool, &[&layer.down]);
        self.add(pool);
    }

    /// The logits of one row of this step.
    fn logits(&mut self, model: &Model, pool: &Pool, row: usize, out: &mut Vec<f32>) {
        let (set, width) = (pool.instruction_set(), model.shape.width);
        let carrier = &mut self.rows[row];
        let input = &mut carrier.input;
        kernels::rms_norm(
            set,
            &carrier.x,
            &model.output_norm,
            model.shape.epsilon,
            &mut input.floats[..width],
        );
        input.quantise(set, width);
        out.resize(model.output().tiles() * TILE, 0.0);
        kernels::multiply(pool, &[model.output()], &self.rows[row..=row], out);
        out.truncate(model.vocab_size());
    }
}

/// Copies one token's rows out of tiles, from tile `first` on.
fn untile(tiles: &[f32], first: usize, tokens: usize, token: usize, out: &mut [f32]) {
    for (tile, piece) in out.chunks_mut(TILE).enumerate() {
        let from = ((first + tile) * tokens + token) * TILE;
        piece.copy_from_slice(&tiles[from..from + piece.len()]);
    }
}
