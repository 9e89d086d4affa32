//! The TEE as the guest sees it: extend a register, quote report data.

mod simulated;

pub use simulated::Simulated;

use cocoon_attestation::Endorsement;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The registers that a guest may extend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// RTMR2: the configuration.
    Configuration,
    /// RTMR3: the model's weights.
    Weights,
}

impl Register {
    /// Its number.
    pub fn index(self) -> u8 {
        match self {
            Self::Configuration => 2,
            Self::Weights => 3,
        }
    }
}

/// A quote, and what a verifier needs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// As the platform gives it.
    pub quote: Vec<u8>,
    /// Collateral, in the form that bundles carry; may be empty.
    pub endorsements: Vec<Endorsement>,
}

/// A trusted execution environment, from inside.
pub trait Tee: Send + Sync {
    /// Extends a register: it becomes SHA-384(old ‖ digest).
    ///
    /// # Errors
    /// [`TeeError`]; the register is unchanged then.
    fn extend(&self, register: Register, digest: &[u8; 48]) -> Result<(), TeeError>;

    /// A quote over 64 bytes of report data.
    ///
    /// # Errors
    /// [`TeeError`].
    fn quote(&self, report_data: &[u8; 64]) -> Result<Quote, TeeError>;
}

/// The TEE does not do what was asked.
#[derive(Debug, Error)]
pub enum TeeError {
    /// It cannot be reached.
    #[error("the TEE at {path} cannot be reached: {source}")]
    Unreachable {
        /// Socket or device.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It refused.
    #[error("the TEE refused: {0}")]
    Refused(String),
    /// It answered with something that is no answer.
    #[error("the TEE answered with {0}")]
    Malformed(String),
    /// A simulation has no place beside real hardware.
    #[error("this machine has a real TEE ({0}): the simulated one refuses to run here")]
    RealHardware(PathBuf),
}

/// Where Linux shows a guest its TEE.
const DEVICES: [&str; 4] =
    ["dev/tdx_guest", "dev/tdx-guest", "dev/sev-guest", "sys/kernel/config/tsm/report"];

/// The real TEE of this machine, if it has one. `root` is `/`, except in tests.
pub fn real_tee(root: &Path) -> Option<PathBuf> {
    DEVICES.iter().map(|device| root.join(device)).find(|device| device.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_real_device_is_seen() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(real_tee(root.path()), None);
        for device in DEVICES {
            let root = tempfile::tempdir().expect("a folder");
            let path = root.path().join(device);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(&path, "").expect("a file");
            assert_eq!(real_tee(root.path()), Some(path));
        }
    }
}
