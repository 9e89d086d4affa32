//! A decode step of a Llama: which kernels, in which order, on which memory.

use std::collections::HashMap;

use zeroize::Zeroizing;

use crate::{
    BLOCK,
    backend::{Arg, Backend},
    canary::{self, CanaryError},
    error::DecodeError,
    kernel::{Grid, Kernel},
    memory::{Matrix, Work, device, page_bytes, upload, work},
    model::{Layer, Shape, Weights, check_shape},
    step::{self, Choice, Offsets, Row},
};

/// Bytes of a `Chosen` of `cuda/sampling.cuh`.
pub(crate) const CHOSEN_BYTES: usize = 16;
/// Most recordings that are kept.
const MAX_RECORDINGS: usize = 64;

/// A model on a device.
pub struct Decoder<B: Backend> {
    shape: Shape,
    frequencies: Vec<f64>,
    offsets: Offsets,
    embedding: Matrix<B::Buffer>,
    output: Option<Matrix<B::Buffer>>,
    output_norm: B::Buffer,
    layers: Vec<Layer<Matrix<B::Buffer>, B::Buffer>>,
    /// By rows and choices: nothing else changes what is launched. Before `work`, whose memory they use.
    recordings: HashMap<(usize, usize), B::Recording>,
    work: Work<B::Buffer>,
    /// Steps so far: each answer names its own.
    steps: u32,
}

impl<B: Backend> Decoder<B> {
    /// Asks the device's canary, moves a model to it, and wipes its pages.
    ///
    /// # Errors
    /// The canary's answer is wrong, the sizes do not fit together, or the device has no room.
    pub fn new(backend: &mut B, shape: Shape, weights: &Weights) -> Result<Self, DecodeError> {
        check_shape(&shape, weights)?;
        canary::ask(backend).map_err(|error| match error {
            CanaryError::Wrong { wrong } => DecodeError::Canary { wrong },
            CanaryError::Backend(error) => device(error),
        })?;
        let mut floats = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            backend.upload(&bytes).map_err(device)
        };
        let output_norm = floats(&weights.output_norm)?;
        let norms: Result<Vec<_>, _> = weights
            .layers
            .iter()
            .map(|layer| Ok((floats(&layer.attention_norm)?, floats(&layer.feed_norm)?)))
            .collect();
        let mut layers = Vec::with_capacity(weights.layers.len());
        for (layer, (attention_norm, feed_norm)) in weights.layers.iter().zip(norms?) {
            layers.push(Layer {
                attention_norm,
                query: upload(backend, &layer.query)?,
                key: upload(backend, &layer.key)?,
                value: upload(backend, &layer.value)?,
                attention_out: upload(backend, &layer.attention_out)?,
                feed_norm,
                gate: upload(backend, &layer.gate)?,
                up: upload(backend, &layer.up)?,
                down: upload(backend, &layer.down)?,
            });
        }
        let offsets = Offsets::new(&shape, weights.frequencies.len());
        let mut decoder = Self {
            frequencies: weights.frequencies.clone(),
            embedding: upload(backend, &weights.embedding)?,
            output: weights.output.as_ref().map(|output| upload(backend, output)).transpose()?,
            output_norm,
            work: work(backend, &shape, layers.len(), offsets.end as usize)?,
            layers,
            offsets,
            shape,
            recordings: HashMap::new(),
            steps: 0,
        };
        let pages: Vec<u32> = (0..shape.pages as u32).collect();
        decoder.scrub(backend, &pages)?;
        Ok(decoder)
    }

    /// Runs `rows` through the model, and chooses a token after each of the last of them, as many as `choices` are.
    /// `None` where its logits are not numbers. `tables[s]` are the pages of sequence `s`.
    ///
    /// # Errors
    /// A row, table or choice names something that is not there, or the device fails.
    pub fn step(
        &mut self,
        backend: &mut B,
        rows: &[Row],
        tables: &[&[u32]],
        choices: &[Choice],
    ) -> Result<Vec<Option<u32>>, DecodeError> {
        step::check(&self.shape, rows, tables, choices)?;
        self.steps = self.steps.wrapping_add(1);
        let input = Zeroizing::new(step::pack(
            &self.shape,
            &self.offsets,
            &self.frequencies,
            rows,
            tables,
            choices,
            self.steps,
        ));
        backend.write(&self.work.input, &input).map_err(device)?;
        self.launch(backend, rows.len(), choices.len()).map_err(device)?;
        if choices.is_empty() {
            return Ok(Vec::new());
        }
        let expected = choices.len() * CHOSEN_BYTES;
        let answer = Zeroizing::new(backend.read(&self.work.chosen, expected).map_err(device)?);
        if answer.len() != expected {
            return Err(DecodeError::Answer { found: answer.len(), expected });
        }
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let chosen = answer.chunks_exact(CHOSEN_BYTES);
        if chosen.clone().any(|one| word(&one[12..]) != self.steps) {
            return Err(DecodeError::Stale);
        }
        let tokens = chosen.map(|one| Some(word(one)).filter(|_| word(&one[8..]) == 0));
        let tokens: Vec<Option<u32>> = tokens.collect();
        let known = |token: &u32| (*token as usize) < self.shape.vocabulary;
        if tokens.iter().flatten().all(known) { Ok(tokens) } else { Err(DecodeError::NoToken) }
    }

    /// The logits of the first `count` choices of the last step, one after the other. After a penalty they are penalised,
    /// after a draw they are weights: so ask with [`Choice::greedy`].
    ///
    /// # Errors
    /// The device fails, or there is no room for so many.
    pub fn logits(&self, backend: &mut B, count: usize) -> Result<Vec<f32>, DecodeError> {
        let expected = count.saturating_mul(self.shape.vocabulary).saturating_mul(4);
        let bytes = Zeroizing::new(backend.read(&self.work.logits, expected).map_err(device)?);
        if bytes.len() != expected {
            return Err(DecodeError::Answer { found: bytes.len(), expected });
        }
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Wipes pages, and makes sure of it.
    ///
    /// # Errors
    /// As [`Self::prove_clean`].
    pub fn scrub(&mut self, backend: &mut B, pages: &[u32]) -> Result<(), DecodeError> {
        // Each once: two blocks that wipe one page would be a race, if a harmless one.
        let mut pages = pages.to_vec();
        pages.sort_unstable();
        pages.dedup();
        for pages in pages.chunks(self.shape.pages) {
            self.list(backend, pages)?;
            let vectors = self.page_vectors();
            let args = [Arg::Out(&self.work.pages, 0), Arg::In(&self.work.list, 0), Arg::U32(vectors)];
            backend.launch(Kernel::Scrub, Grid::each(pages.len()), &args).map_err(device)?;
            self.prove_clean(backend, pages)?;
        }
        Ok(())
    }

    /// Proves that pages hold nothing, before another tenant gets them.
    ///
    /// # Errors
    /// [`DecodeError::Dirty`] for the first that does, [`DecodeError::NotProven`] for one that was not looked at; there is no
    /// such page, or the device fails.
    pub fn prove_clean(&mut self, backend: &mut B, pages: &[u32]) -> Result<(), DecodeError> {
        for pages in pages.chunks(self.shape.pages) {
            self.list(backend, pages)?;
            backend.write(&self.work.dirty, &vec![0; pages.len() * 4]).map_err(device)?;
            let args = [
                Arg::In(&self.work.pages, 0),
                Arg::In(&self.work.list, 0),
                Arg::Out(&self.work.dirty, 0),
                Arg::U32(self.page_vectors()),
            ];
            backend.launch(Kernel::ScrubCheck, Grid::each(pages.len()), &args).map_err(device)?;
            let counts = backend.read(&self.work.dirty, pages.len() * 4).map_err(device)?;
            let mut counts = counts.chunks_exact(4);
            for page in pages {
                let count = counts
                    .next()
                    .map_or(0, |count| u32::from_le_bytes([count[0], count[1], count[2], count[3]]));
                match count {
                    0 => return Err(DecodeError::NotProven { page: *page }),
                    1 => {}
                    more => return Err(DecodeError::Dirty { page: *page, words: more - 1 }),
                }
            }
        }
        Ok(())
    }

    /// Wipes everything on the device that conversations left there. Call it before the device is given back.
    ///
    /// # Errors
    /// The device fails: then reset it before anybody else gets it.
    pub fn retire(self, backend: &mut B) -> Result<(), DecodeError> {
        self.work.all().into_iter().try_for_each(|buffer| backend.wipe(buffer)).map_err(device)
    }

    fn list(&self, backend: &mut B, pages: &[u32]) -> Result<(), DecodeError> {
        if let Some(page) = pages.iter().find(|page| **page as usize >= self.shape.pages) {
            let (found, limit) = (u64::from(*page), self.shape.pages as u64);
            return Err(DecodeError::Step { what: "page", found, limit });
        }
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        backend.write(&self.work.list, &bytes).map_err(device)
    }

    /// Vectors of 16 bytes in a page.
    fn page_vectors(&self) -> u32 {
        (page_bytes(&self.shape, self.layers.len()) / 16) as u32
    }

    /// Everything of a step. What is launched depends on these two numbers alone, so it is recorded once for each pair.
    fn launch(&mut self, backend: &mut B, rows: usize, choices: usize) -> Result<(), B::Error> {
        if let Some(recording) = self.recordings.get(&(rows, choices)) {
            return backend.replay(recording);
        }
        let recording = backend.record(&mut |backend| {
            self.forward(backend, rows)?;
            if choices > 0 { self.choose(backend, rows, choices) } else { Ok(()) }
        })?;
        if self.recordings.len() >= MAX_RECORDINGS {
            self.recordings.clear();
        }
        self.recordings.insert((rows, choices), recording);
        Ok(())
    }

    /// All layers, for all rows of the step.
    fn forward(&self, backend: &mut B, rows: usize) -> Result<(), B::Error> {
        let (shape, work, at) = (&self.shape, &self.work, &self.offsets);
        let mut embed = self.embedding.args();
        embed.extend([Arg::In(&work.input, at.tokens), Arg::Out(&work.x, 0), Arg::U32(shape.width as u32)]);
        backend.launch(Kernel::Embed(self.embedding.format), Grid::each(rows), &embed)?;
        for (index, layer) in self.layers.iter().enumerate() {
            self.norm(backend, &layer.attention_norm, 0, rows)?;
            self.multiply(backend, &layer.query, &work.floats, &work.query, rows)?;
            self.multiply(backend, &layer.key, &work.floats, &work.key, rows)?;
            self.multiply(backend, &layer.value, &work.floats, &work.value, rows)?;
            self.attend(backend, index, rows)?;
            self.multiply(backend, &layer.attention_out, &work.attended, &work.product, rows)?;
            self.add(backend, rows)?;
            self.norm(backend, &layer.feed_norm, 0, rows)?;
            self.multiply(backend, &layer.gate, &work.floats, &work.gate, rows)?;
            self.multiply(backend, &layer.up, &work.floats, &work.up, rows)?;
            let blocks = rows * shape.feed_width / BLOCK;
            let swiglu = [
                Arg::In(&work.gate, 0),
                Arg::In(&work.up, 0),
                Arg::Out(&work.floats, 0),
                Arg::Out(&work.quants, 0),
                Arg::U32(blocks as u32),
            ];
            backend.launch(Kernel::Swiglu, Grid::blocks(blocks), &swiglu)?;
            self.multiply(backend, &layer.down, &work.floats, &work.product, rows)?;
            self.add(backend, rows)?;
        }
        Ok(())
    }

    /// Norms of the rows from `first` on.
    fn norm(&self, backend: &mut B, weight: &B::Buffer, first: usize, rows: usize) -> Result<(), B::Error> {
        let args = [
            Arg::In(&self.work.x, (first * self.shape.width * 4) as u64),
            Arg::In(weight, 0),
            Arg::Out(&self.work.floats, 0),
            Arg::Out(&self.work.quants, 0),
            Arg::U32(self.shape.width as u32),
            Arg::F32(self.shape.epsilon),
        ];
        backend.launch(Kernel::RmsNorm, Grid::each(rows), &args)
    }

    /// The product of a matrix with what was quantised last, or with the floats that this was made of.
    fn multiply(
        &self,
        backend: &mut B,
        matrix: &Matrix<B::Buffer>,
        floats: &B::Buffer,
        out: &B::Buffer,
        rows: usize,
    ) -> Result<(), B::Error> {
        let input = if matrix.format.is_numbers() { floats } else { &self.work.quants };
        let mut args = matrix.args();
        args.extend([
            Arg::In(input, 0),
            Arg::Out(out, 0),
            Arg::U32(matrix.rows as u32),
            Arg::U32(matrix.columns as u32),
            Arg::U32(rows as u32),
        ]);
        let grid = Grid::matmul(matrix.format, matrix.rows, rows);
        backend.launch(Kernel::Matmul(matrix.format), grid, &args)
    }

    fn add(&self, backend: &mut B, rows: usize) -> Result<(), B::Error> {
        let count = rows * self.shape.width;
        let args = [Arg::Out(&self.work.x, 0), Arg::In(&self.work.product, 0), Arg::U32(count as u32)];
        backend.launch(Kernel::Residual, Grid::numbers(count), &args)
    }

    /// Rotates, writes into pages, attends, and quantises what came out.
    fn attend(&self, backend: &mut B, layer: usize, rows: usize) -> Result<(), B::Error> {
        let (shape, work, at) = (&self.shape, &self.work, &self.offsets);
        let sizes = [
            self.layers.len(),
            shape.heads,
            shape.kv_heads,
            shape.head_len,
            self.frequencies.len(),
            shape.table_width,
        ];
        let sizes: Vec<u8> = sizes.into_iter().flat_map(|size| (size as u32).to_le_bytes()).collect();
        let rope = [
            Arg::Out(&work.query, 0),
            Arg::In(&work.key, 0),
            Arg::In(&work.value, 0),
            Arg::In(&work.input, at.angles),
            Arg::In(&work.input, at.sequences),
            Arg::In(&work.input, at.positions),
            Arg::In(&work.input, at.tables),
            Arg::Out(&work.pages, 0),
            Arg::Bytes(&sizes),
            Arg::U32(layer as u32),
            Arg::F32(shape.query_scale),
        ];
        backend.launch(Kernel::RopeKv, Grid::each(rows), &rope)?;
        let attention = [
            Arg::In(&work.query, 0),
            Arg::In(&work.pages, 0),
            Arg::In(&work.input, at.sequences),
            Arg::In(&work.input, at.positions),
            Arg::In(&work.input, at.tables),
            Arg::Out(&work.attended, 0),
            Arg::Bytes(&sizes),
            Arg::U32(layer as u32),
        ];
        backend.launch(Kernel::Attention, Grid::attention(shape.heads, rows), &attention)?;
        let blocks = rows * shape.heads * shape.head_len / BLOCK;
        let args = [Arg::In(&work.attended, 0), Arg::Out(&work.quants, 0), Arg::U32(blocks as u32)];
        backend.launch(Kernel::Quantise, Grid::blocks(blocks), &args)
    }

    /// Logits of the last `count` rows, and a token for each.
    fn choose(&self, backend: &mut B, rows: usize, count: usize) -> Result<(), B::Error> {
        let (work, at) = (&self.work, &self.offsets);
        self.norm(backend, &self.output_norm, rows - count, count)?;
        let output = self.output.as_ref().unwrap_or(&self.embedding);
        self.multiply(backend, output, &work.floats, &work.logits, count)?;
        let vocabulary = Arg::U32(self.shape.vocabulary as u32);
        let likeliest = [
            Arg::Out(&work.logits, 0),
            Arg::In(&work.input, at.recent),
            Arg::In(&work.input, at.choices),
            Arg::Out(&work.chosen, 0),
            vocabulary,
        ];
        backend.launch(Kernel::Likeliest, Grid::each(count), &likeliest)?;
        let draw = [
            Arg::Out(&work.logits, 0),
            Arg::Out(&work.keys, 0),
            Arg::In(&work.input, at.choices),
            Arg::Out(&work.chosen, 0),
            Arg::U32(self.shape.vocabulary as u32),
            Arg::U32(self.shape.vocabulary.next_power_of_two() as u32),
        ];
        backend.launch(Kernel::Draw, Grid::each(count), &draw)
    }
}
