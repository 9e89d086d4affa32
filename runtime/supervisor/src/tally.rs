//! What a child says, piece by piece, held against what it may say. No clock, no socket.

use crate::answer::{Event, Finish, Usage};
use crate::config::{ChildConfig, Dialect, PrefixCache};
use crate::request::PromptBound;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

/// Most bytes of one line of a stream.
pub(crate) const MAX_LINE: usize = 256 << 10;
/// Most bytes of text that a token can be.
const BYTES_PER_TOKEN: u64 = 512;
/// Pieces and bytes beyond the tokens: what was held back is sent when an answer ends.
const SLACK: u64 = 8;
/// Bytes of JSON around the text of each token, at most.
const WRAPPING: u64 = 4096;

/// How a child broke the rules. It says nothing of what was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// A line that does not end.
    #[error("a line has more than {MAX_LINE} bytes")]
    LongLine,
    /// Not the JSON of a chunk.
    #[error("a chunk cannot be read")]
    Unreadable,
    /// More bytes than the tokens explain.
    #[error("more bytes than the answer's tokens explain")]
    Flood,
    /// More pieces than tokens were asked for.
    #[error("more pieces than tokens were asked for")]
    TooManyPieces,
    /// A count beyond what was asked for or can be.
    #[error("it counts more tokens than there can be")]
    Usage,
    /// Another count of the prompt than it was sent tokens.
    #[error("it counts other tokens of the prompt than it was sent: another model, or a template of its own")]
    OtherPrompt,
    /// Cached tokens, where its configuration says that there are none.
    #[error("it met a prompt in a cache that its configuration says is off")]
    Cached,
    /// Text beside the answer, which nobody gets and somebody would pay for.
    #[error("it writes beside the answer: switch off what takes its text apart (reasoning, tools)")]
    Aside,
    /// A count that went back.
    #[error("a count of tokens went back")]
    UsageWentBack,
    /// Fewer tokens than pieces, or none for a text.
    #[error("it counts fewer tokens than it sent")]
    Undercount,
    /// The stream ended in the middle.
    #[error("the answer ends in the middle")]
    CutShort,
    /// More after the end.
    #[error("something came after the answer's end")]
    AfterEnd,
    /// It says that it failed.
    #[error("the engine reports an error in the middle of an answer")]
    Reported,
    /// The count at the end is missing.
    #[error("the answer ends without its count of tokens")]
    NoUsage,
    /// The response is not what a stream begins with.
    #[error("the response is no stream of events")]
    NotAStream,
}

/// The fields that mean something here.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<RawUsage>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    delta: Delta,
    /// Of a completion, where a chat has a delta.
    #[serde(default, deserialize_with = "wiped")]
    text: Option<Zeroizing<String>>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(default, deserialize_with = "wiped")]
    content: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "wiped")]
    reasoning_content: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "wiped")]
    reasoning: Option<Zeroizing<String>>,
    tool_calls: Option<Vec<serde::de::IgnoredAny>>,
}

impl Delta {
    /// Whether something is said that is no part of the answer.
    fn has_more(&self) -> bool {
        let said = |text: &Option<Zeroizing<String>>| text.as_ref().is_some_and(|text| !text.is_empty());
        said(&self.reasoning_content)
            || said(&self.reasoning)
            || self.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty())
    }
}

fn wiped<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

#[derive(Deserialize)]
struct RawUsage {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

/// One answer's count.
pub(crate) struct Tally {
    dialect: Dialect,
    prefix_cache: PrefixCache,
    max_tokens: u64,
    prompt: PromptBound,
    pieces: u64,
    text: u64,
    bytes: u64,
    told: Option<Usage>,
    finish: Option<Finish>,
    done: bool,
}

impl Tally {
    pub(crate) fn new(config: &ChildConfig, max_tokens: u32, prompt: PromptBound) -> Self {
        Self {
            dialect: config.dialect,
            prefix_cache: config.prefix_cache,
            max_tokens: u64::from(max_tokens),
            prompt,
            pieces: 0,
            text: 0,
            bytes: 0,
            told: None,
            finish: None,
            done: false,
        }
    }

    /// Bytes came, whatever they are.
    pub(crate) fn received(&mut self, bytes: usize) -> Result<(), Violation> {
        self.bytes += bytes as u64;
        let most = (self.max_tokens + SLACK) * (WRAPPING + 6 * BYTES_PER_TOKEN);
        if self.bytes > most { Err(Violation::Flood) } else { Ok(()) }
    }

    /// A `data:` line of the stream, without that word.
    pub(crate) fn take(&mut self, data: &[u8]) -> Result<Option<Event>, Violation> {
        if self.done {
            return Err(Violation::AfterEnd);
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(None);
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|_| Violation::Unreadable)?;
        if chunk.error.is_some() {
            return Err(Violation::Reported);
        }
        let mut text = Zeroizing::new(String::new());
        for choice in chunk.choices {
            if choice.delta.has_more() {
                return Err(Violation::Aside);
            }
            let said = [choice.delta.content, choice.text].into_iter().flatten();
            for said in said.filter(|said| !said.is_empty()) {
                if self.finish.is_some() {
                    return Err(Violation::AfterEnd);
                }
                text.push_str(&said);
            }
            if choice.index != 0 {
                return Err(Violation::AfterEnd);
            }
            if let Some(reason) = choice.finish_reason {
                self.finish = Some(if reason == "length" { Finish::Length } else { Finish::Stop });
            }
        }
        if !text.is_empty() {
            self.pieces += 1;
            self.text += text.len() as u64;
        }
        if self.pieces > self.max_tokens + SLACK {
            return Err(Violation::TooManyPieces);
        }
        if self.text > (self.max_tokens + SLACK) * BYTES_PER_TOKEN {
            return Err(Violation::Flood);
        }
        if let Some(usage) = chunk.usage {
            self.count(&usage)?;
        }
        Ok(Some(Event::Piece { text, usage: self.usage() }))
    }

    fn count(&mut self, raw: &RawUsage) -> Result<(), Violation> {
        let completion = raw.completion_tokens.unwrap_or(0);
        let cached =
            raw.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or(0);
        match self.prompt {
            PromptBound::AtMost(most) if raw.prompt_tokens > most => return Err(Violation::Usage),
            PromptBound::Exactly(sent) if raw.prompt_tokens != sent => return Err(Violation::OtherPrompt),
            _ => {}
        }
        if completion > self.max_tokens || cached > raw.prompt_tokens {
            return Err(Violation::Usage);
        }
        if cached > 0 && self.prefix_cache == PrefixCache::Off {
            return Err(Violation::Cached);
        }
        let narrow = |count: u64| u32::try_from(count).map_err(|_| Violation::Usage);
        let told = Usage {
            prompt_tokens: narrow(raw.prompt_tokens)?,
            cached_tokens: narrow(cached)?,
            completion_tokens: narrow(completion)?,
        };
        if let Some(before) = self.told {
            let same =
                told.prompt_tokens == before.prompt_tokens && told.cached_tokens >= before.cached_tokens;
            if !same || told.completion_tokens < before.completion_tokens {
                return Err(Violation::UsageWentBack);
            }
        }
        self.told = Some(told);
        Ok(())
    }

    /// What is known so far. Where the child tells no count, each piece is a token: never more than it made.
    fn usage(&self) -> Usage {
        let pieces = u32::try_from(self.pieces.min(self.max_tokens)).unwrap_or(u32::MAX);
        let told = self.told.unwrap_or_default();
        match self.dialect {
            // Told with every chunk.
            Dialect::Vllm | Dialect::Sglang => told,
            Dialect::LlamaCpp | Dialect::Openai => {
                Usage { completion_tokens: told.completion_tokens.max(pieces), ..told }
            }
        }
    }

    /// The stream has ended: whether well.
    pub(crate) fn end(&self) -> Result<(Finish, Usage), Violation> {
        let (Some(finish), true) = (self.finish, self.done) else { return Err(Violation::CutShort) };
        let usage = self.usage();
        match (self.told, self.dialect) {
            (None, Dialect::Vllm | Dialect::Sglang) => return Err(Violation::NoUsage),
            (Some(told), _) => {
                // Pieces may be fewer than tokens, since text is held back; more, beyond what is held back, they cannot be.
                let made = u64::from(told.completion_tokens);
                if self.pieces > made + SLACK
                    || self.text > (made + SLACK) * BYTES_PER_TOKEN
                    || told.prompt_tokens == 0
                {
                    return Err(Violation::Undercount);
                }
            }
            (None, Dialect::LlamaCpp | Dialect::Openai) => {}
        }
        Ok((finish, usage))
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
