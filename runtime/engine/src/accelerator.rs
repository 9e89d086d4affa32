//! The seam to a device that computes in the CPU's place.
//!
//! The engine knows no device: it plans steps, keeps the books of pages, and writes answers. An [`Accelerator`] runs the
//! planned rows over pages that lie in its own memory, and gives for each answer that is to go on either a token that it
//! chose itself or the logits, for what only the host can choose by (a constraint, logprobs, biases, further
//! penalties). **It has to give the CPU's bits**: then it does not matter who chooses, nor who replays.
//!
//! An accelerator lives on a thread of its own (`schedule/device.rs`), is opened there, and never leaves it.

use zeroize::{Zeroize, Zeroizing};

use crate::sampling::MAX_RECENT;

/// One token of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StepRow {
    /// Its number in the vocabulary.
    pub token: u32,
    /// Which of the step's tables has the pages of its sequence.
    pub table: u32,
    /// Tokens before it in its sequence. They are in pages already, or in this step.
    pub position: u32,
}

/// How a token is chosen where temperature, `top_p`, repetition penalty and seed are all that decides: the CPU's
/// [`Sampler`](crate::Sampler) with these and nothing else gives the same token.
#[derive(Clone, PartialEq)]
pub struct TokenChoice {
    /// 0 takes the likeliest token; up to 2.
    pub temperature: f32,
    /// Over 0, up to 1.
    pub top_p: f32,
    /// 0.5 to 2; 1 is off.
    pub repetition_penalty: f32,
    /// Chooses one of all possible answers.
    pub seed: u64,
    /// Which choice of its request it is: each draws other numbers.
    pub choice: u32,
    /// Tokens chosen so far for this answer.
    pub position: u64,
    /// Tokens that the penalty is for, each once: [`TokenChoice::MAX_RECENT`] at most, none where it is off.
    pub recent: Zeroizing<Vec<u32>>,
}

impl TokenChoice {
    /// Most recent tokens.
    pub const MAX_RECENT: usize = MAX_RECENT;
}

/// What is wanted after a row.
#[derive(Clone, PartialEq)]
pub enum Pick {
    /// All logits.
    Logits,
    /// A token.
    Token(TokenChoice),
}

/// What a step computes. It cannot be printed, and its tokens are wiped when it goes.
#[derive(Default)]
pub struct StepWork {
    /// The rows. Those after which something is wanted come last, in the order of `picks`.
    pub rows: Vec<StepRow>,
    /// Pages of each sequence, the first tokens' first.
    pub tables: Vec<Vec<u32>>,
    /// What is wanted after the last rows: first all [`Pick::Logits`], then all [`Pick::Token`].
    pub picks: Vec<Pick>,
}

impl StepWork {
    /// Forgets the last step, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.rows.iter_mut().for_each(|row| row.token.zeroize());
        self.rows.clear();
        self.tables.clear();
        self.picks.clear();
    }
}

impl Drop for StepWork {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What a step came to.
#[derive(Default)]
pub struct StepAnswer {
    /// For each [`Pick::Token`] its token; `None` where a logit is not a number.
    pub tokens: Vec<Option<u32>>,
    /// For each [`Pick::Logits`] as many logits as the vocabulary has tokens, one after the other.
    pub logits: Vec<f32>,
}

impl StepAnswer {
    /// Forgets the last answer, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.tokens.zeroize();
        self.logits.zeroize();
    }
}

impl Drop for StepAnswer {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What an engine needs of a device, to be allocated when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Most tokens of a sequence.
    pub context: usize,
    /// Most rows of a step; there are never more sequences than rows.
    pub rows: usize,
    /// Pages of 16 tokens.
    pub pages: usize,
}

/// Why a device does not serve. The text names neither tokens nor words of a conversation, and may be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AcceleratorError(String);

impl AcceleratorError {
    /// Says what happened, and what to do.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// A device with a model. Calls come from the thread that opened it, one after the other. After an error only
/// [`retire`](Self::retire) is called.
pub trait Accelerator {
    /// Digest of the code that it runs, for receipts.
    fn kernels(&self) -> [u8; 32];

    /// Runs all rows and fills `answer`, which is empty. Pages are numbers below [`Needs::pages`].
    ///
    /// # Errors
    /// The device failed, or what it says cannot be this step's answer.
    fn step(&mut self, work: &StepWork, answer: &mut StepAnswer) -> Result<(), AcceleratorError>;

    /// Wipes pages, and proves that they are wiped.
    ///
    /// # Errors
    /// The device failed, or a page is not clean.
    fn scrub(&mut self, pages: &[u32]) -> Result<(), AcceleratorError>;

    /// Proves that pages are clean, before another tenant gets them.
    ///
    /// # Errors
    /// As [`Self::scrub`].
    fn prove_clean(&mut self, pages: &[u32]) -> Result<(), AcceleratorError>;

    /// Wipes everything that conversations left on the device. Nothing but dropping comes after it.
    ///
    /// # Errors
    /// The device failed: then it has to be reset before anybody else gets it.
    fn retire(&mut self) -> Result<(), AcceleratorError>;
}
