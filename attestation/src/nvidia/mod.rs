//! NVIDIA GPUs (Hopper, Blackwell) and NVSwitches (LS10): from SPDM reports, certificates, RIMs and OCSP responses to what
//! genuine devices said.
//!
//! Formats are DMTF's (DSP0274), TCG's (DICE, RIM), IETF's (RFC 5280, RFC 6960) and W3C's (XML Signature, C14N 1.1). What
//! NVIDIA adds to them is public in its sources alone: `NVIDIA/nvtrust` and `NVIDIA/attestation-sdk`; each rule names the
//! file it was read from.
//!
//! # Bytes that nobody signed
//!
//! In RIMs: white space outside values, line ends, the order of attributes, and base64's white space around the signature.
//! In JSON: white space, and the case of hex. In PEM: the line ends.

mod architecture;
mod chain;
mod claims;
mod device;
mod form;
mod mode;
mod needs;
mod ocsp;
mod opaque;
mod reference;
mod rim;
pub(crate) mod shown;
mod spdm;
mod topology;

pub use architecture::Architecture;
pub use claims::{Gpu, Mode};
pub use form::{Device, Evidence, MAX_DEVICES, MAX_JSON};
pub(crate) use needs::missing;
pub use needs::{NvidiaNeed, nvidia_needs, ocsp_document, ocsp_request, rim_document};

use self::chain::KnownLinks;
use self::device::{Judged, Shared};
use self::ocsp::Responses;
use self::rim::{Judge, Library};
use self::spdm::Report;
use crate::check::Checklist;
use crate::verifier::Given;
use crate::{Malformed, UnixTime};

/// All checks, in the order in which they are shown.
pub(crate) const CHECKS: [&str; 13] = [
    "gpu.format",
    "gpu.signature",
    "gpu.chain",
    "gpu.validity",
    "gpu.revocation",
    "gpu.architecture",
    "gpu.fwid",
    "gpu.nonce",
    "gpu.rim.driver",
    "gpu.rim.vbios",
    "gpu.measurements",
    "gpu.mode",
    "gpu.devices",
];

/// How many measurements a report holds, if it can be read: for those who want to know before they verify.
///
/// # Errors
/// With the offset and the field, if the report is not in its exact bounds.
pub fn measurement_count(report: &[u8]) -> Result<usize, Malformed> {
    Report::parse(report).map(|report| report.blocks.len())
}

/// Which challenge the devices must have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// This one.
    Exactly([u8; 32]),
    /// The caller named none: what the evidence itself names is compared.
    Free,
    /// It follows from a statement that could not be believed: the check is not reached.
    Unknown,
}

/// Devices that were judged. They count only if no check failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) gpus: Vec<Gpu>,
    /// When the first certificate, OCSP response or RIM runs out.
    pub(crate) good_until: UnixTime,
}

/// Makes all GPU checks. `simulated` is set as soon as a chain ends in a simulated root.
pub(crate) fn verify(
    evidence: &Evidence,
    challenge: Challenge,
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<Facts> {
    let texts = rim::texts(given.endorsements.rims());
    let responses = Responses::read(given.endorsements.ocsp_responses());
    let mut shared = Shared {
        judge: Judge { anchors: given.anchors, now: given.now, responses: &responses },
        endorsements: given.endorsements,
        challenge: &challenge,
        library: Library::read(&texts),
        known: KnownLinks::default(),
    };
    let of_one_device = &CHECKS[..CHECKS.len() - 1];
    let mut parts = Vec::with_capacity(evidence.devices.len());
    let mut judged = Vec::with_capacity(evidence.devices.len());
    for (at, device) in evidence.devices.iter().enumerate() {
        let mut part = Checklist::new(of_one_device);
        let report = device::format(device, &mut part);
        let result = report
            .as_ref()
            .and_then(|report| device::verify(device, report, &mut shared, &mut part, simulated));
        let name = match &result {
            Some(Judged { gpu, .. }) => format!("device {at} ({} {})", gpu.chip, hex::encode(&gpu.serial)),
            None => format!("device {at}"),
        };
        parts.push((name, part));
        judged.push(result.zip(report));
    }
    list.join(&parts);
    let judged: Vec<_> = judged.into_iter().collect::<Option<_>>()?;
    let good_until = judged.iter().map(|(judged, _)| judged.good_until).min()?;
    let devices: Vec<_> =
        judged.iter().map(|(judged, report)| (judged.gpu.clone(), &report.opaque)).collect();
    topology::check(&devices, list);
    Some(Facts { gpus: devices.into_iter().map(|(gpu, _)| gpu).collect(), good_until })
}
