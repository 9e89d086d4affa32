//! Why PID 1 gives up: what happened, where, and what to do. There is nobody to handle it, so it is text.

use std::fmt::Display;

/// A sentence for the operator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

/// What every step gives.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// From a whole sentence, without a full stop.
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // One line of the log, whatever a device answered.
        self.0.chars().map(|c| if c.is_control() { ' ' } else { c }).try_for_each(|c| write!(f, "{c}"))
    }
}

/// Turns an error of the system into a sentence.
pub(crate) trait Explain<T> {
    /// "WHAT: error; REMEDY".
    fn explain(self, what: impl Display, remedy: &str) -> Outcome<T>;
}

impl<T, E: Display> Explain<T> for Result<T, E> {
    fn explain(self, what: impl Display, remedy: &str) -> Outcome<T> {
        self.map_err(|error| Failure(format!("{what}: {error}; {remedy}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_that_says_what_why_and_what_to_do() {
        let failed: Result<(), _> = Err("not\nthere");
        let failure = failed.explain("the disk", "attach it").expect_err("it failed");
        assert_eq!(failure.to_string(), "the disk: not there; attach it");
    }
}
