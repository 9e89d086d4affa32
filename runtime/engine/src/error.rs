//! Errors by who is to blame: the file, the request, or the template.

use std::path::PathBuf;

/// Why a model file cannot be used. Every variant says what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file cannot be read.
    #[error("cannot read the model file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not GGUF at all.
    #[error("this is not a GGUF model file: it starts with {found:02x?}, not with \"GGUF\"")]
    NotGguf {
        /// The first bytes.
        found: [u8; 4],
    },
    /// A GGUF version that this reader does not know.
    #[error("GGUF version {0} is not supported: versions 2 and 3 are")]
    Version(u32),
    /// The file ends before something that its header promises.
    #[error(
        "the model file is cut short: {what} needs {needed} bytes, {available} are there; fetch it again"
    )]
    CutShort {
        /// What was being read.
        what: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that the file has from there.
        available: u64,
    },
    /// A count or length is over this reader's named limit.
    #[error("the model file gives {what} as {found}, over the limit of {limit}")]
    Limit {
        /// Which count or length.
        what: String,
        /// What the file says.
        found: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A field holds what it must not hold.
    #[error("the model file is malformed: {0}")]
    Malformed(String),
    /// A metadata key or a tensor that the architecture needs is not there.
    #[error("the model file lacks {0}")]
    Missing(String),
    /// Something that this engine does not run.
    #[error("the model is not supported: {0}")]
    Unsupported(String),
}

/// Why a chat template could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The model file holds no chat template.
    #[error("the model has no chat template: send a plain completion instead, or use an instruct model")]
    Absent,
    /// The template does not compile, or uses what this renderer does not know.
    #[error("the model's chat template cannot be used: {0}")]
    Unusable(String),
    /// The template refused these messages by `raise_exception`.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
    /// The rendered text would be too long, or took too much work.
    #[error("the chat template went over its limit: {0}")]
    Limit(String),
}

/// Why an answer could not be generated.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerateError {
    /// The prompt has no token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt, or prompt and answer, do not fit the context.
    #[error("{tokens} tokens do not fit the context of {context}: shorten the prompt")]
    ContextOverflow {
        /// Tokens asked for.
        tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    UnknownToken {
        /// The token id.
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A sampling parameter is out of its range.
    #[error("{what} must be {expected}, not {found}")]
    Parameter {
        /// Its name in the OpenAI API.
        what: &'static str,
        /// The range.
        expected: &'static str,
        /// The value, as text.
        found: String,
    },
    /// The model produced a value that is not a number: its weights are broken.
    #[error("the model produced a value that is not a number: its weights are damaged")]
    NotANumber,
    /// The caller stopped the work while the prompt was being read.
    #[error("cancelled")]
    Cancelled,
    /// The constraint of an answer cannot go on.
    #[error("the answer cannot follow its constraint: {0}")]
    Constraint(&'static str),
    /// The constraint of an answer allows no token at all.
    #[error("the answer cannot follow its constraint: it allows no token here")]
    NothingAllowed,
    /// The reader did not take what was written for it.
    #[error("the answer was not read for {seconds} seconds, so it was ended; read faster")]
    SlowReader {
        /// How long it was waited for.
        seconds: u64,
    },
    /// A limit on what waits is reached.
    #[error(transparent)]
    Busy(Busy),
    /// The device that computed failed. [`Engine::failure`](crate::Engine::failure) says how.
    #[error("the device that computes has failed, and this answer with it; use another worker")]
    Device,
    /// The engine has ended.
    #[error("the engine has ended, and this answer with it")]
    Stopped,
}

/// Which limit on waiting requests is reached.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("as many {what} as may wait: {limit}; try again later")]
pub struct Busy {
    /// What there is enough of.
    pub what: &'static str,
    /// The most that may wait.
    pub limit: usize,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitError {
    /// The request makes no sense; the same request never will.
    #[error(transparent)]
    Invalid(#[from] GenerateError),
    /// A limit is reached; later it may be taken.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The device that computed has failed. [`Engine::failure`](crate::Engine::failure) says how.
    #[error("the device that computes has failed; use another worker")]
    Device,
    /// The engine has ended.
    #[error("the engine has ended")]
    Stopped,
}

impl From<SubmitError> for GenerateError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Invalid(error) => error,
            SubmitError::Busy(busy) => Self::Busy(busy),
            SubmitError::Device => Self::Device,
            SubmitError::Stopped => Self::Stopped,
        }
    }
}
