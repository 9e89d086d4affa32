//! Modes: what a report's own fields say, held against each other.
//!
//! Whether confidential computing is on and developer tools are off is no field of a report. It follows from what ran:
//! NVIDIA's tools call debug "disabled" when the measurements equal the RIMs' (attestation-sdk, `gpu/verify.cpp`), and so
//! it is said here.

use super::claims::Mode;
use super::opaque::{Opaque, field};

/// What the fields say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modes {
    pub(super) mode: Option<Mode>,
    pub(super) protected_pcie: Option<bool>,
}

/// Reads field 36 (feature flag) and field 21 (protected PCIe), which must not contradict each other.
pub(super) fn read(opaque: &Opaque<'_>) -> Result<Modes, String> {
    let mode = match (opaque.get(field::FEATURE_FLAG).is_some(), opaque.number(field::FEATURE_FLAG)) {
        (false, _) => None,
        (true, Some(0)) => Some(Mode::MultiplePassthrough),
        (true, Some(1)) => Some(Mode::SinglePassthrough),
        (true, Some(2)) => Some(Mode::ProtectedPcie),
        (true, other) => return Err(format!("feature flag {other:?}")),
    };
    let protected_pcie = opaque
        .status(field::PROTECTED_PCIE)
        .transpose()
        .map_err(|other| format!("protected PCIe status 0x{other}"))?;
    match (mode, protected_pcie) {
        (Some(mode), Some(on)) if (mode == Mode::ProtectedPcie) != on => {
            Err(format!("mode {} with protected PCIe {}", mode.name(), if on { "on" } else { "off" }))
        }
        _ => Ok(Modes { mode, protected_pcie }),
    }
}

impl std::fmt::Display for Modes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protected = match self.protected_pcie {
            Some(true) => "on",
            Some(false) => "off",
            None => "not said",
        };
        write!(f, "mode {}, protected PCIe {protected}", self.mode.map_or("not said", Mode::name))
    }
}
