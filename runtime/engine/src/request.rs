//! What is asked of an engine.

use zeroize::Zeroizing;

use crate::{
    constraint::Constraint, error::GenerateError, logprobs::MAX_TOP_LOGPROBS, sampling::Sampling,
    schedule::Salt,
};

/// Most stop strings of one request.
const MAX_STOPS: usize = 16;
/// Longest stop string, in bytes.
const MAX_STOP_BYTES: usize = 256;
/// Most tokens with a bias, as OpenAI.
const MAX_BIASES: usize = 300;
/// Most answers to one prompt.
pub const MAX_CHOICES: u32 = 16;

/// What to generate. It cannot be printed: stop strings are a part of the request.
#[derive(Clone, PartialEq)]
pub struct Params {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to generate. The context is a limit too: an answer that reaches it ends with
    /// [`Finish::Length`](crate::Finish::Length).
    pub max_tokens: usize,
    /// Text that ends the answer and is not part of it: up to 16 strings of 1 to 256 bytes.
    pub stop: Vec<String>,
    /// Added to the logits of tokens: up to 300 of them, -100 to 100 each.
    pub logit_bias: Vec<(u32, f32)>,
    /// Tells how likely each token was, with so many alternatives, up to 20.
    pub logprobs: Option<u32>,
    /// Goes on after tokens that end an answer, up to `max_tokens`: for benchmarks.
    pub ignore_eos: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            sampling: Sampling::default(),
            max_tokens: 256,
            stop: Vec::new(),
            logit_bias: Vec::new(),
            logprobs: None,
            ignore_eos: false,
        }
    }
}

impl Params {
    /// Refuses values out of range, for a vocabulary of `vocab_size` tokens.
    pub(crate) fn check(&self, vocab_size: usize) -> Result<(), GenerateError> {
        self.sampling.check()?;
        let refuse = |what, expected, found: String| Err(GenerateError::Parameter { what, expected, found });
        if self.stop.len() > MAX_STOPS || self.stop.iter().any(|s| s.is_empty() || s.len() > MAX_STOP_BYTES) {
            let found = format!("{} strings", self.stop.len());
            return refuse("stop", "at most 16 strings of 1 to 256 bytes", found);
        }
        if self.logit_bias.len() > MAX_BIASES {
            return refuse("logit_bias", "at most 300 tokens", self.logit_bias.len().to_string());
        }
        for (token, bias) in &self.logit_bias {
            if *token as usize >= vocab_size {
                return Err(GenerateError::UnknownToken { token: *token, vocab_size });
            }
            if !(-100.0..=100.0).contains(bias) {
                return refuse("logit_bias", "between -100 and 100", bias.to_string());
            }
        }
        match self.logprobs {
            Some(top) if top > MAX_TOP_LOGPROBS => refuse("top_logprobs", "at most 20", top.to_string()),
            _ => Ok(()),
        }
    }
}

/// Who pays, as far as an engine cares: requests of one payer wait for each other, and payers share the engine evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payer(pub [u8; 32]);

/// A prompt and what to make of it. It cannot be printed.
pub struct Request {
    pub(crate) prompt: Zeroizing<Vec<u32>>,
    pub(crate) params: Params,
    pub(crate) choices: u32,
    pub(crate) payer: Payer,
    pub(crate) salt: Option<Salt>,
    pub(crate) constraints: Vec<Box<dyn Constraint>>,
}

impl Request {
    /// One answer to a prompt, for nobody in particular, that shares no cache with any other request.
    pub fn new(prompt: Vec<u32>, params: Params) -> Self {
        let (choices, payer) = (1, Payer::default());
        Self { prompt: prompt.into(), params, choices, payer, salt: None, constraints: Vec::new() }
    }

    /// So many answers, 1 to 16. The prompt is read once.
    pub fn with_choices(mut self, choices: u32) -> Self {
        self.choices = choices;
        self
    }

    /// Who pays.
    pub fn with_payer(mut self, payer: Payer) -> Self {
        self.payer = payer;
        self
    }

    /// Shares the keys and values of equal beginnings with all requests of the same salt. Who knows a salt can find out
    /// by timing what was asked under it, so it has to be a secret of whoever asks.
    pub fn with_salt(mut self, salt: Salt) -> Self {
        self.salt = Some(salt);
        self
    }

    /// Tells what may come next: one constraint for each choice.
    pub fn with_constraints(mut self, constraints: Vec<Box<dyn Constraint>>) -> Self {
        self.constraints = constraints;
        self
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    /// What to make of the prompt.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// How many answers.
    pub fn choices(&self) -> u32 {
        self.choices
    }

    /// Whether something says what may come next.
    pub fn is_constrained(&self) -> bool {
        !self.constraints.is_empty()
    }

    /// Refuses what can never be answered, with a vocabulary of so many tokens and a context of `context`.
    pub(crate) fn check(&self, vocab_size: usize, context: usize) -> Result<(), GenerateError> {
        self.params.check(vocab_size)?;
        if self.prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if self.prompt.len() >= context {
            // One place is needed for the first token of the answer.
            return Err(GenerateError::ContextOverflow { tokens: self.prompt.len() + 1, context });
        }
        if let Some(&token) = self.prompt.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(GenerateError::UnknownToken { token, vocab_size });
        }
        let constraints = self.constraints.len();
        let refuse = |what, expected, found: usize| {
            Err(GenerateError::Parameter { what, expected, found: found.to_string() })
        };
        if !(1..=MAX_CHOICES).contains(&self.choices) {
            return refuse("n", "between 1 and 16", self.choices as usize);
        }
        if constraints != 0 && constraints != self.choices as usize {
            return refuse("the number of constraints", "none or one for each choice", constraints);
        }
        Ok(())
    }
}
