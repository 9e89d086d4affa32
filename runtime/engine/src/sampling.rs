//! From logits to one token, reproducibly: the same logits, history, parameters, seed and position give the
//! same token everywhere.

use crate::{error::GenerateError, kernels};

/// How many of the last tokens the repetition penalty looks at.
const REPETITION_WINDOW: usize = 256;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; up to 2.
    pub temperature: f32,
    /// Only the most likely tokens that together reach this probability are candidates; over 0, up to 1.
    pub top_p: f32,
    /// Logits of recent tokens are divided (or multiplied, below zero) by this; 1 is off, up to 2.
    pub repetition_penalty: f32,
    /// Chooses one of all possible answers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.4, top_p: 0.95, repetition_penalty: 1.1, seed: 0 }
    }
}

impl Sampling {
    /// The most likely token each time, without a penalty.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 }
    }

    /// Refuses values out of range, and what is not a number.
    pub fn check(&self) -> Result<(), GenerateError> {
        let refuse = |what, expected, found: f32| {
            Err(GenerateError::Parameter { what, expected, found: found.to_string() })
        };
        if !(0.0..=2.0).contains(&self.temperature) {
            return refuse("temperature", "between 0 and 2", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", "over 0 and at most 1", self.top_p);
        }
        if !(0.5..=2.0).contains(&self.repetition_penalty) {
            return refuse("repetition_penalty", "between 0.5 and 2", self.repetition_penalty);
        }
        Ok(())
    }
}

/// Chooses the tokens of one sequence. Its randomness is a function of the seed and the number of tokens chosen.
pub struct Sampler {
    sampling: Sampling,
    /// Tokens that end an answer: the repetition penalty spares them, or answers would never end.
    spared: Vec<u32>,
    recent: Vec<u32>,
    chosen: u64,
    logits: Vec<f32>,
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler for one answer. `spared` are tokens that the repetition penalty leaves alone.
    pub fn new(sampling: Sampling, spared: &[u32]) -> Result<Self, GenerateError> {
        sampling.check()?;
        Ok(Self {
            sampling,
            spared: spared.to_vec(),
            recent: Vec::new(),
            chosen: 0,
            logits: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Tells the sampler of tokens that stand in the context, for the repetition penalty.
    pub fn observe(&mut self, tokens: &[u32]) {
        self.recent.extend_from_slice(&tokens[tokens.len().saturating_sub(REPETITION_WINDOW)..]);
        let excess = self.recent.len().saturating_sub(REPETITION_WINDOW);
        self.recent.drain(..excess);
    }

    /// Chooses the next token from one logit per vocabulary entry, and remembers it.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, GenerateError> {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.penalise();
        let (best, highest) = argmax(&self.logits)?;
        let token = if self.sampling.temperature == 0.0 { best } else { self.draw(highest) };
        self.chosen += 1;
        self.observe(&[token]);
        Ok(token)
    }

    fn penalise(&mut self) {
        let penalty = self.sampling.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        for (index, &token) in self.recent.iter().enumerate() {
            if self.recent[..index].contains(&token) || self.spared.contains(&token) {
                continue;
            }
            if let Some(logit) = self.logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Draws among the smallest set of likeliest tokens whose probability reaches `top_p`.
    fn draw(&mut self, highest: f32) -> u32 {
        let inverse = 1.0 / self.sampling.temperature;
        let sum = kernels::exponentials(&mut self.logits, highest, inverse);
        let top_p = f64::from(self.sampling.top_p);
        // Tokens below this weight are, all together, less than what top_p cuts off.
        let floor = ((1.0 - top_p) * sum / self.logits.len() as f64) as f32;
        self.candidates.clear();
        self.candidates.extend(
            self.logits
                .iter()
                .zip(0u32..)
                .filter(|(weight, _)| **weight >= floor)
                .map(|(weight, id)| (*weight, id)),
        );
        if top_p < 1.0 {
            self.candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut mass = 0.0;
            let reaches = self.candidates.iter().position(|(weight, _)| {
                mass += f64::from(*weight);
                mass >= top_p * sum
            });
            self.candidates.truncate(reaches.map_or(self.candidates.len(), |last| last + 1));
        }
        let kept: f64 = self.candidates.iter().map(|(weight, _)| f64::from(*weight)).sum();
        let target = uniform(self.sampling.seed, self.chosen) * kept;
        let mut mass = 0.0;
        for (weight, id) in &self.candidates {
            mass += f64::from(*weight);
            if mass > target {
                return *id;
            }
        }
        self.candidates.last().expect("the likeliest token has weight 1, over every floor").1
    }
}

/// The likeliest token, the lowest id among equals, and its logit.
fn argmax(logits: &[f32]) -> Result<(u32, f32), GenerateError> {
    let mut best = (0, f32::NEG_INFINITY);
    for (&logit, id) in logits.iter().zip(0u32..) {
        if logit.is_nan() {
            return Err(GenerateError::NotANumber);
        }
        if logit > best.1 {
            best = (id, logit);
        }
    }
    if best.1.is_finite() { Ok(best) } else { Err(GenerateError::NotANumber) }
}

/// A number in [0, 1): Philox4x32-10 keyed by the seed, with the position as counter (Salmon et al., 2011).
fn uniform(seed: u64, position: u64) -> f64 {
    let bits = philox([position as u32, (position >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let word = u64::from(bits[0]) << 32 | u64::from(bits[1]);
    (word >> 11) as f64 / (1u64 << 53) as f64
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
