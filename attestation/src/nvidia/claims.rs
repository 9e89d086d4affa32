//! What a device said and what was found true of it, for the policy.

use super::architecture::Architecture;

/// How a GPU is passed to its guest: field 36 of the opaque data (attestation-sdk, `OpaqueDataFeatureFlag`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Multiple GPUs pass through, NVLink between them protected (Blackwell).
    MultiplePassthrough,
    /// A single GPU passes through.
    SinglePassthrough,
    /// Protected PCIe: eight Hopper GPUs with their switches.
    ProtectedPcie,
}

impl Mode {
    /// NVIDIA's word: `mpt`, `spt` or `ppcie`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MultiplePassthrough => "mpt",
            Self::SinglePassthrough => "spt",
            Self::ProtectedPcie => "ppcie",
        }
    }
}

/// A GPU or switch that genuine hardware vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// By its certificates.
    pub architecture: Architecture,
    /// The chip in its certificates, for example `GH100`.
    pub chip: String,
    /// Serial number of the boot ROM's certificate, burnt in: it stays when firmware changes.
    pub serial: Vec<u8>,
    /// Serial number of firmware's own certificate. NVIDIA's tools show it, in decimal, as `ueid`.
    pub ueid: Vec<u8>,
    /// The challenge that it answered.
    pub nonce: [u8; 32],
    /// For example `550.90.07`; a switch has none.
    pub driver_version: Option<String>,
    /// For example `96.00.9F.00.01`.
    pub vbios_version: Option<String>,
    /// Where the report says it: driver 570 and later.
    pub mode: Option<Mode>,
    /// Protected PCIe, where the report says it: driver 550 and later.
    pub protected_pcie: Option<bool>,
    /// Index, from 0 as in RIMs, and value, in the report's order.
    pub measurements: Vec<(u8, Vec<u8>)>,
    /// The driver's measurements were compared with NVIDIA's RIM, and are equal.
    pub driver_compared: bool,
    /// The VBIOS' measurements were compared with NVIDIA's RIM, and are equal.
    pub vbios_compared: bool,
    /// A RIM was believed because of a simulated root, or the device was.
    pub simulated: bool,
}
