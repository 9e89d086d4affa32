//! A folder of sentence-transformers: a BERT encoder, its tokenizer, and how tokens' vectors become one.

use std::path::Path;

use serde::Deserialize;

use super::{
    Pooling,
    encoder::{Encoder, EncoderShape},
};
use crate::{
    container::{Adjust, Header, TensorInfo},
    error::ModelError,
    files::{self, Files, Folder},
    huggingface::{MAX_CONFIG, read_tokenizer},
    safetensors,
    tokenizer::Tokenizer,
};

/// Most layers.
const MAX_LAYERS: u64 = 1024;
/// Widest embedding or feed-forward layer.
const MAX_WIDTH: u64 = 1 << 16;
/// Most positions.
const MAX_POSITIONS: u64 = 1 << 16;
/// Most tokens.
const MAX_VOCABULARY: u64 = 1 << 20;
/// Tensors that pooling by mean or first token does not need.
const UNUSED: [&str; 3] = ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"];

/// An embedding model in memory: weights in tiles, tokenizer, pooling.
pub struct EmbeddingModel {
    pub(super) encoder: Encoder,
    pub(super) tokenizer: Tokenizer,
    /// The tokens that begin and end a text.
    pub(super) frame: [u32; 2],
    pub(super) pooling: Pooling,
    pub(super) normalises: bool,
    /// Of a text, those that begin and end it among them.
    pub(super) max_tokens: usize,
}

impl EmbeddingModel {
    /// Reads a folder of sentence-transformers: `config.json` of the `bert` type, safetensors, `tokenizer.json`, and, where
    /// they are there, `modules.json`, the pooling's configuration and `sentence_bert_config.json`.
    ///
    /// # Errors
    /// A file cannot be read, is cut short or malformed, or holds a model that this engine does not run.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::read(&Folder(path))
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The same from these files.
    pub(crate) fn read(folder: &dyn Files) -> Result<Self, ModelError> {
        let config: Config = files::json(folder, "config.json", MAX_CONFIG)?;
        let shape = config.shape()?;
        let (pooling, normalises) = modules(folder)?;
        let sentence: Sentence = files::optional(folder, "sentence_bert_config.json", MAX_CONFIG)?;
        let tokenizer = read_tokenizer(folder, shape.vocabulary)?;
        let token = |name: &str| {
            let missing = || ModelError::Missing(format!("the token {name} in tokenizer.json"));
            tokenizer.control_token(name).ok_or_else(missing)
        };
        let frame = [token("[CLS]")?, token("[SEP]")?];
        let (source, entries) = safetensors::open(folder, |name| UNUSED.contains(&plain(name)))?;
        let mut header = Header::default();
        for (name, entry) in entries {
            let name = plain(&name).to_owned();
            let dimensions = entry.shape.into_iter().rev().collect();
            let (format, offset, bytes) = (entry.format, entry.offset, entry.bytes);
            let tensor =
                TensorInfo { name: name.clone(), dimensions, format, offset, bytes, adjust: Adjust::None };
            if header.tensors.insert(name, tensor).is_some() {
                return Err(ModelError::Malformed("two of its tensors have one name".into()));
            }
        }
        let encoder = Encoder::load(&source, &header, shape)?;
        let max_tokens = sentence.max_seq_length.unwrap_or(shape.positions).min(shape.positions);
        if max_tokens <= frame.len() {
            return Err(ModelError::Malformed(format!("its texts may have {max_tokens} tokens")));
        }
        Ok(Self { encoder, tokenizer, frame, pooling, normalises, max_tokens })
    }

    /// Whether `config.json` says that these files are one.
    pub(crate) fn is_one(files: &dyn Files) -> Result<bool, ModelError> {
        let typed: Typed = files::json(files, "config.json", MAX_CONFIG)?;
        Ok(typed.model_type.as_deref() == Some(KIND))
    }
}

/// The one type of encoders that is known.
const KIND: &str = "bert";

/// What kind of model a folder holds.
#[derive(Deserialize)]
struct Typed {
    model_type: Option<String>,
}

/// The fields of BERT's `config.json` that decide on what is computed.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    max_position_embeddings: u64,
    type_vocab_size: u64,
    layer_norm_eps: f64,
    hidden_act: String,
    position_embedding_type: Option<String>,
}

/// `modules.json`: the steps from a text to its vector.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

/// The pooling's `config.json`.
#[derive(Deserialize, Default)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

/// `sentence_bert_config.json`.
#[derive(Deserialize, Default)]
struct Sentence {
    max_seq_length: Option<usize>,
}

/// A tensor's name without the prefix that models with more than an encoder have.
fn plain(name: &str) -> &str {
    name.strip_prefix("bert.").unwrap_or(name)
}

/// How the tokens' vectors become one, and whether that has the length one. A folder without `modules.json` is a bare
/// encoder: their mean, as it is.
fn modules(folder: &dyn Files) -> Result<(Pooling, bool), ModelError> {
    let list: Vec<Module> = files::optional(folder, "modules.json", MAX_CONFIG)?;
    let (mut pooling, mut normalises) = (Pooling::Mean, false);
    for module in list {
        match module.kind.rsplit('.').next().unwrap_or("") {
            "Transformer" if module.path.is_empty() => {}
            "Normalize" => normalises = true,
            // A name is not a path: a list must not reach out of its folder.
            "Pooling" if !module.path.is_empty() && !module.path.contains(['/', '\\', '.']) => {
                let name = format!("{}/config.json", module.path);
                pooling = files::json::<PoolingConfig>(folder, &name, MAX_CONFIG)?.pooling()?;
            }
            _ => {
                let Module { kind, path } = module;
                return Err(ModelError::Unsupported(format!("its modules.json has {kind:?} at {path:?}")));
            }
        }
    }
    Ok((pooling, normalises))
}

impl PoolingConfig {
    fn pooling(&self) -> Result<Pooling, ModelError> {
        let others = self.pooling_mode_max_tokens
            || self.pooling_mode_mean_sqrt_len_tokens
            || self.pooling_mode_weightedmean_tokens
            || self.pooling_mode_lasttoken;
        match (self.pooling_mode_cls_token, self.pooling_mode_mean_tokens, others) {
            (false, true, false) => Ok(Pooling::Mean),
            (true, false, false) => Ok(Pooling::First),
            _ => Err(ModelError::Unsupported(
                "its pooling is neither the mean of all tokens nor the first token alone".into(),
            )),
        }
    }
}

impl Config {
    fn shape(&self) -> Result<EncoderShape, ModelError> {
        let unsupported = |what: String| Err(ModelError::Unsupported(what));
        if self.model_type != KIND {
            return unsupported(format!(
                "its model_type is {:?}; for embeddings bert is known",
                self.model_type
            ));
        }
        if self.hidden_act != "gelu" {
            return unsupported(format!("its activation is {:?}; gelu is known", self.hidden_act));
        }
        if let Some(kind) = self.position_embedding_type.as_ref().filter(|kind| *kind != "absolute") {
            return unsupported(format!("its positions are {kind:?}; absolute ones are known"));
        }
        let number = |what: &str, found: u64, limit: u64| match found {
            0 => Err(ModelError::Malformed(format!("{what} is 0"))),
            _ if found > limit => Err(ModelError::Limit { what: what.into(), found, limit }),
            _ => Ok(found as usize),
        };
        let shape = EncoderShape {
            layers: number("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS)?,
            width: number("hidden_size", self.hidden_size, MAX_WIDTH)?,
            feed_width: number("intermediate_size", self.intermediate_size, MAX_WIDTH)?,
            heads: number("num_attention_heads", self.num_attention_heads, MAX_WIDTH)?,
            vocabulary: number("vocab_size", self.vocab_size, MAX_VOCABULARY)?,
            positions: number("max_position_embeddings", self.max_position_embeddings, MAX_POSITIONS)?,
            kinds: number("type_vocab_size", self.type_vocab_size, MAX_WIDTH)?,
            epsilon: self.layer_norm_eps as f32,
        };
        if !shape.width.is_multiple_of(32) || !shape.feed_width.is_multiple_of(32) {
            return unsupported("its layers are not multiples of 32 wide".into());
        }
        if !shape.width.is_multiple_of(shape.heads * 16) {
            return unsupported(format!("its {} heads are not multiples of 16 long", shape.heads));
        }
        if !(shape.epsilon > 0.0 && shape.epsilon < 1.0) {
            return Err(ModelError::Malformed(format!("its norm's epsilon is {}", self.layer_norm_eps)));
        }
        Ok(shape)
    }
}
