//! A model in memory: configuration, weights in tiles, tokenizer and chat template.

mod blueprint;
mod families;
mod plan;
mod positions;
mod shape;

use std::path::Path;

pub use blueprint::{Blueprint, LayerPlan, MatrixPlan, Sizes};
pub(crate) use families::{Activation, Architecture, Rotation, Window};
pub(crate) use plan::Plan;
pub(crate) use positions::Positions;
pub(crate) use shape::Shape;

use crate::{
    archive::Archive,
    container::{FileSource, Header, Source},
    error::{ModelError, TemplateError},
    files::{Files, Folder},
    gguf, huggingface,
    kernels::Matrix,
    template::ChatMessage,
    tokenizer::Tokenizer,
    vocabulary::Vocabulary,
};

/// One layer's weights.
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    /// What is added to queries, keys and values, in families that do so.
    pub(crate) biases: Option<[Vec<f32>; 3]>,
    /// The norms of each head's query and key, in families that have them.
    pub(crate) head_norms: Option<[Vec<f32>; 2]>,
    pub(crate) attention_out: Matrix,
    /// The norms of what attention and feed-forward give, in families that have them.
    pub(crate) post_norms: Option<[Vec<f32>; 2]>,
    pub(crate) feed_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// A layer's vectors, which are read before its matrices.
struct Vectors {
    attention_norm: Vec<f32>,
    feed_norm: Vec<f32>,
    biases: Option<[Vec<f32>; 3]>,
    head_norms: Option<[Vec<f32>; 2]>,
    post_norms: Option<[Vec<f32>; 2]>,
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
    /// How layers that see all turn.
    pub(crate) positions: Positions,
    /// How layers with a window turn, where that is another way.
    pub(crate) local_positions: Option<Positions>,
    vocabulary: Vocabulary,
    parameters: u64,
}

impl Model {
    /// Reads a GGUF file, a Hugging Face folder (`config.json`, safetensors and `tokenizer.json`), or the archive of one
    /// ([`pack`](crate::pack)). Every offset, size and count in it is checked.
    ///
    /// # Errors
    /// The file cannot be read, is cut short or malformed, or holds a model that this engine does not run.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return Self::from_files(&Folder(path));
        }
        let file = FileSource::open(path)?;
        match Archive::is_at(&file)? {
            true => Self::from_files(&Archive::load(&file)?),
            false => Self::from_gguf(&file),
        }
    }

    /// A GGUF from memory, or the archive of a folder ([`pack`](crate::pack)). Hash these bytes first, and what was
    /// measured is what runs.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ModelError> {
        match Archive::is_one(&bytes) {
            true => Self::from_files(&Archive::read(bytes)?),
            false => Self::from_gguf(&bytes),
        }
    }

    pub(crate) fn from_files(files: &dyn Files) -> Result<Self, ModelError> {
        let folder = huggingface::open(files)?;
        Self::load(&*folder.source, &folder.header, folder.vocabulary)
    }

    fn from_gguf(source: &dyn Source) -> Result<Self, ModelError> {
        let header = gguf::read(source)?;
        let vocabulary = Vocabulary::read(&header)?;
        Self::load(source, &header, vocabulary)
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

    /// Reads what the header lists.
    fn load(source: &dyn Source, header: &Header, vocabulary: Vocabulary) -> Result<Self, ModelError> {
        let shape = Shape::read(header)?;
        let words = vocabulary.tokenizer().vocab_size();
        let mut plan = Plan::new(header);
        plan.matrix("token_embd.weight", words, shape.width)?;
        let has_output = plan.has("output.weight");
        if has_output {
            plan.matrix("output.weight", words, shape.width)?;
        }
        for layer in 0..shape.layers {
            shape.plan_layer(&mut plan, layer)?;
        }
        let output_norm = plan.vector(source, "output_norm.weight", shape.width)?;
        let vectors: Result<Vec<Vectors>, ModelError> =
            (0..shape.layers).map(|layer| Vectors::read(&mut plan, source, &shape, layer)).collect();
        let vectors = vectors?;
        let positions = Positions::read(&mut plan, source, &shape)?;
        plan.finish()?;
        let mut matrices = plan.read(source)?.into_iter();
        let mut next = || matrices.next().expect("the plan has all matrices in this order");
        let embedding = next();
        let output = has_output.then(&mut next);
        let layers = vectors.into_iter().map(|vectors| Layer::build(vectors, &mut next)).collect();
        Ok(Self {
            name: header.text("general.name")?.unwrap_or("unnamed").to_owned(),
            shape,
            embedding,
            layers,
            output_norm,
            output,
            positions,
            local_positions: Positions::local(&shape),
            vocabulary,
            parameters: plan.parameters,
        })
    }
}

impl Layer {
    /// Puts a layer together; `next` gives its matrices in the order of [`Shape::plan_layer`].
    fn build(vectors: Vectors, next: &mut impl FnMut() -> Matrix) -> Self {
        Self {
            attention_norm: vectors.attention_norm,
            query: next(),
            key: next(),
            value: next(),
            biases: vectors.biases,
            head_norms: vectors.head_norms,
            attention_out: next(),
            post_norms: vectors.post_norms,
            feed_norm: vectors.feed_norm,
            gate: next(),
            up: next(),
            down: next(),
        }
    }
}

impl Vectors {
    fn read(
        plan: &mut Plan<'_>,
        source: &dyn Source,
        shape: &Shape,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let (family, keys) = (shape.architecture, shape.kv_heads * shape.head_len);
        let mut vector = |part: &str, length| plan.vector(source, &format!("blk.{layer}.{part}"), length);
        let mut new = Self {
            attention_norm: vector("attn_norm.weight", shape.width)?,
            feed_norm: vector("ffn_norm.weight", shape.width)?,
            biases: None,
            head_norms: None,
            post_norms: None,
        };
        if family.biases {
            let query = vector("attn_q.bias", shape.heads * shape.head_len)?;
            new.biases = Some([query, vector("attn_k.bias", keys)?, vector("attn_v.bias", keys)?]);
        }
        if family.head_norms {
            let query = vector("attn_q_norm.weight", shape.head_len)?;
            new.head_norms = Some([query, vector("attn_k_norm.weight", shape.head_len)?]);
        }
        if family.post_norms {
            let attention = vector("post_attention_norm.weight", shape.width)?;
            new.post_norms = Some([attention, vector("post_ffw_norm.weight", shape.width)?]);
        }
        Ok(new)
    }
}

impl Shape {
    /// Plans the matrices of a layer in the order of [`Layer::build`].
    fn plan_layer(&self, plan: &mut Plan<'_>, layer: usize) -> Result<(), ModelError> {
        let (queries, keys) = (self.heads * self.head_len, self.kv_heads * self.head_len);
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        if self.architecture.fused {
            plan.stack(&name("attn_qkv"), &[queries, keys, keys], self.width)?;
        } else {
            plan.matrix(&name("attn_q"), queries, self.width)?;
            plan.matrix(&name("attn_k"), keys, self.width)?;
            plan.matrix(&name("attn_v"), keys, self.width)?;
        }
        plan.matrix(&name("attn_output"), self.width, queries)?;
        if self.architecture.fused {
            plan.stack(&name("ffn_up"), &[self.feed_width, self.feed_width], self.width)?;
        } else {
            plan.matrix(&name("ffn_gate"), self.feed_width, self.width)?;
            plan.matrix(&name("ffn_up"), self.feed_width, self.width)?;
        }
        plan.matrix(&name("ffn_down"), self.width, self.feed_width)
    }
}
