//! Sizes and constants of a model, from its metadata.

use super::families::{Architecture, Window};
use crate::{
    container::Header,
    error::ModelError,
    kernels::{MAX_HEAD, PageShape},
};

/// Most layers.
const MAX_LAYERS: u64 = 1024;
/// Widest embedding or feed-forward layer.
const MAX_WIDTH: u64 = 1 << 17;
/// Most attention heads.
const MAX_HEADS: u64 = 1024;
/// Longest context.
const MAX_CONTEXT: u64 = 1 << 20;

/// Sizes and constants of a model.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) architecture: &'static Architecture,
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) feed_width: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_len: usize,
    /// Dimensions of each head that turn with the position.
    pub(crate) rotated: usize,
    pub(crate) context: usize,
    pub(crate) epsilon: f32,
    /// What queries are multiplied by.
    pub(crate) query_scale: f32,
    /// Tokens that a layer with a window sees, the newest among them; `None` without windows.
    pub(crate) window: Option<usize>,
}

impl Shape {
    /// What a page of the KV cache holds.
    pub(crate) fn page(&self) -> PageShape {
        PageShape { layers: self.layers, heads: self.kv_heads, head_len: self.head_len }
    }

    /// Reads and checks a model's metadata.
    pub(crate) fn read(header: &Header) -> Result<Self, ModelError> {
        let missing = |key: &str| ModelError::Missing(format!("the metadata key {key}"));
        let name = header.text("general.architecture")?.ok_or_else(|| missing("general.architecture"))?;
        let architecture = Architecture::named(name)?;
        let number = |key: &str, limit: u64| -> Result<Option<usize>, ModelError> {
            let key = architecture.key(key);
            match header.unsigned(&key)? {
                Some(0) => Err(ModelError::Malformed(format!("{key} is 0"))),
                Some(found) if found > limit => Err(ModelError::Limit { what: key, found, limit }),
                found => Ok(found.map(|value| value as usize)),
            }
        };
        let needed = |key: &str, limit| number(key, limit)?.ok_or_else(|| missing(&architecture.key(key)));
        let width = needed("embedding_length", MAX_WIDTH)?;
        let heads = needed("attention.head_count", MAX_HEADS)?;
        let layers = needed("block_count", MAX_LAYERS)?;
        let head_len = number("attention.key_length", MAX_WIDTH)?.unwrap_or(width / heads);
        let wide = architecture.wide_queries == Some(layers);
        let query_len = if wide { width / heads } else { head_len };
        let scale = header.float(&architecture.key("attention.scale"))?;
        let epsilon = header.float(&architecture.key("attention.layer_norm_rms_epsilon"))?;
        let shape = Self {
            architecture,
            layers,
            width,
            feed_width: needed("feed_forward_length", MAX_WIDTH)?,
            heads,
            kv_heads: number("attention.head_count_kv", MAX_HEADS)?.unwrap_or(heads),
            head_len,
            rotated: number("rope.dimension_count", MAX_WIDTH)?.unwrap_or(head_len),
            context: needed("context_length", MAX_CONTEXT)?,
            epsilon: epsilon.unwrap_or(1e-5) as f32,
            query_scale: scale.map_or_else(|| 1.0 / (query_len as f32).sqrt(), |scale| scale as f32),
            window: number("attention.sliding_window", u64::MAX)?,
        };
        shape.check(header)?;
        Ok(shape)
    }

    fn check(&self, header: &Header) -> Result<(), ModelError> {
        let unsupported = |what: String| Err(ModelError::Unsupported(what));
        let key = |key: &str| self.architecture.key(key);
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
        if !(self.query_scale > 0.0 && self.query_scale <= 1.0) {
            return Err(ModelError::Malformed(format!("its queries are multiplied by {}", self.query_scale)));
        }
        if let Some(value_len) = header.unsigned(&key("attention.value_length"))?
            && value_len != self.head_len as u64
        {
            return unsupported("its keys and values differ in length".into());
        }
        if header.unsigned(&key("expert_count"))?.unwrap_or(0) > 0 {
            return unsupported("it is a mixture of experts".into());
        }
        for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if header.float(&key(cap))?.unwrap_or(0.0) != 0.0 {
                return unsupported(format!("it has {}", key(cap)));
            }
        }
        self.check_window(header)
    }

    fn check_window(&self, header: &Header) -> Result<(), ModelError> {
        match (self.architecture.window, self.window) {
            (Window::No, Some(window)) if window < self.context => {
                return Err(ModelError::Unsupported(format!(
                    "it attends over a window of {window} tokens, which models of this family do not"
                )));
            }
            (Window::AllBut { .. }, None) => {
                let key = self.architecture.key("attention.sliding_window");
                return Err(ModelError::Missing(format!("the metadata key {key}")));
            }
            _ => {}
        }
        // Which layers have windows is the family's; a file that says otherwise would be answered wrongly.
        let key = self.architecture.key("attention.sliding_window_pattern");
        let agrees = match (header.integers(&key), header.unsigned(&key)) {
            (Ok(None), _) => true,
            (Ok(Some(layers)), _) => {
                layers.len() == self.layers
                    && layers
                        .iter()
                        .enumerate()
                        .all(|(l, &local)| (local != 0) == self.architecture.is_local(l))
            }
            (_, Ok(each)) => {
                matches!(self.architecture.window, Window::AllBut { each: own, .. } if each == Some(own as u64))
            }
            (Err(error), Err(_)) => return Err(error),
        };
        if agrees {
            return Ok(());
        }
        Err(ModelError::Unsupported(format!("its {key} is not that of its family")))
    }

    /// What a layer's embeddings are multiplied by.
    pub(crate) fn embedding_scale(&self) -> Option<f32> {
        self.architecture.scaled_embedding.then(|| (self.width as f32).sqrt())
    }

    /// Tokens before the one at `position` that it does not see in a layer.
    pub(crate) fn unseen(&self, layer: usize, position: usize) -> usize {
        match self.window {
            Some(window) if self.architecture.is_local(layer) => (position + 1).saturating_sub(window),
            _ => 0,
        }
    }
}

impl Architecture {
    /// The metadata key of this family.
    pub(crate) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }
}
