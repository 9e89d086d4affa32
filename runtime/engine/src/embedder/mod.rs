//! Texts to vectors: BERT encoders with mean or first-token pooling, as sentence-transformers has them.

mod encoder;
mod folder;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use encoder::Work;
use zeroize::{Zeroize, Zeroizing};

pub use folder::EmbeddingModel;

use crate::{
    error::{GenerateError, ModelError},
    files::Folder,
    generate::EngineOptions,
    kernels::{InstructionSet, Pool},
    tokenizer::Tokenizer,
};

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    First,
}

/// A text's vector. It tells what the text was about: it cannot be printed, and is wiped when it goes.
pub struct Embedding {
    values: Vec<f32>,
    tokens: usize,
}

impl Embedding {
    /// The vector, [`Embedder::dimensions`] long.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Tokens that were read, those that begin and end the text among them.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

/// An embedding model with the threads that run it. Several threads may ask at a time; they take turns. The same text
/// gives the same bits on every instruction set and with any number of threads.
pub struct Embedder {
    model: EmbeddingModel,
    max_tokens: usize,
    pool: Pool,
    work: Mutex<Work>,
}

impl Embedder {
    /// [`EmbeddingModel::open`] and [`Self::new`].
    ///
    /// # Errors
    /// As the first.
    pub fn open(path: &Path, options: &EngineOptions) -> Result<Self, ModelError> {
        Ok(Self::new(EmbeddingModel::read(&Folder(path))?, options))
    }

    /// A model with threads of its own. Of the options, `max_context` is a limit beside the model's own.
    pub fn new(model: EmbeddingModel, options: &EngineOptions) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if options.threads == 0 { cores } else { options.threads };
        let set = options.instruction_set.unwrap_or_else(InstructionSet::detect).supported();
        let max_tokens = model.max_tokens.min(options.max_context);
        Self { model, max_tokens, pool: Pool::new(threads, set), work: Mutex::default() }
    }

    /// Length of a vector.
    pub fn dimensions(&self) -> usize {
        self.model.encoder.width()
    }

    /// Most tokens of a text, those that begin and end it among them.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.model.encoder.vocabulary()
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.tokenizer
    }

    /// The tokens of a text, with those that begin and end it.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        let [first, last] = self.model.frame;
        let within = Zeroizing::new(self.model.tokenizer.encode(text, false));
        let mut tokens = Vec::with_capacity(within.len() + 2); // it never moves, and leaves no copy behind
        tokens.push(first);
        tokens.extend_from_slice(&within);
        tokens.push(last);
        tokens
    }

    /// The vector of a text. A text that is too long is refused, and not cut.
    ///
    /// # Errors
    /// The text is too long, or the model's weights are damaged.
    pub fn embed(&self, text: &str) -> Result<Embedding, GenerateError> {
        self.embed_tokens(&Zeroizing::new(self.tokens(text)))
    }

    /// The same for tokens, which begin and end as [`Self::tokens`] has it.
    ///
    /// # Errors
    /// There are none or too many, one is not in the vocabulary, or the model's weights are damaged.
    pub fn embed_tokens(&self, tokens: &[u32]) -> Result<Embedding, GenerateError> {
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if tokens.len() > self.max_tokens {
            return Err(GenerateError::ContextOverflow { tokens: tokens.len(), context: self.max_tokens });
        }
        let vocab_size = self.vocab_size();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(GenerateError::UnknownToken { token, vocab_size });
        }
        // Whatever a panic left there is overwritten, as what another text left is.
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        self.model.encoder.run(&self.pool, tokens, &mut work);
        let mut new = Embedding { values: vec![0.0; self.dimensions()], tokens: tokens.len() };
        let read = if self.model.pooling == Pooling::Mean { tokens.len() } else { 1 };
        for row in work.rows(read) {
            new.values.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        work.wipe();
        let size = new.values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        let divisor = if self.model.normalises { size.max(1e-12) as f32 } else { read as f32 };
        new.values.iter_mut().for_each(|value| *value /= divisor);
        if size.is_finite() { Ok(new) } else { Err(GenerateError::NotANumber) }
    }
}
