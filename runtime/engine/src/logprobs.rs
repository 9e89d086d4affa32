//! Logarithms of the probabilities that the model gives, before bias, penalties, temperature and cuts.

use crate::{error::GenerateError, kernels};

/// Most likely alternatives that are told for a token, as OpenAI.
pub const MAX_TOP_LOGPROBS: u32 = 20;

/// How likely a token was, and which others were likelier or nearly so. It cannot be printed: it holds an answer.
#[derive(Clone, PartialEq)]
pub struct Logprobs {
    /// Natural logarithm of the token's probability.
    pub logprob: f32,
    /// The likeliest tokens with theirs, the likeliest first, the lowest id among equals.
    pub top: Vec<(u32, f32)>,
}

impl Drop for Logprobs {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.top);
    }
}

impl Logprobs {
    /// Of `token`, with `top` alternatives. `logits` are the model's, one for each token of the vocabulary.
    pub(crate) fn of(logits: &[f32], token: u32, top: u32) -> Result<Self, GenerateError> {
        let mut likeliest: Vec<(u32, f32)> = Vec::with_capacity(top as usize + 1);
        let mut highest = f32::NEG_INFINITY;
        for (id, &logit) in logits.iter().enumerate() {
            if logit.is_nan() {
                return Err(GenerateError::NotANumber);
            }
            highest = highest.max(logit);
            if likeliest.len() < top as usize || likeliest.last().is_some_and(|last| logit > last.1) {
                let at = likeliest.partition_point(|other| other.1 >= logit);
                likeliest.insert(at, (id as u32, logit));
                likeliest.truncate(top as usize);
            }
        }
        if !highest.is_finite() {
            return Err(GenerateError::NotANumber);
        }
        let mut weights = zeroize::Zeroizing::new(logits.to_vec());
        let sum = kernels::exponentials(&mut weights, highest, 1.0);
        let all = libm::log(sum);
        let logprob = |logit: f32| (f64::from(logit - highest) - all) as f32;
        likeliest.iter_mut().for_each(|(_, value)| *value = logprob(*value));
        let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Ok(Self { logprob: logprob(own), top: likeliest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_are_those_of_the_softmax() {
        let logits = [0.0f32, 2.0, 1.0, 2.0];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let found = Logprobs::of(&logits, 2, 3).expect("finite");
        assert!((f64::from(found.logprob) - (1.0 - sum.ln())).abs() < 1e-6);
        let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 3, 2], "the likeliest first, the lowest id among equals");
        assert!(
            found
                .top
                .iter()
                .all(|(id, p)| (f64::from(*p) - (f64::from(logits[*id as usize]) - sum.ln())).abs() < 1e-6)
        );
        assert!(Logprobs::of(&logits, 0, 0).expect("finite").top.is_empty());
    }

    #[test]
    fn what_is_not_a_number_has_no_logprob() {
        assert!(Logprobs::of(&[0.0, f32::NAN], 0, 1).is_err());
        assert!(Logprobs::of(&[f32::NEG_INFINITY; 2], 0, 1).is_err());
        assert!(Logprobs::of(&[f32::INFINITY, 1.0], 0, 1).is_err());
    }
}
