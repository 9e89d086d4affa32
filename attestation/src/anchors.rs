//! The roots a verifier believes.

/// Intel's SGX root CA (the TDX root too), as published by Intel; SHA-256
/// 44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3.
pub(crate) const INTEL_ROOT: &[u8] = include_bytes!("../roots/intel-sgx-root-ca.der");

/// NVIDIA's device identity CA, above GPUs and switches, as published in nvtrust; SHA-256
/// 102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48.
pub(crate) const NVIDIA_DEVICE_ROOT: &[u8] = include_bytes!("../roots/nvidia-device-root.der");
/// NVIDIA's CoRIM signing root CA, above the RIMs' signers, as published in nvtrust; SHA-256
/// 12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1.
pub(crate) const NVIDIA_RIM_ROOT: &[u8] = include_bytes!("../roots/nvidia-rim-root.der");

/// The largest certificate taken as a simulated root, in bytes.
const MAX_ROOT: usize = 4096;
/// Most simulated roots: a CPU's, a GPU's, a RIM's, and room.
const MAX_ROOTS: usize = 8;

/// The roots that may stand at the end of a chain, and the rollback mark.
///
/// Starts from the hardware vendors' pinned roots. A simulated root is added by hand, per development network, from a
/// file; none is built in, and no policy can name one.
#[derive(Debug, Clone)]
pub struct TrustAnchors {
    simulated: Vec<Vec<u8>>,
    evaluation_floor: u32,
}

/// A certificate that cannot stand as a simulated root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoot {
    /// Not one DER sequence of at most 4096 bytes.
    #[error("the simulated root is not one DER certificate of at most {MAX_ROOT} bytes")]
    NotACertificate,
    /// A hardware vendor's own root.
    #[error("this is a hardware vendor's own root: it is pinned already and never simulated")]
    HardwareRoot,
    /// Too many.
    #[error("at most {MAX_ROOTS} simulated roots")]
    TooMany,
}

/// Which root a chain ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor<'a> {
    pub(crate) der: &'a [u8],
    pub(crate) simulated: bool,
}

impl TrustAnchors {
    /// The pinned roots of real hardware only.
    pub fn hardware() -> Self {
        Self { simulated: Vec::new(), evaluation_floor: 0 }
    }

    /// Also believes a development network's simulated platform. Everything that rests on it is called SIMULATED. May be
    /// called again, for a simulated GPU beside a simulated CPU.
    ///
    /// # Errors
    /// If `der` is not one certificate, is a hardware vendor's root, or is one too many.
    pub fn with_simulated_root(mut self, der: &[u8]) -> Result<Self, InvalidRoot> {
        if [INTEL_ROOT, NVIDIA_DEVICE_ROOT, NVIDIA_RIM_ROOT].contains(&der) || crate::snp::is_root(der) {
            return Err(InvalidRoot::HardwareRoot);
        }
        if !is_one_der_sequence(der) {
            return Err(InvalidRoot::NotACertificate);
        }
        if self.simulated.len() == MAX_ROOTS {
            return Err(InvalidRoot::TooMany);
        }
        self.simulated.push(der.to_vec());
        Ok(self)
    }

    /// Refuses endorsements whose `tcbEvaluationDataNumber` is below the highest one the caller has seen.
    pub fn with_evaluation_floor(mut self, highest_seen: u32) -> Self {
        self.evaluation_floor = highest_seen;
        self
    }

    pub(crate) fn evaluation_floor(&self) -> u32 {
        self.evaluation_floor
    }

    /// The anchor that this certificate is: the vendor's pinned one, or a simulated one.
    pub(crate) fn find<'a>(&'a self, pinned: &'static [u8], root_der: &[u8]) -> Option<Anchor<'a>> {
        if root_der == pinned {
            return Some(Anchor { der: pinned, simulated: false });
        }
        self.simulated_root(root_der)
    }

    /// The simulated root that this certificate is.
    pub(crate) fn simulated_root<'a>(&'a self, root_der: &[u8]) -> Option<Anchor<'a>> {
        let der = self.simulated.iter().find(|der| *der == root_der)?;
        Some(Anchor { der, simulated: true })
    }
}

fn is_one_der_sequence(der: &[u8]) -> bool {
    der.len() <= MAX_ROOT
        && matches!(der, [0x30, 0x82, high, low, ..] if 4 + usize::from(u16::from_be_bytes([*high, *low])) == der.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_roots_are_the_vendors() {
        for (root, sha256) in [
            (INTEL_ROOT, "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"),
            (NVIDIA_DEVICE_ROOT, "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"),
            (NVIDIA_RIM_ROOT, "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1"),
        ] {
            assert_eq!(hex::encode(crate::crypto::sha256(&[root])), sha256);
        }
    }

    #[test]
    fn the_hardware_root_cannot_be_called_simulated() {
        for root in [INTEL_ROOT, NVIDIA_DEVICE_ROOT, NVIDIA_RIM_ROOT] {
            let result = TrustAnchors::hardware().with_simulated_root(root);
            assert_eq!(result.expect_err("a vendor's root"), InvalidRoot::HardwareRoot);
        }
    }

    #[test]
    fn rubbish_is_no_root() {
        for der in [&b""[..], b"0", &[0x30, 0x82, 0, 1], &INTEL_ROOT[..INTEL_ROOT.len() - 1]] {
            assert!(TrustAnchors::hardware().with_simulated_root(der).is_err());
        }
    }
}
