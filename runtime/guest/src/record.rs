//! What is kept of an answer so that it can be run again: the engine's request, and every token that it wrote.

use cocoon_engine::{Event, Finish, Identity, Request, Sampling as EngineSampling};
use cocoon_grammar::Grammar;
use cocoon_protocol::{EngineId, EngineKind, Kernels, Outcome, Run, Sampling, Written};
use zeroize::Zeroizing;

/// The engine that runs in this program.
pub(crate) fn engine() -> EngineId {
    let Identity { version, digest } = Identity::current();
    EngineId { kind: EngineKind::Cocoon, version, digest, kernels: Kernels::Cpu }
}

/// A run in progress. It holds plaintext, and is wiped when it goes.
pub(crate) struct Record(Run);

impl Record {
    /// Of a request that is about to be submitted, with what its answers are held to.
    pub(crate) fn of(request: &Request, grammar: Option<&Grammar>) -> Self {
        let params = request.params();
        let EngineSampling {
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            seed,
        } = params.sampling;
        let max_tokens = u32::try_from(params.max_tokens).unwrap_or(u32::MAX);
        let sampling = Sampling {
            seed,
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            max_tokens,
        };
        // Until it ends otherwise, an answer is one that was broken off.
        let unwritten = |_| Written { tokens: Zeroizing::default(), outcome: Outcome::Cancelled };
        Self(Run {
            prompt: Zeroizing::new(request.prompt().to_vec()),
            sampling,
            stop: params.stop.clone(),
            logit_bias: params.logit_bias.clone(),
            constrained: request.is_constrained(),
            grammar: grammar.and_then(Grammar::to_bytes),
            written: (0..request.choices()).map(unwritten).collect(),
        })
    }

    /// Takes in what the engine says.
    pub(crate) fn hear(&mut self, event: &Event) {
        match event {
            Event::Token { choice, token, .. } => {
                if let Some(written) = self.0.written.get_mut(*choice as usize) {
                    push(&mut written.tokens, *token);
                }
            }
            Event::End { choice, outcome } => {
                if let Some(written) = self.0.written.get_mut(*choice as usize) {
                    written.outcome = match outcome {
                        Ok(Finish::Stop) => Outcome::Stop,
                        Ok(Finish::Length) => Outcome::Length,
                        Ok(Finish::Cancelled) => Outcome::Cancelled,
                        Err(_) => Outcome::Error,
                    };
                }
            }
            Event::Started { .. } | Event::Read { .. } | Event::Text { .. } => {}
        }
    }

    /// As it stands.
    pub(crate) fn finish(self) -> Run {
        self.0
    }
}

/// Appends without leaving an unwiped copy behind where the vector must grow.
fn push(tokens: &mut Zeroizing<Vec<u32>>, token: u32) {
    if tokens.len() == tokens.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity((2 * tokens.len()).max(64)));
        larger.extend_from_slice(tokens);
        *tokens = larger;
    }
    tokens.push(token);
}
