//! A refusal explains itself.

use crate::{Check, check::Finding};
use serde::Serialize;

/// Who or what is to blame, in the terms of the command line's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalKind {
    /// The bytes do not have the form they must have (exit 5).
    Malformed,
    /// A signature or certificate chain does not hold (exit 4).
    #[serde(rename = "unverified")]
    Signature,
    /// A hard rule or the policy says no (exit 3).
    Rejected,
    /// Something needed is missing, out of date or not supported (exit 6).
    Unavailable,
}

impl RefusalKind {
    /// The exit code of `cocoon verify`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Rejected => 3,
            Self::Signature => 4,
            Self::Malformed => 5,
            Self::Unavailable => 6,
        }
    }

    /// The word in the verdict.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Signature => "unverified",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why the evidence was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: expected {expected}, got {got}. {likely}. {remedy}")]
pub struct Refusal {
    /// Who is to blame.
    pub kind: RefusalKind,
    /// The first check that failed, in the fixed order.
    pub check: &'static str,
    /// What must hold.
    pub expected: String,
    /// What was found.
    pub got: String,
    /// What it likely means.
    pub likely: String,
    /// What to do about it.
    pub remedy: String,
    /// All checks, in their fixed order.
    pub checks: Vec<Check>,
    /// The platform as far as it was recognised: `tdx` or `unknown`.
    pub platform: &'static str,
    /// True if the evidence claims the simulated root that was given.
    pub simulated: bool,
}

impl Refusal {
    pub(crate) fn new(check: &'static str, finding: Finding, checks: Vec<Check>) -> Self {
        Self {
            kind: finding.kind,
            check,
            expected: finding.expected,
            got: finding.got,
            likely: finding.likely,
            remedy: finding.remedy,
            checks,
            platform: "unknown",
            simulated: false,
        }
    }

    /// Ids of all failed checks.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.checks.iter().filter(|c| c.status == crate::Status::Fail).map(|c| c.id)
    }
}
