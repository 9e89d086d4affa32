//! One sequence of tokens through the model, with a KV cache of its own.

use std::ops::ControlFlow;

use crate::{
    cache::{Cache, Table},
    error::GenerateError,
    forward::{Forward, Place},
    kernels::PAGE,
    machine::Machine,
    sampling::Sampler,
};

/// Tokens of a prompt that go through the model together. The bits do not depend on it.
const CHUNK: usize = 64;

/// One conversation in the making, with its own KV cache.
pub struct Sequence<'e> {
    machine: &'e Machine,
    capacity: usize,
    cache: Cache,
    table: Table,
    /// Tokens in the cache.
    length: usize,
    /// Chosen, and not yet in the cache.
    pending: Option<u32>,
    logits: Vec<f32>,
    work: Forward,
}

impl<'e> Sequence<'e> {
    pub(crate) fn new(machine: &'e Machine, capacity: usize) -> Self {
        let cache = Cache::new(machine.model.shape.page(), capacity.div_ceil(PAGE));
        let (table, work) = (Table::default(), Forward::default());
        Self { machine, capacity, cache, table, length: 0, pending: None, logits: Vec::new(), work }
    }

    /// Tokens that it holds.
    pub fn len(&self) -> usize {
        self.length + usize::from(self.pending.is_some())
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no further token fits.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// Reads tokens into the context.
    ///
    /// # Errors
    /// There are none, one is not in the vocabulary, or they do not fit.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<(), GenerateError> {
        self.prefill_with(tokens, |_| ControlFlow::Continue(()))
    }

    /// The same, and calls `keep_going` after each piece with the number of tokens read so far.
    ///
    /// # Errors
    /// As [`Self::prefill`]; [`GenerateError::Cancelled`] when `keep_going` breaks off before the end: what was read
    /// until then stays in the context.
    pub fn prefill_with(
        &mut self,
        tokens: &[u32],
        mut keep_going: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), GenerateError> {
        self.check(tokens)?;
        let mut read = 0;
        for piece in tokens.chunks(CHUNK) {
            self.forward(piece, &mut |_| {}, false);
            read += piece.len();
            if keep_going(read).is_break() {
                return Err(GenerateError::Cancelled);
            }
        }
        Ok(())
    }

    /// The same, and calls `visit` with the logits after each token, not only the last.
    ///
    /// # Errors
    /// As [`Self::prefill`].
    pub fn prefill_visiting(
        &mut self,
        tokens: &[u32],
        mut visit: impl FnMut(&[f32]),
    ) -> Result<(), GenerateError> {
        self.check(tokens)?;
        for piece in tokens.chunks(CHUNK) {
            self.forward(piece, &mut visit, true);
        }
        Ok(())
    }

    /// Chooses the next token, which will be in the context of the one after; `None` when it is one that ends the
    /// answer.
    ///
    /// # Errors
    /// The context is empty or full, or the model's weights are damaged.
    pub fn next(&mut self, sampler: &mut Sampler) -> Result<Option<u32>, GenerateError> {
        if self.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if self.is_full() {
            return Err(GenerateError::ContextOverflow { tokens: self.len() + 1, context: self.capacity });
        }
        if let Some(token) = self.pending.take() {
            self.forward(&[token], &mut |_| {}, false);
        }
        let token = sampler.choose(&self.logits)?;
        if self.machine.model.tokenizer().end_tokens().contains(&token) {
            return Ok(None);
        }
        self.pending = Some(token);
        Ok(Some(token))
    }

    /// One logit for each token of the vocabulary, after the last token that was read; empty before the first.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn check(&mut self, tokens: &[u32]) -> Result<(), GenerateError> {
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let all = self.len() + tokens.len();
        if all > self.capacity {
            return Err(GenerateError::ContextOverflow { tokens: all, context: self.capacity });
        }
        let vocab_size = self.machine.model.vocab_size();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(GenerateError::UnknownToken { token, vocab_size });
        }
        if let Some(token) = self.pending.take() {
            self.forward(&[token], &mut |_| {}, false);
        }
        Ok(())
    }

    /// Runs up to [`CHUNK`] tokens, which are known to fit, when this sequence's turn has come.
    fn forward(&mut self, tokens: &[u32], visit: &mut dyn FnMut(&[f32]), every: bool) {
        let (machine, start) = (self.machine, self.length);
        let last = tokens.len() - 1;
        let place = |(index, token): (usize, &u32)| Place {
            token: *token,
            position: start + index,
            table: 0,
            logits: every || index == last,
        };
        let places: Vec<Place> = tokens.iter().enumerate().map(place).collect();
        machine.in_turn(|model, pool| {
            let fits = self.cache.grow(&mut self.table, start + tokens.len());
            assert!(fits, "the cache has pages for the capacity, which was checked");
            self.work.run(model, pool, &mut self.cache, &[&self.table], &places);
        });
        self.length += tokens.len();
        let wanted = if every { tokens.len() } else { 1 };
        (0..wanted).for_each(|nth| visit(self.work.logits(nth)));
        self.logits.clear();
        self.logits.extend_from_slice(self.work.logits(wanted - 1));
    }
}
