//! stub
use crate::{error::GenerateError, generate::Engine, sampling::Sampler};
use std::ops::ControlFlow;
/// One conversation in the making, with its own KV cache.
pub struct Sequence<'a> {
    _e: &'a Engine,
}
impl<'a> Sequence<'a> {
    pub(crate) fn new(_e: &'a Engine, _max: usize) -> Self {
        Self { _e }
    }
    /// Reads tokens into the context.
    pub fn prefill(&mut self, _tokens: &[u32]) -> Result<(), GenerateError> {
        todo!()
    }
    /// The same in pieces, asking after each whether to go on.
    pub fn prefill_with(
        &mut self,
        _tokens: &[u32],
        _p: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), GenerateError> {
        todo!()
    }
    /// Chooses the next token and reads it into the context; `None` when it is one that ends the answer.
    pub fn next(&mut self, _sampler: &mut Sampler) -> Result<Option<u32>, GenerateError> {
        todo!()
    }
    /// Whether no further token fits.
    pub fn is_full(&self) -> bool {
        todo!()
    }
}
