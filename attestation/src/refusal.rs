//! A refusal explains itself.

use crate::check::{Checklist, Finding};
use crate::{Check, Malformed};
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

/// Why the evidence was not accepted. Its parts are those of [`Explanation`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(Box<Explanation>);

/// What a [`Refusal`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
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
    /// The platform as far as it was recognised, as in [`crate::Platform::name`], or `unknown`.
    pub platform: &'static str,
    /// True if the evidence claims the simulated root that was given.
    pub simulated: bool,
}

impl std::ops::Deref for Refusal {
    type Target = Explanation;

    fn deref(&self) -> &Explanation {
        &self.0
    }
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { check, expected, got, likely, remedy, .. } = self;
        write!(f, "{check}: expected {expected}, got {got}. {likely}. {remedy}")
    }
}

impl Refusal {
    pub(crate) fn new(check: &'static str, finding: Finding, checks: Vec<Check>) -> Self {
        Self(Box::new(Explanation {
            kind: finding.kind,
            check,
            expected: finding.expected,
            got: finding.got,
            likely: finding.likely,
            remedy: finding.remedy,
            checks,
            platform: "unknown",
            simulated: false,
        }))
    }

    /// Of a file that was handed over as an endorsement and is none that is known: `name` is the file's. The check is
    /// `endorsements.form`.
    #[must_use]
    pub fn malformed_endorsement(name: &str, error: &Malformed) -> Self {
        const ID: &str = "endorsements.form";
        let mut list = Checklist::new(&[ID]);
        let finding = Finding {
            kind: RefusalKind::Malformed,
            expected: "Intel collateral (JSON), a certificate or CRL (DER, PEM), a RIM, an OCSP response or an event log"
                .into(),
            got: format!("{name}: {error}"),
            likely: "The file was cut, changed on the way, or is something else".into(),
            remedy: "Fetch it again from its vendor, or leave it out".into(),
        };
        list.fail(ID, finding);
        list.outcome().expect_err("the only check failed")
    }

    pub(crate) fn about(mut self, platform: &'static str, simulated: bool) -> Self {
        (self.0.platform, self.0.simulated) = (platform, simulated);
        self
    }

    /// Puts the checks that were made before in front.
    pub(crate) fn after(mut self, mut earlier: Vec<Check>) -> Self {
        earlier.append(&mut self.0.checks);
        self.0.checks = earlier;
        self
    }
}

impl Explanation {
    /// Ids of all failed checks.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.checks.iter().filter(|c| c.status == crate::Status::Fail).map(|c| c.id)
    }
}
