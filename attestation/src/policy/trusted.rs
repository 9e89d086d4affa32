//! What a policy accepted: the only thing that can be sealed to.

use crate::statement::ModelIdentity;
use crate::{Check, Platform, Statement, UnixTime};

/// A peer that a policy accepted. Made by [`Policy::appraise`] alone; nothing else can be sealed to.
#[derive(Debug)]
pub struct Trusted {
    pub(super) statement: Statement,
    pub(super) digest: [u8; 32],
    pub(super) checks: Vec<Check>,
    pub(super) platform: Platform,
    pub(super) image: String,
    pub(super) fresh_until: UnixTime,
}

impl Trusted {
    /// What the guest says about itself.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// SHA-256 of the encoded statement: its name in headers and receipts.
    pub fn statement_digest(&self) -> [u8; 32] {
        self.digest
    }

    /// X-Wing public key that prompts are sealed to.
    pub fn seal_key(&self) -> &[u8] {
        &self.statement.keys.seal
    }

    /// Ed25519 public key that signs receipts.
    pub fn receipt_key(&self) -> &[u8; 32] {
        &self.statement.keys.receipt
    }

    /// The model of this name, if the guest serves it.
    pub fn model(&self, name: &str) -> Option<&ModelIdentity> {
        self.statement.models.iter().find(|model| model.name == name)
    }

    /// All checks of both steps, in their fixed order.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// True if a simulated root vouches for it. Say so wherever it is shown.
    pub fn simulated(&self) -> bool {
        self.platform.simulated
    }

    /// The machine.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Name of the image in the policy that it runs.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// When this trust ends: when the beacon is too old or the endorsements lapse, whichever comes first. Appraise
    /// again, with fresh evidence, before it.
    pub fn fresh_until(&self) -> UnixTime {
        self.fresh_until
    }
}
