//! From logits to one token, reproducibly: the same logits, history, parameters, seed and position give the
//! same token everywhere.
//!
//! The order: what a constraint forbids goes out; logit bias; penalties; temperature; then of what is left the `top_k`
//! likeliest, those of at least `min_p` of the likeliest's probability, and of these the `top_p` of the mass.

use zeroize::Zeroize;

use crate::{accelerator::TokenChoice, constraint::TokenMask, error::GenerateError, kernels};

/// How many of the last tokens the repetition penalty looks at.
const REPETITION_WINDOW: usize = 256;
/// Most different tokens that the repetition penalty is for.
pub(crate) const MAX_RECENT: usize = REPETITION_WINDOW;

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token, and so does what is below 2.94 · 10^-39; up to 2.
    pub temperature: f32,
    /// Only the most likely tokens that together reach this probability are candidates; over 0, up to 1.
    pub top_p: f32,
    /// Only so many of the most likely tokens are candidates; 0 is off.
    pub top_k: u32,
    /// Only tokens with at least this share of the likeliest token's probability are candidates; 0 is off, up to 1.
    pub min_p: f32,
    /// Logits of recent tokens are divided (or multiplied, below zero) by this; 1 is off, 0.5 to 2. The prompt counts.
    pub repetition_penalty: f32,
    /// Taken off the logits of tokens that the answer holds; 0 is off, -2 to 2.
    pub presence_penalty: f32,
    /// Taken off the logits of tokens for each time that the answer holds them; 0 is off, -2 to 2.
    pub frequency_penalty: f32,
    /// Chooses one of all possible answers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.4, top_p: 0.95, repetition_penalty: 1.1, ..Self::greedy() }
    }
}

impl Sampling {
    /// The most likely token each time, without a penalty.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
        }
    }

    /// Refuses values out of range, and what is not a number.
    pub fn check(&self) -> Result<(), GenerateError> {
        let ranges = [
            ("temperature", self.temperature, 0.0, 2.0, "between 0 and 2"),
            ("top_p", self.top_p, f32::MIN_POSITIVE, 1.0, "over 0 and at most 1"),
            ("min_p", self.min_p, 0.0, 1.0, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty, 0.5, 2.0, "between 0.5 and 2"),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0, "between -2 and 2"),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0, "between -2 and 2"),
        ];
        for (what, found, least, most, expected) in ranges {
            if !(least..=most).contains(&found) {
                return Err(GenerateError::Parameter { what, expected, found: found.to_string() });
            }
        }
        Ok(())
    }
}

/// Chooses the tokens of one answer. Its randomness is a function of the seed, the number of the choice and the number
/// of tokens chosen. What it remembers of the answer is wiped when it goes.
pub struct Sampler {
    sampling: Sampling,
    /// Which of a request's answers this is: each has other random numbers.
    choice: u32,
    /// Added to the logits of some tokens.
    bias: Vec<(u32, f32)>,
    /// Tokens that end an answer: the repetition penalty spares them, or answers would never end.
    spared: Vec<u32>,
    recent: Vec<u32>,
    /// How often each token was chosen, by token; kept only where a penalty asks for it.
    counts: Vec<(u32, u32)>,
    chosen: u64,
    logits: Vec<f32>,
    candidates: Vec<(f32, u32)>,
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.recent.zeroize();
        self.counts.zeroize();
        self.rest();
    }
}

impl Sampler {
    /// A sampler for one answer. `spared` are tokens that the repetition penalty leaves alone.
    ///
    /// # Errors
    /// A parameter is out of range.
    pub fn new(sampling: Sampling, spared: &[u32]) -> Result<Self, GenerateError> {
        sampling.check()?;
        Ok(Self {
            sampling,
            choice: 0,
            bias: Vec::new(),
            spared: spared.to_vec(),
            recent: Vec::new(),
            counts: Vec::new(),
            chosen: 0,
            logits: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Draws the numbers of another choice of the same request; 0 is the first.
    pub fn for_choice(mut self, choice: u32) -> Self {
        self.choice = choice;
        self
    }

    /// Adds to the logits of these tokens, each time. Tokens outside the vocabulary have no logit.
    pub fn with_bias(mut self, bias: &[(u32, f32)]) -> Self {
        self.bias = bias.to_vec();
        self
    }

    /// Tells the sampler of tokens that stand in the context, for the repetition penalty.
    pub fn observe(&mut self, tokens: &[u32]) {
        self.recent.extend_from_slice(&tokens[tokens.len().saturating_sub(REPETITION_WINDOW)..]);
        let excess = self.recent.len().saturating_sub(REPETITION_WINDOW);
        self.recent.drain(..excess);
    }

    /// Chooses the next token from one logit per vocabulary entry, and remembers it.
    ///
    /// # Errors
    /// A logit is not a number.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, GenerateError> {
        self.choose_among(logits, None)
    }

    /// The same, among the tokens that a mask allows.
    ///
    /// # Errors
    /// A logit is not a number, or nothing is allowed.
    pub fn choose_among(&mut self, logits: &[f32], mask: Option<&TokenMask>) -> Result<u32, GenerateError> {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        if let Some(mask) = mask {
            if mask.is_empty() {
                return Err(GenerateError::NothingAllowed);
            }
            mask.apply(&mut self.logits);
        }
        for (token, bias) in &self.bias {
            if let Some(logit) = self.logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        self.penalise();
        let (best, highest) = argmax(&self.logits)?;
        // At a temperature so near to zero that its inverse is infinite, nothing but the likeliest has a weight.
        let token = if self.sampling.temperature.recip().is_finite() { self.draw(highest) } else { best };
        self.accept(token);
        Ok(token)
    }

    /// What the next choice depends on, where it is no more than a [`TokenChoice`] has. Each such choice is then told by
    /// [`Self::accept`].
    pub(crate) fn next_choice(&self) -> Option<TokenChoice> {
        let Sampling { temperature, top_p, top_k, min_p, repetition_penalty, seed, .. } = self.sampling;
        let counts = self.sampling.presence_penalty != 0.0 || self.sampling.frequency_penalty != 0.0;
        if counts || top_k != 0 || min_p != 0.0 || !self.bias.is_empty() {
            return None;
        }
        let recent = if repetition_penalty == 1.0 { &[] } else { self.recent.as_slice() };
        let penalised = |(index, token): &(usize, &u32)| {
            !recent[..*index].contains(token) && !self.spared.contains(token)
        };
        let recent: Vec<u32> = recent.iter().enumerate().filter(penalised).map(|(_, token)| *token).collect();
        let (choice, position) = (self.choice, self.chosen);
        let recent = recent.into();
        let temperature = if temperature.recip().is_finite() { temperature } else { 0.0 }; // as in `choose`
        Some(TokenChoice { temperature, top_p, repetition_penalty, seed, choice, position, recent })
    }

    /// Remembers a token that was chosen elsewhere, by what [`Self::next_choice`] said.
    pub(crate) fn accept(&mut self, token: u32) {
        self.chosen += 1;
        self.remember(token);
    }

    /// The sampler whose next choice this is.
    #[cfg(test)]
    pub(crate) fn at(choice: &TokenChoice) -> Self {
        let TokenChoice { temperature, top_p, repetition_penalty, seed, .. } = *choice;
        let sampling = Sampling { temperature, top_p, repetition_penalty, seed, ..Sampling::greedy() };
        let mut sampler = Self::new(sampling, &[]).expect("in range").for_choice(choice.choice);
        sampler.observe(&choice.recent);
        sampler.chosen = choice.position;
        sampler
    }

    fn remember(&mut self, token: u32) {
        self.observe(&[token]);
        if self.sampling.presence_penalty != 0.0 || self.sampling.frequency_penalty != 0.0 {
            self.count(token);
        }
    }

    fn count(&mut self, token: u32) {
        match self.counts.binary_search_by_key(&token, |(counted, _)| *counted) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => {
                if self.counts.len() == self.counts.capacity() {
                    // A list that grows leaves an unwiped copy of itself behind.
                    let mut larger = Vec::with_capacity((2 * self.counts.len()).max(64));
                    larger.extend_from_slice(&self.counts);
                    std::mem::replace(&mut self.counts, larger).zeroize();
                }
                self.counts.insert(at, (token, 1));
            }
        }
    }

    /// Gives the memory back that choosing takes, some bytes for each token of the vocabulary, until the next choice.
    pub(crate) fn rest(&mut self) {
        std::mem::take(&mut self.logits).zeroize();
        std::mem::take(&mut self.candidates).zeroize();
    }

    fn penalise(&mut self) {
        let Sampling { repetition_penalty: repetition, presence_penalty, frequency_penalty, .. } =
            self.sampling;
        let recent = if repetition == 1.0 { &[] } else { self.recent.as_slice() };
        for (index, &token) in recent.iter().enumerate() {
            if recent[..index].contains(&token) || self.spared.contains(&token) {
                continue;
            }
            if let Some(logit) = self.logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            }
        }
        for (token, count) in &self.counts {
            if let Some(logit) = self.logits.get_mut(*token as usize) {
                *logit -= (*count as f32).mul_add(frequency_penalty, presence_penalty);
            }
        }
    }

    /// Draws among the candidates, by their weights.
    fn draw(&mut self, highest: f32) -> u32 {
        self.gather(highest);
        let kept: f64 = self.candidates.iter().map(|(weight, _)| f64::from(*weight)).sum();
        let target = uniform(self.sampling.seed, self.choice, self.chosen) * kept;
        let mut mass = 0.0;
        for (weight, id) in &self.candidates {
            mass += f64::from(*weight);
            if mass > target {
                return *id;
            }
        }
        self.candidates.last().expect("the likeliest token has weight 1, over every floor").1
    }

    /// Candidates with their weights: the likeliest has 1.
    fn gather(&mut self, highest: f32) {
        let Sampling { temperature, top_k, min_p, .. } = self.sampling;
        let top_p = f64::from(self.sampling.top_p);
        let mut sum = kernels::exponentials(&mut self.logits, highest, 1.0 / temperature);
        let cut = top_k > 0 || min_p > 0.0;
        // Tokens below this weight are, all together, less than what top_p cuts off.
        let floor = if cut { min_p } else { ((1.0 - top_p) * sum / self.logits.len() as f64) as f32 };
        self.candidates.clear();
        self.candidates.extend(
            self.logits
                .iter()
                .zip(0u32..)
                .filter(|(weight, _)| **weight > 0.0 && **weight >= floor)
                .map(|(weight, id)| (*weight, id)),
        );
        let likelier = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if top_k > 0 && self.candidates.len() > top_k as usize {
            self.candidates.select_nth_unstable_by(top_k as usize - 1, likelier);
            self.candidates.truncate(top_k as usize);
        }
        if cut || top_p < 1.0 {
            self.candidates.sort_unstable_by(likelier);
        }
        if cut {
            sum = self.candidates.iter().map(|(weight, _)| f64::from(*weight)).sum();
        }
        if top_p < 1.0 {
            let mut mass = 0.0;
            let reaches = self.candidates.iter().position(|(weight, _)| {
                mass += f64::from(*weight);
                mass >= top_p * sum
            });
            self.candidates.truncate(reaches.map_or(self.candidates.len(), |last| last + 1));
        }
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

/// A number in [0, 1): Philox4x32-10 keyed by the seed, with position and choice as counter (Salmon et al., 2011).
fn uniform(seed: u64, choice: u32, position: u64) -> f64 {
    let counter = [position as u32, (position >> 32) as u32, choice, 0];
    let bits = philox(counter, [seed as u32, (seed >> 32) as u32]);
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
