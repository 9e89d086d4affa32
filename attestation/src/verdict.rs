//! The verdict as one object for machines.

use serde::Serialize;

use crate::{Check, Exceptions, Genuine, Refusal, Trusted};

/// What `cocoon verify --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `genuine`, `trusted`, `rejected`, `unverified`, `malformed` or `unavailable`.
    pub verdict: &'static str,
    /// `tdx`, or `unknown`.
    pub platform: &'static str,
    /// True if a simulated root vouches for it.
    pub simulated: bool,
    /// Exceptions that were named, in force or not.
    pub exceptions: Vec<String>,
    /// All checks, in their fixed order.
    pub checks: Vec<Check>,
    /// Why not, when not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Reason>,
    #[serde(skip)]
    exit_code: u8,
}

/// The first check that failed, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Its id.
    pub check: &'static str,
    /// What must hold.
    pub expected: String,
    /// What was found.
    pub got: String,
    /// What it likely means.
    pub likely: String,
    /// What to do about it.
    pub remedy: String,
}

impl Verdict {
    /// Repeats the exceptions that were named, whether or not they made a difference.
    #[must_use]
    pub fn with_exceptions(mut self, exceptions: &Exceptions) -> Self {
        self.exceptions = exceptions.names();
        self
    }

    /// Exit code of `cocoon verify`: 0, 3, 4, 5 or 6.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl From<&Genuine> for Verdict {
    fn from(genuine: &Genuine) -> Self {
        Self {
            verdict: "genuine",
            platform: genuine.platform().name(),
            simulated: genuine.simulated(),
            exceptions: Vec::new(),
            checks: genuine.checks().to_vec(),
            refusal: None,
            exit_code: 0,
        }
    }
}

impl From<&Trusted> for Verdict {
    fn from(trusted: &Trusted) -> Self {
        Self {
            verdict: "trusted",
            platform: trusted.platform().name(),
            simulated: trusted.simulated(),
            exceptions: Vec::new(),
            checks: trusted.checks().to_vec(),
            refusal: None,
            exit_code: 0,
        }
    }
}

impl From<&Refusal> for Verdict {
    fn from(refusal: &Refusal) -> Self {
        Self {
            verdict: refusal.kind.word(),
            platform: refusal.platform,
            simulated: refusal.simulated,
            exceptions: Vec::new(),
            checks: refusal.checks.clone(),
            refusal: Some(Reason {
                check: refusal.check,
                expected: refusal.expected.clone(),
                got: refusal.got.clone(),
                likely: refusal.likely.clone(),
                remedy: refusal.remedy.clone(),
            }),
            exit_code: refusal.kind.exit_code(),
        }
    }
}
