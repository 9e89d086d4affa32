//! What can go wrong with a model on a device.

/// Why a step was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The model's sizes do not fit together, or the kernels.
    #[error("the model's {what}: {found}, where {expected} is needed")]
    Shape {
        /// Which size.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it has to be.
        expected: String,
    },
    /// A step names something that is not there.
    #[error("{what}: {found}, where the limit is {limit}")]
    Step {
        /// Of what.
        what: &'static str,
        /// The number.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Temperature, top_p or penalty out of range.
    #[error("temperature has to be 0 to 2, top_p over 0 and at most 1, the penalty 0.5 to 2")]
    Sampling,
    /// A page that is to be handed out holds something: the tenant before is not wiped.
    #[error("page {page} holds {words} words that are not zero: it must not change its tenant")]
    Dirty {
        /// Which.
        page: u32,
        /// How many words.
        words: u32,
    },
    /// The device does not compute as it has to: see [`crate::canary`].
    #[error("the GPU gives wrong answers ({wrong} words of the canary's are wrong): do not serve from it")]
    Canary {
        /// How many words.
        wrong: usize,
    },
    /// The device did not look at a page that it should prove to be clean.
    #[error("page {page} was not looked at: it must not change its tenant")]
    NotProven {
        /// Which.
        page: u32,
    },
    /// The device answers with another length than it was asked for.
    #[error("the device gave {found} bytes, where {expected} were asked for")]
    Answer {
        /// Given.
        found: usize,
        /// Asked for.
        expected: usize,
    },
    /// What the device answers is of another step: this one did not run.
    #[error("the device's answer is that of another step")]
    Stale,
    /// A token that is not in the vocabulary: a device that lies.
    #[error("the device chose a token that is not in the vocabulary")]
    NoToken,
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}
