//! Answers that follow a grammar: JSON of a schema, calls of tools. The grammars are llguidance's, which tells before each
//! token which may come; here they are made, within a budget of work, and handed to the engine as [`Constraint`]s.
//!
//! Between values stand `", "` and `": "`, as in most text that models are trained on, and no other white space: a model
//! that is allowed to write white space without end does.

use crate::openai::{ARGUMENTS, CALL, END, Format, NAME, Refusal, Tools};
use cocoon_engine::{Constraint, ConstraintError, Model, TokenMask};
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

/// Work on the regular expressions of one grammar: 50,000 take about a millisecond.
const COMPILE_FUEL: u64 = 1_000_000;
/// The same for one token's mask. All other answers wait for it.
const STEP_FUEL: u64 = 100_000;
/// Items of the parser for one token's mask: 20,000 take about a millisecond.
const STEP_ITEMS: usize = 50_000;
/// States of one grammar's lexer, a kilobyte or two each.
const LEXER_STATES: usize = 50_000;
/// Symbols of one grammar.
const GRAMMAR_SIZE: usize = 200_000;

/// Makes grammars for one model's vocabulary, which is laid out once, when the first is asked for.
#[derive(Default)]
pub(crate) struct Grammars(OnceLock<Option<Vocabulary>>);

struct Vocabulary {
    factory: ParserFactory,
    ends: Arc<[u32]>,
}

impl Grammars {
    /// One constraint for each of `choices` answers; none where answers are free.
    ///
    /// # Errors
    /// The grammar is over its budget or cannot be satisfied, or the model's vocabulary cannot be used for any.
    pub(crate) fn constraints(
        &self,
        model: &Model,
        format: &Format,
        tools: Option<&Tools>,
        choices: u32,
    ) -> Result<Vec<Box<dyn Constraint>>, Refusal> {
        let Some(grammar) = grammar(format, tools) else { return Ok(Vec::new()) };
        let vocabulary = self.0.get_or_init(|| Vocabulary::of(model));
        let vocabulary = vocabulary.as_ref().ok_or_else(|| {
            Refusal::server(
                500,
                "model_unusable",
                "answers of this worker's model cannot be held to a grammar",
            )
        })?;
        let matcher = vocabulary.matcher(grammar).map_err(|why| {
            let param = if tools.is_some() { "tools" } else { "response_format" };
            let message = format!("answers cannot be held to this schema: {why}; write a simpler one");
            Refusal::new(400, "invalid_json_schema", message).with_param(param)
        })?;
        let one = |_| -> Box<dyn Constraint> {
            Box::new(Follower { matcher: matcher.clone(), ends: Arc::clone(&vocabulary.ends) })
        };
        Ok((0..choices).map(one).collect())
    }
}

impl Vocabulary {
    fn of(model: &Model) -> Option<Self> {
        let tokenizer = model.tokenizer();
        let ends: Arc<[u32]> = tokenizer.end_tokens().into();
        let word = |token: u32| match tokenizer.text_of(token) {
            // What adds no text is a token of its own kind, which no grammar names.
            [] => [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("<|{token}|>").as_bytes()].concat(),
            text => text.to_vec(),
        };
        let size = u32::try_from(tokenizer.vocab_size()).ok()?;
        let words: Vec<Vec<u8>> = (0..size).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(size, *ends.first()?), &words);
        let mut factory = ParserFactory::new_simple(&(Arc::new(ApproximateTokEnv::new(trie)) as _)).ok()?;
        factory.quiet(); // it would print what it reads
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = COMPILE_FUEL;
        limits.step_lexer_fuel = STEP_FUEL;
        limits.step_max_items = STEP_ITEMS;
        limits.max_lexer_states = LEXER_STATES;
        limits.max_grammar_size = GRAMMAR_SIZE;
        limits.precompute_large_lexemes = false; // bounded by no fuel
        limits.verbose_errors = false; // they would quote the answer
        Some(Self { factory, ends })
    }

    /// Reads a grammar. What goes wrong inside llguidance, a panic too, is an error.
    fn matcher(&self, grammar: TopLevelGrammar) -> Result<Matcher, String> {
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        if let Some(error) = matcher.get_error() {
            return Err(error.chars().take(300).collect());
        }
        // A schema that nothing satisfies is found out at the first token.
        matcher.compute_mask().map_err(|error| error.to_string().chars().take(300).collect::<String>())?;
        Ok(matcher)
    }
}

/// One answer that follows a grammar.
struct Follower {
    matcher: Matcher,
    ends: Arc<[u32]>,
}

impl Constraint for Follower {
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError> {
        let allowed = self.matcher.compute_mask_or_eos();
        let allowed = allowed.map_err(|_| ConstraintError("its grammar takes too much work here"))?;
        mask.copy_from_words(allowed.as_slice());
        if self.ends.first().is_some_and(|end| mask.is_allowed(*end)) {
            self.ends.iter().for_each(|end| mask.allow(*end));
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let taken = self.matcher.consume_token(token);
        taken.map_err(|_| ConstraintError("its grammar takes too much work here"))
    }
}

/// The grammar of an answer; `None` where it is free.
fn grammar(format: &Format, tools: Option<&Tools>) -> Option<TopLevelGrammar> {
    match (format, tools) {
        (Format::Free, None) => None,
        (Format::Schema(schema), None) => Some(TopLevelGrammar::from_json_schema(spaced(schema))),
        (format, Some(tools)) => Some(TopLevelGrammar::from_lark(with_tools(format, tools))),
    }
}

/// A schema with our white space.
fn spaced(schema: &Value) -> Value {
    let options = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    match schema.clone() {
        Value::Object(mut map) => {
            map.insert("x-guidance".to_owned(), options);
            Value::Object(map)
        }
        _ => json!({"x-guidance": options}),
    }
}

/// Calls, and text beside them where they are not required. In free text a call may begin anywhere; from there on it is
/// held to its form.
fn with_tools(format: &Format, tools: &Tools) -> String {
    let text = |text: &str| Value::from(text).to_string();
    let mut lark = String::from("%llguidance {}\n");
    let more = if tools.parallel { "(\"\\n\" call)*" } else { "" };
    let start = match format {
        _ if tools.required => format!("start: call {more}"),
        Format::Schema(schema) => format!("start: call {more} | %json {}", spaced(schema)),
        Format::Free if tools.parallel => "start: (lead rest)* TEXT".to_owned(),
        Format::Free => "start: TEXT | lead rest".to_owned(),
    };
    let alternatives: Vec<String> = (0..tools.list.len()).map(|index| format!("call_{index}")).collect();
    let _ = writeln!(lark, "{start}");
    let _ = writeln!(lark, "TEXT: /(.|\\n)*/\nlead[lazy]: TEXT {}", text(CALL));
    let _ = writeln!(lark, "call: {} rest\nrest: {}", text(CALL), alternatives.join(" | "));
    for (index, tool) in tools.list.iter().enumerate() {
        let head = text(&format!("{NAME}{}{ARGUMENTS}", tool.name));
        let _ = writeln!(lark, "call_{index}: {head} %json {} {}", spaced(&tool.schema), text(END));
    }
    lark
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
