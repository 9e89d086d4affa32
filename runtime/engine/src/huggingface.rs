//! A Hugging Face folder as a model: `config.json`, `*.safetensors`, `tokenizer.json` and the chat template, translated
//! into what a GGUF of the same model would say. Nothing is quantised.

use serde::Deserialize;

use crate::{
    container::{Adjust, Header, Source, TensorInfo, Value},
    error::ModelError,
    files::{self, Files},
    model::{Architecture, Window},
    safetensors::{self, Entry},
    tokenizer::{Tokenizer, TokenizerConfig, TokenizerFile},
    vocabulary::Vocabulary,
};

/// Longest `config.json`, in bytes.
pub(crate) const MAX_CONFIG: u64 = 1 << 20;
/// Longest `tokenizer.json` or `tokenizer_config.json`, in bytes: those of 256,000 tokens have some 35 MB.
const MAX_TOKENIZER: u64 = 128 << 20;

/// The fields of `config.json` that decide on what is computed. Those of other families, of training and of other
/// programs are not looked at: what would change the computation shows in the tensors, which are all accounted for.
#[derive(Deserialize)]
pub(crate) struct Config {
    model_type: String,
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    max_position_embeddings: u64,
    original_max_position_embeddings: Option<u64>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<RopeParameters>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<u64>,
    query_pre_attn_scalar: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    rope_local_base_freq: Option<f64>,
    tie_word_embeddings: Option<bool>,
    eos_token_id: Option<Ids>,
}

/// One id or several.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

/// `generation_config.json`: which tokens end an answer.
#[derive(Deserialize, Default)]
struct Generation {
    eos_token_id: Option<Ids>,
}

/// How positions are scaled: `rope_scaling`, or what newer folders have in its place.
#[derive(Deserialize, Clone, Default)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<u64>,
    attention_factor: Option<f64>,
    partial_rotary_factor: Option<f64>,
    long_factor: Option<Vec<f32>>,
    short_factor: Option<Vec<f32>>,
}

/// One for all layers, or one for each kind of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum RopeParameters {
    Kinds { full_attention: Rope, sliding_attention: Rope },
    One(Rope),
}

/// A folder's model: its bytes, and what is where in them.
pub(crate) struct Folder {
    pub(crate) source: Box<dyn Source>,
    pub(crate) header: Header,
    pub(crate) vocabulary: Vocabulary,
}

/// Reads a folder's configuration and the directory of its tensors.
pub(crate) fn open(folder: &dyn Files) -> Result<Folder, ModelError> {
    let config: Config = files::json(folder, "config.json", MAX_CONFIG)?;
    let family = Architecture::of_folder(&config.model_type)?;
    let mut header = Header::default();
    header.values.insert("general.name".into(), Value::Text(folder.name().unwrap_or("unnamed").into()));
    config.translate(family, &mut header)?;
    // Older files of Llama hold the frequencies that follow from the configuration.
    let (source, entries) = safetensors::open(folder, |name| name.ends_with(".rotary_emb.inv_freq"))?;
    for (name, entry) in entries {
        if name == "lm_head.weight" && config.tie_word_embeddings == Some(true) {
            continue; // a copy of the embedding that some writers leave in
        }
        let tensor = translate(family, &config, &name, entry)?;
        if let Some(twice) = header.tensors.insert(tensor.name.clone(), tensor) {
            return Err(ModelError::Malformed(format!("two of its tensors become {}", twice.name)));
        }
    }
    Ok(Folder { source: Box::new(source), header, vocabulary: vocabulary(folder, Some(&config))? })
}

/// Reads a folder's tokenizer and chat template alone.
pub(crate) fn open_vocabulary(folder: &dyn Files) -> Result<Vocabulary, ModelError> {
    // Counting tokens needs no model beside them.
    let config: Option<Config> = files::optional(folder, "config.json", MAX_CONFIG)?;
    vocabulary(folder, config.as_ref())
}

fn vocabulary(folder: &dyn Files, config: Option<&Config>) -> Result<Vocabulary, ModelError> {
    let file: TokenizerFile = files::json(folder, "tokenizer.json", MAX_TOKENIZER)?;
    let names: TokenizerConfig = files::optional(folder, "tokenizer_config.json", MAX_TOKENIZER)?;
    let generation: Generation = files::optional(folder, "generation_config.json", MAX_CONFIG)?;
    let ends = [generation.eos_token_id, config.and_then(|config| config.eos_token_id.clone())]
        .into_iter()
        .flatten();
    let ends: Vec<u32> = ends
        .flat_map(|ids| match ids {
            Ids::One(id) => vec![id],
            Ids::Several(ids) => ids,
        })
        .collect();
    let rows = config.map_or(0, |config| usize::try_from(config.vocab_size).unwrap_or(usize::MAX));
    let tokenizer = Tokenizer::from_json(&file, &names, rows, &ends)?;
    const TEMPLATE: &str = "chat_template.jinja";
    let template = if folder.open(TEMPLATE)?.is_some() {
        let text = String::from_utf8(files::whole(folder, TEMPLATE, MAX_CONFIG)?);
        Some(text.map_err(|_| ModelError::Malformed("chat_template.jinja is not UTF-8".into()))?)
    } else {
        names.chat_template.and_then(default_template)
    };
    Ok(Vocabulary::new(tokenizer, template))
}

/// Reads a folder's tokenizer alone, for an embedding of so many rows.
pub(crate) fn read_tokenizer(folder: &dyn Files, rows: usize) -> Result<Tokenizer, ModelError> {
    let file: TokenizerFile = files::json(folder, "tokenizer.json", MAX_TOKENIZER)?;
    let names: TokenizerConfig = files::optional(folder, "tokenizer_config.json", MAX_TOKENIZER)?;
    Tokenizer::from_json(&file, &names, rows, &[])
}

/// The template, or the one called `default` of several.
fn default_template(value: serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Array(several) => several
            .iter()
            .find(|one| one["name"] == "default")
            .and_then(|one| one["template"].as_str())
            .map(str::to_owned),
        _ => None,
    }
}

/// A tensor under GGUF's name, fastest dimension first.
fn translate(
    family: &Architecture,
    config: &Config,
    name: &str,
    entry: Entry,
) -> Result<TensorInfo, ModelError> {
    let unknown =
        || ModelError::Unsupported(format!("it has a tensor that this architecture does not use: {name}"));
    let new = match name {
        "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
        "model.norm.weight" => "output_norm.weight".to_owned(),
        "lm_head.weight" => "output.weight".to_owned(),
        _ => {
            let rest = name.strip_prefix("model.layers.").ok_or_else(unknown)?;
            let (layer, part) = rest.split_once('.').ok_or_else(unknown)?;
            let layer: u32 = layer.parse().map_err(|_| unknown())?;
            let parts = family.folder.parts;
            let (_, part) = parts.iter().find(|(theirs, _)| *theirs == part).ok_or_else(unknown)?;
            format!("blk.{layer}.{part}")
        }
    };
    let heads = |count: u64| Adjust::Pairs(count as usize);
    let adjust = if family.folder.reorders_heads && new.ends_with(".attn_q.weight") {
        heads(config.num_attention_heads)
    } else if family.folder.reorders_heads && new.ends_with(".attn_k.weight") {
        heads(config.num_key_value_heads.unwrap_or(config.num_attention_heads))
    } else if family.folder.norms_plus_one && new.ends_with("norm.weight") {
        Adjust::PlusOne
    } else {
        Adjust::None
    };
    let dimensions = entry.shape.into_iter().rev().collect();
    Ok(TensorInfo {
        name: new,
        dimensions,
        format: entry.format,
        offset: entry.offset,
        bytes: entry.bytes,
        adjust,
    })
}

impl Config {
    /// Writes what GGUF's metadata would say.
    fn translate(&self, family: &'static Architecture, header: &mut Header) -> Result<(), ModelError> {
        let values = &mut header.values;
        let mut put = |key: &str, value: Value| {
            values.insert(family.key(key), value);
        };
        put("embedding_length", Value::Unsigned(self.hidden_size));
        put("feed_forward_length", Value::Unsigned(self.intermediate_size));
        put("block_count", Value::Unsigned(self.num_hidden_layers));
        put("attention.head_count", Value::Unsigned(self.num_attention_heads));
        put("context_length", Value::Unsigned(self.max_position_embeddings));
        if let Some(heads) = self.num_key_value_heads {
            put("attention.head_count_kv", Value::Unsigned(heads));
        }
        if let Some(length) = self.head_dim {
            put("attention.key_length", Value::Unsigned(length));
        }
        put("attention.layer_norm_rms_epsilon", Value::Float(self.rms_norm_eps.unwrap_or(1e-6)));
        if let Some(scalar) = self.query_pre_attn_scalar {
            put("attention.scale", Value::Float(single(1.0 / scalar.sqrt())));
        }
        for (key, cap) in [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
        ] {
            if let Some(cap) = cap {
                put(key, Value::Float(single(cap)));
            }
        }
        values.insert("general.architecture".into(), Value::Text(family.name.into()));
        self.check_activation(family)?;
        self.translate_window(family, header)?;
        self.translate_positions(family, header)
    }

    fn check_activation(&self, family: &Architecture) -> Result<(), ModelError> {
        let Some(name) = self.hidden_activation.as_ref().or(self.hidden_act.as_ref()) else { return Ok(()) };
        if name == family.activation.name() {
            return Ok(());
        }
        Err(ModelError::Unsupported(format!(
            "its activation is {name:?}; models of this family have {:?}",
            family.activation.name()
        )))
    }

    fn translate_window(&self, family: &Architecture, header: &mut Header) -> Result<(), ModelError> {
        if let Some(window) = self.sliding_window.filter(|_| self.use_sliding_window != Some(false)) {
            header.values.insert(family.key("attention.sliding_window"), Value::Unsigned(window));
        }
        let key = family.key("attention.sliding_window_pattern");
        let is_pattern = matches!(family.window, Window::AllBut { .. });
        if let Some(kinds) = self.layer_types.as_ref().filter(|_| is_pattern) {
            let local = |kind: &String| i64::from(kind == "sliding_attention");
            header.values.insert(key, Value::Integers(kinds.iter().map(local).collect()));
        } else if let Some(each) = self.sliding_window_pattern {
            header.values.insert(key, Value::Unsigned(each));
        }
        Ok(())
    }

    fn translate_positions(&self, family: &Architecture, header: &mut Header) -> Result<(), ModelError> {
        let (rope, local) = match &self.rope_parameters {
            Some(RopeParameters::One(rope)) => (rope.clone(), None),
            Some(RopeParameters::Kinds { full_attention, sliding_attention }) => {
                (full_attention.clone(), sliding_attention.rope_theta)
            }
            None => (self.rope_scaling.clone().unwrap_or_default(), self.rope_local_base_freq),
        };
        if let (Some(found), Window::AllBut { base, .. }) = (local, family.window)
            && found != base
        {
            return Err(ModelError::Unsupported(format!(
                "its layers with a window turn by the base {found}, not {base}"
            )));
        }
        let values = &mut header.values;
        if let Some(base) = rope.rope_theta.or(self.rope_theta) {
            values.insert(family.key("rope.freq_base"), Value::Float(single(base)));
        }
        let head_len = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1));
        let part = rope.partial_rotary_factor.or(self.partial_rotary_factor).unwrap_or(1.0);
        let rotated = (head_len as f64 * part) as u64;
        values.insert(family.key("rope.dimension_count"), Value::Unsigned(rotated));
        match rope.rope_type.as_deref() {
            None | Some("default") => {}
            Some("linear") => {
                let factor = rope.factor.ok_or_else(|| missing("rope_scaling.factor"))?;
                values.insert(family.key("rope.scaling.type"), Value::Text("linear".into()));
                values.insert(family.key("rope.scaling.factor"), Value::Float(single(factor)));
            }
            Some("llama3") => {
                let base = rope.rope_theta.or(self.rope_theta).unwrap_or(10_000.0);
                header.given.insert("rope_freqs.weight".into(), rope.llama3(base, rotated)?);
            }
            Some("longrope") => self.translate_long(&rope, family, header)?,
            Some(other) => {
                return Err(ModelError::Unsupported(format!("its positions are scaled by {other:?}")));
            }
        }
        Ok(())
    }

    fn translate_long(
        &self,
        rope: &Rope,
        family: &Architecture,
        header: &mut Header,
    ) -> Result<(), ModelError> {
        let original = rope.original_max_position_embeddings.or(self.original_max_position_embeddings);
        let original = original.filter(|length| *length > 1);
        let original = original.ok_or_else(|| missing("original_max_position_embeddings"))?;
        let long = rope.long_factor.clone().ok_or_else(|| missing("rope_scaling.long_factor"))?;
        let short = rope.short_factor.clone().ok_or_else(|| missing("rope_scaling.short_factor"))?;
        header.given.insert("rope_factors_long.weight".into(), long);
        header.given.insert("rope_factors_short.weight".into(), short);
        // As the paper on LongRoPE has it, unless the file says otherwise.
        let longer = self.max_position_embeddings as f64 / original as f64;
        let computed =
            if longer > 1.0 { libm::sqrt(1.0 + libm::log(longer) / libm::log(original as f64)) } else { 1.0 };
        let factor = rope.attention_factor.unwrap_or(computed);
        let values = &mut header.values;
        values.insert(family.key("rope.scaling.original_context_length"), Value::Unsigned(original));
        values.insert(family.key("rope.scaling.attn_factor"), Value::Float(single(factor)));
        Ok(())
    }
}

impl Rope {
    /// Llama 3's factors: none for fast pairs, `factor` for slow ones, and a slope between.
    fn llama3(&self, base: f64, rotated: u64) -> Result<Vec<f32>, ModelError> {
        let factor = self.factor.ok_or_else(|| missing("rope_scaling.factor"))?;
        let low = self.low_freq_factor.ok_or_else(|| missing("rope_scaling.low_freq_factor"))?;
        let high = self.high_freq_factor.ok_or_else(|| missing("rope_scaling.high_freq_factor"))?;
        let original = self.original_max_position_embeddings;
        let original =
            original.ok_or_else(|| missing("rope_scaling.original_max_position_embeddings"))? as f64;
        if !(high > low && low > 0.0 && factor >= 1.0) {
            return Err(ModelError::Malformed(format!(
                "rope_scaling has the factors {low}, {high}, {factor}"
            )));
        }
        let of_pair = |pair: u64| {
            let wave = 2.0 * std::f64::consts::PI * libm::pow(base, 2.0 * pair as f64 / rotated as f64);
            if wave < original / high {
                1.0
            } else if wave > original / low {
                factor as f32
            } else {
                let smooth = (original / wave - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        };
        Ok((0..rotated.min(1 << 16) / 2).map(of_pair).collect())
    }
}

fn missing(key: &str) -> ModelError {
    ModelError::Missing(format!("{key} in config.json"))
}

/// As GGUF would store it: both containers of a model give the same bits.
fn single(number: f64) -> f64 {
    f64::from(number as f32)
}
