//! A model file in memory: configuration, weights in tiles, tokenizer and chat template.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    error::{ModelError, TemplateError},
    gguf::{Format, Header, Source, TensorInfo},
    kernels::{MAX_HEAD, Matrix, PageShape},
    template::ChatMessage,
    tokenizer::Tokenizer,
    vocabulary::Vocabulary,
};

/// Most layers.
const MAX_LAYERS: u64 = 1024;
/// Widest embedding or feed-forward layer.
const MAX_WIDTH: u64 = 1 << 17;
/// Most attention heads.
const MAX_HEADS: u64 = 1024;
/// Longest context.
const MAX_CONTEXT: u64 = 1 << 20;
/// Most threads that repack weights.
const MAX_LOADERS: usize = 16;

/// One layer's weights.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    pub(crate) attention_out: Matrix,
    pub(crate) feed_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// Sizes and constants of the architecture.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) feed_width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_len: usize,
    pub(crate) rotated: usize,
    pub(crate) context: usize,
    pub(crate) epsilon: f32,
}

impl Shape {
    /// What a page of the KV cache holds.
    pub(crate) fn page(&self) -> PageShape {
        PageShape { layers: self.layers, heads: self.kv_heads, head_len: self.head_len }
    }
}

/// A model in memory: weights, tokenizer and chat template. Share it by `Arc`.
pub struct Model {
    name: String,
    pub(crate) shape: Shape,
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// Absent where the embedding serves as the output too.
    output: Option<Matrix>,
    /// Radians that one position turns each pair of a head by.
    frequencies: Vec<f64>,
    vocabulary: Vocabulary,
    parameters: u64,
}

impl Model {
    /// Reads a GGUF file. Every offset, size and count in it is checked.
    ///
    /// # Errors
    /// The file cannot be read, is cut short or malformed, or holds a model that this engine does not run.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::load(&FileSource::open(path)?)
    }

    /// The same from memory. Hash these bytes first, and what was measured is what runs.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ModelError> {
        Self::load(&bytes)
    }

    /// The name that the file gives itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Most tokens of a sequence that the model was made for.
    pub fn context_length(&self) -> usize {
        self.shape.context
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.embedding.rows()
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Bytes of weights that generating one token reads.
    pub fn bytes(&self) -> u64 {
        let matrices = self
            .layers
            .iter()
            .flat_map(|l| [&l.query, &l.key, &l.value, &l.attention_out, &l.gate, &l.up, &l.down]);
        matrices.chain([self.output()]).map(Matrix::bytes).sum()
    }

    /// Bytes of keys and values for each token of a sequence.
    pub fn bytes_per_token(&self) -> u64 {
        (self.shape.layers * self.shape.kv_heads * self.shape.head_len * 2 * 2) as u64
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.vocabulary.tokenizer()
    }

    /// Its tokenizer and chat template.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// [`Vocabulary::render_chat`] of its vocabulary.
    ///
    /// # Errors
    /// As there.
    pub fn render_chat(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        self.vocabulary.render_chat(messages, add_generation_prompt)
    }

    /// The matrix that makes logits.
    pub(crate) fn output(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Cosine and sine of each pair's angle at a position. From `libm` in Rust: the same under every C library.
    pub(crate) fn angles(&self, position: usize, out: &mut Vec<(f32, f32)>) {
        out.clear();
        out.extend(self.frequencies.iter().map(|frequency| {
            let angle = position as f64 * frequency;
            (libm::cos(angle) as f32, libm::sin(angle) as f32)
        }));
    }

    fn load(source: &dyn Source) -> Result<Self, ModelError> {
        let header = Header::read(source)?;
        let shape = Shape::read(&header)?;
        let words = Vocabulary::read(&header)?;
        let vocabulary = words.tokenizer().vocab_size();
        let mut plan = Plan { header: &header, matrices: Vec::new(), used: 0, parameters: 0 };
        plan.matrix("token_embd.weight".into(), vocabulary, shape.width)?;
        let has_output = header.tensor("output.weight").is_some();
        if has_output {
            plan.matrix("output.weight".into(), vocabulary, shape.width)?;
        }
        for layer in 0..shape.layers {
            for (part, rows, columns) in shape.layer_matrices() {
                plan.matrix(format!("blk.{layer}.{part}.weight"), rows, columns)?;
            }
        }
        let output_norm = plan.vector(source, "output_norm.weight", shape.width)?;
        let mut norms = Vec::new();
        for layer in 0..shape.layers {
            let attention = plan.vector(source, &format!("blk.{layer}.attn_norm.weight"), shape.width)?;
            let feed = plan.vector(source, &format!("blk.{layer}.ffn_norm.weight"), shape.width)?;
            norms.push((attention, feed));
        }
        let frequencies = plan.frequencies(source, &shape)?;
        plan.finish()?;
        let parameters = plan.parameters;
        let mut matrices = read_matrices(source, &plan.matrices)?.into_iter();
        let mut next = || matrices.next().expect("the plan has all matrices in this order");
        let embedding = next();
        let output = has_output.then(&mut next);
        let layers = norms
            .into_iter()
            .map(|(attention_norm, feed_norm)| Layer {
                attention_norm,
                query: next(),
                key: next(),
                value: next(),
                attention_out: next(),
                feed_norm,
                gate: next(),
                up: next(),
                down: next(),
            })
            .collect();
        Ok(Self {
            name: header.text("general.name")?.unwrap_or("unnamed").to_owned(),
            shape,
            embedding,
            layers,
            output_norm,
            output,
            frequencies,
            vocabulary: words,
            parameters,
        })
    }
}

impl Shape {
    fn read(header: &Header) -> Result<Self, ModelError> {
        let missing = |key: &str| ModelError::Missing(format!("the metadata key {key}"));
        let architecture =
            header.text("general.architecture")?.ok_or_else(|| missing("general.architecture"))?;
        if architecture != "llama" {
            return Err(ModelError::Unsupported(format!(
                "its architecture is {architecture:?}; llama is known"
            )));
        }
        let number = |key: &str, limit: u64| -> Result<Option<usize>, ModelError> {
            match header.unsigned(key)? {
                Some(0) => Err(ModelError::Malformed(format!("{key} is 0"))),
                Some(found) if found > limit => Err(ModelError::Limit { what: key.into(), found, limit }),
                found => Ok(found.map(|value| value as usize)),
            }
        };
        let needed = |key: &str, limit| number(key, limit)?.ok_or_else(|| missing(key));
        let width = needed("llama.embedding_length", MAX_WIDTH)?;
        let heads = needed("llama.attention.head_count", MAX_HEADS)?;
        let head_len = number("llama.attention.key_length", MAX_WIDTH)?.unwrap_or(width / heads);
        let shape = Self {
            layers: needed("llama.block_count", MAX_LAYERS)?,
            width,
            feed_width: needed("llama.feed_forward_length", MAX_WIDTH)?,
            heads,
            kv_heads: number("llama.attention.head_count_kv", MAX_HEADS)?.unwrap_or(heads),
            head_len,
            rotated: number("llama.rope.dimension_count", MAX_WIDTH)?.unwrap_or(head_len),
            context: needed("llama.context_length", MAX_CONTEXT)?,
            epsilon: header.float("llama.attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32,
        };
        shape.check(header)?;
        Ok(shape)
    }

    fn check(&self, header: &Header) -> Result<(), ModelError> {
        let unsupported = |what: String| Err(ModelError::Unsupported(what));
        if !self.heads.is_multiple_of(self.kv_heads) {
            return unsupported(format!(
                "{} heads do not share {} KV heads evenly",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_len.is_multiple_of(16) || self.head_len == 0 || self.head_len > MAX_HEAD {
            return unsupported(format!(
                "its heads are {} long; multiples of 16 up to {MAX_HEAD} are known",
                self.head_len
            ));
        }
        if self.rotated > self.head_len || !self.rotated.is_multiple_of(2) {
            return unsupported(format!("it rotates {} of {} dimensions", self.rotated, self.head_len));
        }
        if !self.width.is_multiple_of(32) || !self.feed_width.is_multiple_of(32) {
            return unsupported("its layers are not multiples of 32 wide".into());
        }
        if !(self.epsilon > 0.0 && self.epsilon < 1.0) {
            return Err(ModelError::Malformed(format!("its norm's epsilon is {}", self.epsilon)));
        }
        if let Some(value_len) = header.unsigned("llama.attention.value_length")?
            && value_len != self.head_len as u64
        {
            return unsupported("its keys and values differ in length".into());
        }
        if header.unsigned("llama.expert_count")?.unwrap_or(0) > 0 {
            return unsupported("it is a mixture of experts".into());
        }
        match header.text("llama.rope.scaling.type")? {
            None | Some("none") => Ok(()),
            Some(other) => unsupported(format!("its positions are scaled by {other:?}")),
        }
    }

    /// The matrices of a layer in the order of [`Layer`]: name, rows, columns.
    fn layer_matrices(&self) -> [(&'static str, usize, usize); 7] {
        let (queries, keys) = (self.heads * self.head_len, self.kv_heads * self.head_len);
        [
            ("attn_q", queries, self.width),
            ("attn_k", keys, self.width),
            ("attn_v", keys, self.width),
            ("attn_output", self.width, queries),
            ("ffn_gate", self.feed_width, self.width),
            ("ffn_up", self.feed_width, self.width),
            ("ffn_down", self.width, self.feed_width),
        ]
    }
}

/// What is going to be read, checked before anything is.
struct Plan<'a> {
    header: &'a Header,
    matrices: Vec<(&'a TensorInfo, usize, usize)>,
    used: usize,
    parameters: u64,
}

impl<'a> Plan<'a> {
    fn tensor(&mut self, name: &str, dimensions: &[usize]) -> Result<&'a TensorInfo, ModelError> {
        let tensor =
            self.header.tensor(name).ok_or_else(|| ModelError::Missing(format!("the tensor {name}")))?;
        if tensor.dimensions != dimensions {
            return Err(ModelError::Malformed(format!(
                "tensor {name} is {:?}, where its configuration says {dimensions:?}",
                tensor.dimensions
            )));
        }
        self.used += 1;
        self.parameters += dimensions.iter().map(|&d| d as u64).product::<u64>();
        Ok(tensor)
    }

    fn matrix(&mut self, name: String, rows: usize, columns: usize) -> Result<(), ModelError> {
        let tensor = self.tensor(&name, &[columns, rows])?;
        self.matrices.push((tensor, rows, columns));
        Ok(())
    }

    fn vector(&mut self, source: &dyn Source, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name, &[length])?;
        if tensor.format != Format::F32 {
            return Err(ModelError::Unsupported(format!("tensor {name} is not stored in F32")));
        }
        let bytes = read_tensor(source, tensor)?;
        let numbers = bytes.chunks_exact(4);
        let numbers: Vec<f32> =
            numbers.map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(damaged(name)) }
    }

    fn frequencies(&mut self, source: &dyn Source, shape: &Shape) -> Result<Vec<f64>, ModelError> {
        let base = self.header.float("llama.rope.freq_base")?.unwrap_or(10_000.0);
        if !(base > 1.0 && base.is_finite()) {
            return Err(ModelError::Malformed(format!("llama.rope.freq_base is {base}")));
        }
        let pairs = shape.rotated / 2;
        let factors = match self.header.tensor("rope_freqs.weight") {
            Some(_) => self.vector(source, "rope_freqs.weight", pairs)?,
            None => vec![1.0; pairs],
        };
        let frequency = |(pair, factor): (usize, &f32)| {
            libm::pow(base, -2.0 * pair as f64 / shape.rotated as f64) / f64::from(*factor)
        };
        Ok(factors.iter().enumerate().map(frequency).collect())
    }

    /// A tensor that nothing uses would change the answers of an engine that knows it: biases, experts, adapters.
    fn finish(&self) -> Result<(), ModelError> {
        if self.used == self.header.tensors().count() {
            return Ok(());
        }
        let known: HashMap<&str, ()> = self.matrices.iter().map(|(t, ..)| (t.name.as_str(), ())).collect();
        let strange =
            self.header.tensors().find(|t| !known.contains_key(t.name.as_str()) && !is_norm(&t.name));
        let name = strange.map_or("one more than the architecture has", |t| t.name.as_str());
        Err(ModelError::Unsupported(format!("it has a tensor that this architecture does not use: {name}")))
    }
}

fn is_norm(name: &str) -> bool {
    name.ends_with("norm.weight") || name == "rope_freqs.weight"
}

fn damaged(tensor: &str) -> ModelError {
    ModelError::Malformed(format!("tensor {tensor} holds a weight that is not a finite number"))
}

fn read_tensor(source: &dyn Source, tensor: &TensorInfo) -> Result<Vec<u8>, ModelError> {
    // The directory was checked against the size of the source, so this is never more than the source has.
    let mut bytes = vec![0; tensor.bytes as usize];
    source.read(tensor.offset, &mut bytes, &tensor.name)?;
    Ok(bytes)
}

/// Reads and repacks on several threads, the largest first.
fn read_matrices(
    source: &dyn Source,
    plan: &[(&TensorInfo, usize, usize)],
) -> Result<Vec<Matrix>, ModelError> {
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(plan[index].0.bytes));
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Matrix>>> = Mutex::new((0..plan.len()).map(|_| None).collect());
    let load = || -> Result<(), ModelError> {
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (tensor, rows, columns) = plan[index];
            let matrix = Matrix::pack(tensor.format, rows, columns, &read_tensor(source, tensor)?);
            if !matrix.is_finite() {
                return Err(damaged(&tensor.name));
            }
            done.lock().expect("no code panics while it holds this lock")[index] = Some(matrix);
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_LOADERS);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(load)).collect();
        let own = load();
        others
            .into_iter()
            .map(|thread| thread.join().expect("repacking does not panic"))
            .fold(own, Result::and)
    })?;
    let done = done.into_inner().expect("no code panics while it holds this lock");
    Ok(done.into_iter().map(|matrix| matrix.expect("every number was taken")).collect())
}

/// A file, read piece by piece.
pub(crate) struct FileSource {
    file: File,
    path: PathBuf,
    size: u64,
}

impl FileSource {
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let failed = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Self { file, path: path.to_owned(), size })
    }
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, out: &mut [u8], _what: &str) -> Result<(), ModelError> {
        self.file
            .read_exact_at(out, offset)
            .map_err(|source| ModelError::Io { path: self.path.clone(), source })
    }
}
