//! The TEE as the guest sees it: extend a register, quote report data.
//!
//! [`open_real_tee`] finds the one that this machine has. Nobody chooses: where there is a real TEE, the simulated one
//! refuses.
//!
//! | machine | quotes | run-time registers |
//! | --- | --- | --- |
//! | Intel TDX, Linux 6.7 or later | configfs-tsm, provider `tdx_guest` | sysfs, Linux 6.16 or later |
//! | Intel TDX, Intel's kernels of before | ioctl, crate `tdx_attest` | none: such a guest does not boot |
//! | AMD SEV-SNP, Linux 6.7 or later | configfs-tsm, provider `sev_guest` | the platform has none |
//! | AMD SEV-SNP, Linux 5.19 or later | ioctl, crate `sev` | the platform has none |
//!
//! SEV-SNP: the launch measurement covers the program that makes the statement, and the statement, which report data
//! binds, says the digests of configuration and weights. So a verifier compares those with what it expects, where it
//! would compare RTMR3 of a TD. A launcher may set HOST_DATA as well; the guest does not depend on it.
//!
//! A platform makes one quote at a time. Each real TEE keeps its device behind a mutex, so requests queue here rather
//! than fail there.

mod certificates;
mod clock;
#[cfg(test)]
mod fake;
mod files;
mod old_kernels;
mod open;
mod registers;
mod simulated;
mod snp;
mod tdx;
mod tsm;

pub use open::open_real_tee;
pub use simulated::Simulated;

use cocoon_attestation::Endorsement;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The register that a running guest extends, RTMR3: the configuration, then the model's weights. RTMR0 to RTMR2 are the
/// boot chain's alone.
pub(crate) const RUNTIME_REGISTER: u8 = 3;

/// A quote, and what a verifier needs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Which platform's it is.
    pub tee: cocoon_attestation::Tee,
    /// As the platform gives it.
    pub quote: Vec<u8>,
    /// What the platform has at hand, in the form that bundles carry; may be empty.
    pub endorsements: Vec<Endorsement>,
}

/// A trusted execution environment, from inside.
pub trait Tee: Send + Sync {
    /// For people: which TEE, and how it is asked.
    fn name(&self) -> &'static str;

    /// Whether the platform has registers that a running guest can extend. Where it has none, the statement alone says
    /// what was loaded.
    fn has_registers(&self) -> bool;

    /// Extends RTMR3: it becomes SHA-384(old ‖ digest).
    ///
    /// # Errors
    /// [`TeeError`]; the register may hold anything then, so a guest that gets one does not go on.
    fn extend(&self, digest: &[u8; 48]) -> Result<(), TeeError>;

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
    /// It was busy all the time, or others interfered.
    #[error(
        "the TEE at {path} did not do its part in {attempts} attempts, {seconds} seconds: {last}; nothing else in this \
         guest may ask it, and its host must answer"
    )]
    Contended {
        /// Folder or file.
        path: PathBuf,
        /// How often it was tried.
        attempts: u32,
        /// For how long.
        seconds: u64,
        /// What happened at the last attempt.
        last: String,
    },
    /// There is nothing to extend.
    #[error("{0}")]
    NoRegisters(String),
    /// The kernel's attestation interface belongs to a platform that is not known here.
    #[error("{path} is provided by {provider:?}, but this guest knows `tdx_guest` and `sev_guest`")]
    UnknownProvider {
        /// The folder.
        path: PathBuf,
        /// As the kernel names it.
        provider: String,
    },
    /// A simulation has no place beside real hardware.
    #[error("this machine has a real TEE ({0}): the simulated one refuses to run here")]
    RealHardware(PathBuf),
}

/// Where Linux shows a guest its TEE.
const DEVICES: [&str; 3] = [open::TDX_DEVICES[0], open::TDX_DEVICES[1], open::SNP_DEVICE];

/// The real TEE of this machine, if it has one. The folder of configfs-tsm alone says nothing: it is there wherever its
/// module is, and [`open_real_tee`] asks it for a provider. `root` is `/`, except in tests.
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
