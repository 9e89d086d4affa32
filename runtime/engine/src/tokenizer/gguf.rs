//! The tokenizer that a GGUF holds under `tokenizer.ggml`.

use std::collections::HashMap;

use super::{
    Added, Algorithm, Kind, Parts, Token, Tokenizer,
    bytes::{ByteLevel, decode_letters, stand_ins},
    check_vocabulary,
    pieces::{Merging, Pieces, Prefix, byte_of, ranks, with_spaces},
    split::Splitter,
};
use crate::{container::Header, error::ModelError};

impl Tokenizer {
    /// Builds the tokenizer of a model file.
    pub(crate) fn read(header: &Header) -> Result<Self, ModelError> {
        let model = header.text("tokenizer.ggml.model")?.unwrap_or("");
        if !matches!(model, "gpt2" | "llama") {
            return Err(ModelError::Unsupported(format!(
                "its tokenizer is {model:?}; byte-level BPE (\"gpt2\") and SentencePiece BPE (\"llama\") are known"
            )));
        }
        let names = header
            .texts("tokenizer.ggml.tokens")?
            .ok_or_else(|| ModelError::Missing("tokenizer.ggml.tokens".into()))?;
        check_vocabulary(names.iter().map(String::as_str))?;
        let kinds = read_kinds(header, names.len())?;
        let (tokens, algorithm) = match model {
            "gpt2" => byte_level(header, names, &kinds)?,
            _ => pieces(header, names, &kinds)?,
        };
        let added = names.iter().zip(&kinds).zip(0u32..);
        let added = added.filter(|((_, kind), _)| matches!(kind, Kind::Control | Kind::UserDefined));
        let added = added.map(|((name, kind), id)| Added {
            name: name.as_bytes().into(),
            id,
            is_control: *kind == Kind::Control,
            strips: [false; 2],
        });
        let id_of = |key: &str| id_of(header, key, tokens.len());
        let (bos, eos) = (id_of("tokenizer.ggml.bos_token_id")?, id_of("tokenizer.ggml.eos_token_id")?);
        let ends = id_of("tokenizer.ggml.eot_token_id")?.into_iter().collect();
        let add_bos = header.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(model == "llama");
        let added = added.collect();
        Self::build(Parts { tokens, kinds, added, algorithm, bos, eos, ends, add_bos })
    }
}

fn id_of(header: &Header, key: &str, count: usize) -> Result<Option<u32>, ModelError> {
    match header.unsigned(key)? {
        None => Ok(None),
        Some(id) if id < count as u64 => Ok(Some(id as u32)),
        Some(id) => Err(ModelError::Malformed(format!("{key} is {id}, outside the vocabulary"))),
    }
}

fn read_kinds(header: &Header, count: usize) -> Result<Vec<Kind>, ModelError> {
    let Some(codes) = header.integers("tokenizer.ggml.token_type")? else {
        return Ok(vec![Kind::Normal; count]);
    };
    if codes.len() != count {
        return Err(ModelError::Malformed(format!("{} token types for {count} tokens", codes.len())));
    }
    let kind = |code: &i64| match code {
        3 => Kind::Control,
        4 => Kind::UserDefined,
        2 | 5 => Kind::Unused,
        6 => Kind::Byte,
        _ => Kind::Normal,
    };
    Ok(codes.iter().map(kind).collect())
}

/// Normal tokens are written in byte-level letters, the others as they are.
fn byte_level(
    header: &Header,
    names: &[String],
    kinds: &[Kind],
) -> Result<(Vec<Token>, Algorithm), ModelError> {
    let alphabet = stand_ins();
    let mut words = HashMap::with_capacity(names.len());
    let mut tokens = Vec::with_capacity(names.len());
    for ((id, name), kind) in names.iter().enumerate().zip(kinds) {
        if *kind == Kind::Normal {
            let token = decode_letters(&alphabet, id, name)?;
            words.entry(token.clone()).or_insert(id as u32);
            tokens.push(token);
        } else {
            tokens.push(name.as_bytes().into());
        }
    }
    let pairs = header.texts("tokenizer.ggml.merges")?.unwrap_or(&[]);
    let pairs = pairs.iter().map(|line| line.split_once(' '));
    let rules = header.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let whole_words_first = matches!(rules, "llama-bpe" | "llama3" | "llama-v3");
    let composes = matches!(rules, "qwen2" | "deepseek-r1-qwen");
    let bytes = ByteLevel::new(words, pairs, Splitter::named(rules)?, whole_words_first, composes)?;
    Ok((tokens, Algorithm::ByteLevel(Box::new(bytes))))
}

/// Tokens have U+2581 for spaces, and bytes are written `<0x0A>`.
fn pieces(header: &Header, names: &[String], kinds: &[Kind]) -> Result<(Vec<Token>, Algorithm), ModelError> {
    let token = |(id, (name, kind)): (usize, (&String, &Kind))| match kind {
        Kind::Byte => byte_of(name)
            .map(|byte| Box::from([byte]))
            .ok_or_else(|| ModelError::Malformed(format!("token {id} is not a byte: {name:?}"))),
        Kind::Normal | Kind::UserDefined => Ok(with_spaces(name).into_bytes().into()),
        Kind::Control | Kind::Unused => Ok(name.as_bytes().into()),
    };
    let tokens: Result<Vec<Token>, ModelError> = names.iter().zip(kinds).enumerate().map(token).collect();
    let tokens = tokens?;
    let missing = || ModelError::Missing("tokenizer.ggml.scores".into());
    let scores = header.floats("tokenizer.ggml.scores")?.ok_or_else(missing)?;
    if scores.len() != names.len() {
        return Err(ModelError::Malformed(format!("{} scores for {} tokens", scores.len(), names.len())));
    }
    let unknown = id_of(header, "tokenizer.ggml.unknown_token_id", names.len())?;
    let adds = header.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let prefix = if adds { Prefix::Always } else { Prefix::Never };
    let pieces = Pieces::new(&tokens, kinds, Merging::Ranked(&ranks(scores)?), unknown, prefix, false)?;
    Ok((tokens, Algorithm::Pieces(pieces)))
}
