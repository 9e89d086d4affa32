//! Constraints that follow a grammar, token by token.

use crate::Grammar;
use cocoon_engine::{Constraint, ConstraintError, Model, TokenMask};
use llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
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
/// Longest reason that is passed on, in characters.
const REASON: usize = 300;

/// Why answers cannot be held to a grammar.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The model's vocabulary cannot be used for any.
    #[error("answers of this model cannot be held to a grammar")]
    Vocabulary,
    /// It is over its budget, or cannot be satisfied.
    #[error("{0}")]
    Refused(String),
}

/// Makes constraints for one model's vocabulary, which is laid out once, when the first is asked for.
#[derive(Default)]
pub struct Grammars(OnceLock<Option<Vocabulary>>);

struct Vocabulary {
    factory: ParserFactory,
    ends: Arc<[u32]>,
}

impl Grammars {
    /// One constraint for each of `choices` answers.
    ///
    /// # Errors
    /// [`GrammarError`].
    pub fn constraints(
        &self,
        model: &Model,
        grammar: &Grammar,
        choices: u32,
    ) -> Result<Vec<Box<dyn Constraint>>, GrammarError> {
        let vocabulary = self.0.get_or_init(|| Vocabulary::of(model));
        let vocabulary = vocabulary.as_ref().ok_or(GrammarError::Vocabulary)?;
        let matcher = vocabulary.matcher(grammar).map_err(GrammarError::Refused)?;
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
    fn matcher(&self, grammar: &Grammar) -> Result<Matcher, String> {
        let short = |reason: &str| reason.chars().take(REASON).collect::<String>();
        let grammar = grammar.parsed().ok_or("it cannot be read")?;
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        if let Some(error) = matcher.get_error() {
            return Err(short(&error));
        }
        // A schema that nothing satisfies is found out at the first token.
        matcher.compute_mask().map_err(|error| short(&error.to_string()))?;
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
