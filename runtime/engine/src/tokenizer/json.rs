//! The tokenizer that a Hugging Face folder holds: `tokenizer.json`, with `tokenizer_config.json` for what it leaves out.
//!
//! A `tokenizer.json` is a small program: normalizers, pre-tokenizers and a model, which `tokenizers` puts together. Here
//! the combinations that the known families use are recognised as wholes, and any other is refused by name: a step that
//! was silently left out would give other tokens.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Added, Algorithm, Kind, MAX_VOCABULARY, Parts, Token, Tokenizer,
    bytes::{ByteLevel, decode_letters, stand_ins},
    check_vocabulary,
    pieces::{Merging, Pieces, Prefix, byte_of, with_spaces},
    split::Splitter,
    wordpiece::{CONTINUES, Cleaning, WordPiece},
};
use crate::error::ModelError;

/// `tokenizer.json`. Truncation and padding are for batches and not looked at.
#[derive(Deserialize)]
pub(crate) struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: ModelPart,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

/// The model, of any type: fields that others have are absent.
#[derive(Deserialize)]
struct ModelPart {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
    unk_token: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// A merge, as older and newer files write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

/// `tokenizer_config.json`: names of tokens, and the chat template.
#[derive(Deserialize, Default)]
pub(crate) struct TokenizerConfig {
    bos_token: Option<Named>,
    eos_token: Option<Named>,
    add_bos_token: Option<bool>,
    pub(crate) chat_template: Option<Value>,
}

/// A token's name, plain or with how it is matched.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Plain(String),
    Described { content: String },
}

impl Named {
    fn name(&self) -> &str {
        match self {
            Self::Plain(name) | Self::Described { content: name } => name,
        }
    }
}

impl Tokenizer {
    /// Builds a folder's tokenizer, with as many unused tokens at the end as `rows` asks for; `ends` are further tokens
    /// that end an answer.
    pub(crate) fn from_json(
        file: &TokenizerFile,
        config: &TokenizerConfig,
        rows: usize,
        ends: &[u32],
    ) -> Result<Self, ModelError> {
        let names = file.names(rows)?;
        let mut kinds: Vec<Kind> =
            names.iter().map(|name| if name.is_some() { Kind::Normal } else { Kind::Unused }).collect();
        let byte_level = file.is_byte_level();
        if file.model.byte_fallback {
            for (name, kind) in names.iter().zip(&mut kinds) {
                if name.is_some_and(|name| byte_of(name).is_some()) {
                    *kind = Kind::Byte;
                }
            }
        }
        let mut added = Vec::new();
        for token in &file.added_tokens {
            if token.single_word {
                return Err(unsupported("added tokens that are words of their own", &token.content));
            }
            kinds[token.id as usize] = if token.special { Kind::Control } else { Kind::UserDefined };
            added.push(Added {
                name: token.content.as_bytes().into(),
                id: token.id,
                is_control: token.special,
                strips: [token.lstrip, token.rstrip],
            });
        }
        let (tokens, algorithm) = match file.model.kind.as_deref() {
            Some("WordPiece") => file.word_piece(&names, &kinds)?,
            Some("BPE") | None if byte_level => file.byte_level(&names, &kinds)?,
            Some("BPE") | None => file.pieces(&names, &kinds)?,
            Some(other) => return Err(unsupported("models of the type", other)),
        };
        let id = |named: &Option<Named>| {
            let id =
                named.as_ref().and_then(|named| names.iter().position(|name| *name == Some(named.name())));
            id.map(|id| id as u32)
        };
        let (bos, eos) = (id(&config.bos_token), id(&config.eos_token));
        let add_bos = config.add_bos_token.unwrap_or_else(|| file.begins_with_bos(config));
        let ends = ends.iter().copied().filter(|end| (*end as usize) < names.len()).collect();
        Self::build(Parts { tokens, kinds, added, algorithm, bos, eos, ends, add_bos })
    }
}

impl TokenizerFile {
    /// The names of all tokens, in the order of their ids.
    fn names(&self, rows: usize) -> Result<Vec<Option<&str>>, ModelError> {
        let model = self.model.vocab.iter().map(|(name, id)| (name.as_str(), *id));
        let added = self.added_tokens.iter().map(|token| (token.content.as_str(), token.id));
        let count = model.clone().chain(added.clone()).map(|(_, id)| id as usize + 1).max().unwrap_or(0);
        let count = count.max(rows);
        if count > MAX_VOCABULARY || rows < count && rows > 0 {
            let limit = if count > MAX_VOCABULARY { MAX_VOCABULARY } else { rows };
            let (what, found) = ("the size of its vocabulary".into(), count as u64);
            return Err(ModelError::Limit { what, found, limit: limit as u64 });
        }
        let mut names = vec![None; count];
        for (name, id) in model.chain(added) {
            let place = &mut names[id as usize];
            if place.is_some_and(|other| other != name) {
                return Err(ModelError::Malformed(format!("two tokens have the id {id}")));
            }
            *place = Some(name);
        }
        check_vocabulary(names.iter().map(|name| name.unwrap_or("unused")))?;
        Ok(names)
    }

    /// Whether texts become bytes before all else.
    fn is_byte_level(&self) -> bool {
        steps(&self.pre_tokenizer, "pretokenizers").iter().any(|step| kind(step) == "ByteLevel")
    }

    fn byte_level(
        &self,
        names: &[Option<&str>],
        kinds: &[Kind],
    ) -> Result<(Vec<Token>, Algorithm), ModelError> {
        let composes = match steps(&self.normalizer, "normalizers").as_slice() {
            [] => false,
            [step] if kind(step) == "NFC" => true,
            [step, ..] => return Err(unsupported("the normalizer", kind(step))),
        };
        let splitter = byte_level_rules(&steps(&self.pre_tokenizer, "pretokenizers"))?;
        if self.model.dropout.is_some_and(|dropout| dropout > 0.0) {
            return Err(unsupported("merges that are left out at random", "dropout"));
        }
        for affix in [&self.model.continuing_subword_prefix, &self.model.end_of_word_suffix] {
            if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
                return Err(unsupported("byte-level tokens with the affix", affix));
            }
        }
        let alphabet = stand_ins();
        let (mut tokens, mut words) = (Vec::with_capacity(names.len()), HashMap::new());
        for ((id, name), kind) in names.iter().enumerate().zip(kinds) {
            match name {
                Some(name) if *kind == Kind::Normal => {
                    let token = decode_letters(&alphabet, id, name)?;
                    words.insert(token.clone(), id as u32);
                    tokens.push(token);
                }
                _ => tokens.push(name.unwrap_or("").as_bytes().into()),
            }
        }
        let merges = self.model.merges.iter().map(Merge::pair);
        let bytes = ByteLevel::new(words, merges, splitter, self.model.ignore_merges, composes)?;
        Ok((tokens, Algorithm::ByteLevel(Box::new(bytes))))
    }

    fn pieces(&self, names: &[Option<&str>], kinds: &[Kind]) -> Result<(Vec<Token>, Algorithm), ModelError> {
        let (mut prefix, mut splits, mut spaced) = (Prefix::Never, false, false);
        for step in steps(&self.normalizer, "normalizers") {
            match kind(step) {
                "Prepend" if step["prepend"] == "\u{2581}" => prefix = Prefix::Always,
                "Replace" if step["pattern"]["String"] == " " && step["content"] == "\u{2581}" => {
                    spaced = true
                }
                other => return Err(unsupported("the normalizer", other)),
            }
        }
        for step in steps(&self.pre_tokenizer, "pretokenizers") {
            match kind(step) {
                "Metaspace" if step["replacement"] == "\u{2581}" => {
                    (spaced, splits) = (true, step["split"].as_bool().unwrap_or(true));
                    prefix = match step["prepend_scheme"].as_str() {
                        Some("never") => Prefix::Never,
                        Some("first") => Prefix::First,
                        None | Some("always") => Prefix::UnlessThere,
                        Some(other) => return Err(unsupported("Metaspace's prepend_scheme", other)),
                    };
                }
                // Spaces are no longer there to split at.
                "Split" if spaced && step["pattern"]["String"] == " " => {}
                other => return Err(unsupported("the pre-tokenizer", other)),
            }
        }
        if !spaced {
            return Err(unsupported("BPE over characters", "without U+2581 for spaces"));
        }
        let token = |(name, kind): (&Option<&str>, &Kind)| -> Token {
            let name = name.unwrap_or("");
            match kind {
                Kind::Byte => Box::from([byte_of(name).expect("only such names are of this kind")]),
                Kind::Normal | Kind::UserDefined => with_spaces(name).into_bytes().into(),
                Kind::Control | Kind::Unused => name.as_bytes().into(),
            }
        };
        let tokens: Vec<Token> = names.iter().zip(kinds).map(token).collect();
        let pairs: Vec<_> = self.model.merges.iter().map(Merge::pair).collect();
        let unknown = self.model.unk_token.as_ref().and_then(|name| self.model.vocab.get(name).copied());
        let pieces = Pieces::new(&tokens, kinds, Merging::Listed(&pairs), unknown, prefix, splits)?;
        Ok((tokens, Algorithm::Pieces(pieces)))
    }

    fn word_piece(
        &self,
        names: &[Option<&str>],
        kinds: &[Kind],
    ) -> Result<(Vec<Token>, Algorithm), ModelError> {
        let cleaning = match steps(&self.normalizer, "normalizers").as_slice() {
            [step] if kind(step) == "BertNormalizer" => {
                let is = |key: &str| step[key].as_bool().unwrap_or(true);
                let lowers = is("lowercase");
                Cleaning {
                    cleans: is("clean_text"),
                    splits_ideographs: is("handle_chinese_chars"),
                    strips_accents: step["strip_accents"].as_bool().unwrap_or(lowers),
                    lowers,
                }
            }
            _ => return Err(unsupported("WordPiece", "without BertNormalizer")),
        };
        match steps(&self.pre_tokenizer, "pretokenizers").as_slice() {
            [step] if kind(step) == "BertPreTokenizer" => {}
            _ => return Err(unsupported("WordPiece", "without BertPreTokenizer")),
        }
        if self.model.continuing_subword_prefix.as_deref().is_some_and(|prefix| prefix != CONTINUES) {
            return Err(unsupported("WordPiece with another prefix than", CONTINUES));
        }
        let unknown = self.model.unk_token.as_deref().unwrap_or("[UNK]");
        let missing = || ModelError::Missing(format!("the token {unknown} in tokenizer.json"));
        let unknown = *self.model.vocab.get(unknown).ok_or_else(missing)?;
        let words = self.model.vocab.iter().map(|(name, id)| (name.as_bytes().into(), *id)).collect();
        let token = |(name, kind): (&Option<&str>, &Kind)| -> Token {
            let name = name.unwrap_or("");
            match name.strip_prefix(CONTINUES) {
                _ if *kind != Kind::Normal => name.as_bytes().into(),
                Some(rest) => rest.as_bytes().into(),
                None => format!(" {name}").into_bytes().into(),
            }
        };
        let tokens = names.iter().zip(kinds).map(token).collect();
        Ok((tokens, Algorithm::WordPiece(Box::new(WordPiece::new(words, unknown, cleaning)))))
    }

    /// Whether the post-processor puts the start token first.
    fn begins_with_bos(&self, config: &TokenizerConfig) -> bool {
        let Some(bos) = &config.bos_token else { return false };
        steps(&self.post_processor, "processors").iter().any(|step| {
            kind(step) == "TemplateProcessing" && step["single"][0]["SpecialToken"]["id"] == bos.name()
        })
    }
}

impl Merge {
    fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Self::Line(line) => line.split_once(' '),
            Self::Pair(left, right) => Some((left, right)),
        }
    }
}

/// The family's rules that a list of pre-tokenizers comes to.
fn byte_level_rules(steps: &[&Value]) -> Result<Splitter, ModelError> {
    let plain = |step: &Value| kind(step) == "ByteLevel" && step["add_prefix_space"] != true;
    let uses_regex = |step: &Value| step["use_regex"].as_bool().unwrap_or(true);
    match steps {
        [bytes] if plain(bytes) && uses_regex(bytes) => Ok(Splitter::gpt2_rules(false)),
        [digits, bytes]
            if kind(digits) == "Digits"
                && digits["individual_digits"] == true
                && plain(bytes)
                && uses_regex(bytes) =>
        {
            Ok(Splitter::gpt2_rules(true))
        }
        [split, bytes]
            if kind(split) == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] != true
                && plain(bytes)
                && !uses_regex(bytes) =>
        {
            let expression = split["pattern"]["Regex"].as_str().unwrap_or("a string");
            Splitter::for_expression(expression)
                .ok_or_else(|| unsupported("words by the expression", expression))
        }
        _ => {
            let kinds: Vec<&str> = steps.iter().map(|step| kind(step)).collect();
            Err(unsupported("the pre-tokenizers", &kinds.join(", ")))
        }
    }
}

/// The steps of a sequence, or the one step; `list` is what the sequence calls them.
fn steps<'v>(value: &'v Option<Value>, list: &str) -> Vec<&'v Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(value) if kind(value) == "Sequence" => {
            value[list].as_array().map(|steps| steps.iter().collect()).unwrap_or_default()
        }
        Some(value) => vec![value],
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or("of no type")
}

fn unsupported(what: &str, which: &str) -> ModelError {
    ModelError::Unsupported(format!("its tokenizer.json has {what} {which:?}, which is not known"))
}
