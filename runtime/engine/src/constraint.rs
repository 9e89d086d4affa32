//! What may come next: a hook at each step of an answer, for constrained decoding.

/// Decides which tokens an answer may go on with. One constraint belongs to one choice of one request.
///
/// Before each token [`mask`](Self::mask) is called, with every token allowed; then
/// [`accept`](Self::accept), with the token that was chosen, unless it ended the answer. A constraint after which the
/// answer is complete allows the tokens that end one ([`Tokenizer::end_tokens`](crate::Tokenizer::end_tokens)) and
/// nothing else. It is called on the engine's threads, so it must not wait for anything; if it panics, its own request
/// ends with [`GenerateError::Constraint`](crate::GenerateError::Constraint), and no other.
pub trait Constraint: Send {
    /// Forbids what may not come next.
    ///
    /// # Errors
    /// The constraint cannot go on: the answer ends with this error.
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError>;

    /// Takes note of the token that was chosen. It was allowed.
    ///
    /// # Errors
    /// The constraint cannot go on: the answer ends with this error.
    fn accept(&mut self, token: u32) -> Result<(), ConstraintError>;
}

/// Why a constraint cannot go on, in words that hold nothing of a prompt or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConstraintError(pub &'static str);

/// One bit for each token of the vocabulary: whether it may come next.
pub struct TokenMask {
    words: Vec<u32>,
    length: usize,
}

impl TokenMask {
    /// Allows every token of a vocabulary of so many.
    pub fn all(length: usize) -> Self {
        let mut mask = Self { words: Vec::new(), length };
        mask.allow_all();
        mask
    }

    /// Tokens of the vocabulary.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether no token is allowed.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Allows every token.
    pub fn allow_all(&mut self) {
        self.words.clear();
        self.words.resize(self.length.div_ceil(32), u32::MAX);
        self.trim();
    }

    /// Allows no token.
    pub fn forbid_all(&mut self) {
        self.words.fill(0);
    }

    /// Allows a token. One outside the vocabulary stays what it is.
    pub fn allow(&mut self, token: u32) {
        if (token as usize) < self.length {
            self.words[token as usize / 32] |= 1 << (token % 32);
        }
    }

    /// Forbids a token.
    pub fn forbid(&mut self, token: u32) {
        if (token as usize) < self.length {
            self.words[token as usize / 32] &= !(1 << (token % 32));
        }
    }

    /// Whether a token may come next.
    pub fn is_allowed(&self, token: u32) -> bool {
        (token as usize) < self.length && self.words[token as usize / 32] >> (token % 32) & 1 == 1
    }

    /// Takes a whole mask over: token `t` is bit `t % 32` of word `t / 32`. Words that are missing forbid their tokens.
    pub fn copy_from_words(&mut self, words: &[u32]) {
        for (index, word) in self.words.iter_mut().enumerate() {
            *word = words.get(index).copied().unwrap_or(0);
        }
        self.trim();
    }

    /// Bits beyond the vocabulary are no tokens.
    fn trim(&mut self) {
        let used = self.length % 32;
        if let Some(last) = self.words.last_mut().filter(|_| used > 0) {
            *last &= (1 << used) - 1;
        }
    }

    /// Takes what is forbidden out of the logits.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for (word, logits) in self.words.iter().zip(logits.chunks_mut(32)) {
            if *word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_allows_the_vocabulary_and_nothing_beyond_it() {
        let mut mask = TokenMask::all(70);
        assert!((0..70).all(|token| mask.is_allowed(token)) && !mask.is_allowed(70) && !mask.is_allowed(96));
        mask.copy_from_words(&[u32::MAX; 4]);
        assert!(mask.is_allowed(69) && !mask.is_allowed(70));
        mask.copy_from_words(&[1]);
        assert!(mask.is_allowed(0) && (1..70).all(|token| !mask.is_allowed(token)));
        mask.allow(69);
        mask.allow(1000);
        mask.forbid(0);
        assert!(mask.is_allowed(69) && !mask.is_empty());
        mask.forbid_all();
        assert!(mask.is_empty());
    }

    #[test]
    fn what_is_forbidden_has_no_chance() {
        let mut mask = TokenMask::all(40);
        mask.forbid(3);
        mask.forbid(39);
        let mut logits = vec![1.0f32; 40];
        mask.apply(&mut logits);
        for (token, logit) in logits.iter().enumerate() {
            let expected = if token == 3 || token == 39 { f32::NEG_INFINITY } else { 1.0 };
            assert_eq!(*logit, expected, "token {token}");
        }
    }
}
