//! What a verifier may want to fetch before it judges: RIMs by id, and OCSP responses.

use super::architecture::Architecture;
use super::chain::{self, Chain};
use super::form::{Device, Evidence};
use super::ocsp::{Responses, answers};
use super::opaque::{Opaque, field};
use super::rim::{self, Library};
use super::spdm::Report;
use crate::crypto::{self, Scheme, sha384};
use crate::needs::{Document, Need};
use crate::x509::{Certificate, PublicKey};
use crate::{Endorsements, Malformed, RefusalKind, UnixTime};

/// NVIDIA's name for LS10's project, project SKU and chip SKU, which its reports do not give (nvtrust,
/// `nv_switch_verifier/config.py`).
const LS10_BOARD: &str = "5612_0002_890";

/// What one device's verification needs beside its evidence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NvidiaNeed {
    /// Names at NVIDIA's RIM service: the driver's, then the VBIOS'. A switch has no driver of its own.
    pub rims: Vec<String>,
    /// One OCSP request in DER for each certificate that NVIDIA's responder knows: boot ROM, provisioner, family. Firmware's
    /// own certificate is the boot ROM's work, and nobody answers for it.
    pub ocsp_requests: Vec<Vec<u8>>,
}

/// For each device, in order, what to fetch. Parts that cannot be read need nothing: verification will say why.
/// `endorsements` may hold the certificates of a raw report.
pub fn nvidia_needs(evidence: &Evidence, endorsements: &Endorsements) -> Vec<NvidiaNeed> {
    evidence.devices.iter().map(|device| need(device, endorsements).unwrap_or_default()).collect()
}

fn need(device: &Device, endorsements: &Endorsements) -> Option<NvidiaNeed> {
    let report = Report::parse(&device.report).ok()?;
    let pool = pool(device, endorsements);
    let (chain, _) = find_chain(&pool, &report)?;
    let architecture = Architecture::of_chip(&chain::chip(chain.leaf()))?;
    let authorities = chain.certificates().windows(2).skip(1);
    let ocsp_requests = authorities.map(|pair| request(&pair[0], &pair[1])).collect();
    Some(NvidiaNeed { rims: rim_ids(architecture, &report.opaque), ocsp_requests })
}

/// A device's certificates, or those that were handed over beside a raw report.
pub(super) fn pool<'a>(device: &'a Device, endorsements: &'a Endorsements) -> Vec<Certificate<'a>> {
    let own = device.certificates.iter().map(|der| &der[..]);
    let parse = |der: &'a [u8]| Certificate::parse(der).ok();
    if device.certificates.is_empty() {
        endorsements.certificates().filter_map(parse).collect()
    } else {
        own.filter_map(parse).collect()
    }
}

/// The chain whose leaf signed this report, and true; failing that, the first that could have, and false.
pub(super) fn find_chain<'a>(pool: &[Certificate<'a>], report: &Report<'_>) -> Option<(Chain<'a>, bool)> {
    let mut leaves = pool.iter().filter(|certificate| !certificate.is_authority());
    let signer = leaves.clone().find(|leaf| signed_by(report, leaf));
    let leaf = signer.or_else(|| leaves.next())?;
    Some((Chain::follow(leaf, pool), signer.is_some()))
}

fn signed_by(report: &Report<'_>, leaf: &Certificate<'_>) -> bool {
    let PublicKey::P384(key) = leaf.key else { return false };
    crypto::holds(Scheme::P384Fixed, key, report.signed, report.signature)
}

/// Names of the RIMs (nvtrust, `cc_admin_utils.py`; attestation-sdk, `get_driver_rim_id` and `get_vbios_rim_id`).
pub(super) fn rim_ids(architecture: Architecture, opaque: &Opaque<'_>) -> Vec<String> {
    versions_and_ids(architecture, opaque).into_iter().map(|(_, id)| id).collect()
}

/// The version that the device says it runs, and the RIM's name, of driver and VBIOS.
fn versions_and_ids(architecture: Architecture, opaque: &Opaque<'_>) -> Vec<(String, String)> {
    let driver = opaque.text(field::DRIVER_VERSION).and_then(|version| match architecture {
        Architecture::Hopper => Some((version.clone(), format!("NV_GPU_DRIVER_GH100_{version}"))),
        Architecture::Blackwell => {
            let chip = opaque.text(field::CHIP_INFO).unwrap_or_else(|| "GB100".to_owned());
            Some((version.clone(), format!("NV_GPU_CC_DRIVER_{chip}_{version}")))
        }
        Architecture::Ls10 => None,
    });
    let vbios = opaque.vbios_version().and_then(|version| {
        let digits = version.replace('.', "");
        if architecture == Architecture::Ls10 {
            return Some((version, format!("NV_SWITCH_BIOS_{LS10_BOARD}_{digits}")));
        }
        let part = |kind| opaque.text(kind);
        let (project, sku) = (part(field::PROJECT)?, part(field::PROJECT_SKU)?);
        Some((version, format!("NV_GPU_VBIOS_{project}_{sku}_{}_{digits}", part(field::CHIP_SKU)?)))
    });
    driver.into_iter().chain(vbios).collect()
}

/// What `endorsements` lack for these devices: RIMs, and answers about the chains of devices and of the RIMs at hand.
pub(crate) fn missing(evidence: &Evidence, endorsements: &Endorsements, at: UnixTime) -> Vec<Need> {
    let texts = rim::texts(endorsements.rims());
    let library = Library::read(&texts);
    let responses = Responses::read(endorsements.ocsp_responses());
    let mut needs = Vec::new();
    let mut add = |need: Need| {
        if !needs.contains(&need) {
            needs.push(need);
        }
    };
    let unanswered = |pair: &[Certificate<'_>]| match responses.about(&pair[0], &pair[1], at) {
        None | Some(Err((RefusalKind::Unavailable, _))) => Some(Need::Ocsp(request(&pair[0], &pair[1]))),
        Some(_) => None,
    };
    for device in &evidence.devices {
        let Ok(report) = Report::parse(&device.report) else { continue };
        let pool = pool(device, endorsements);
        let Some((chain, _)) = find_chain(&pool, &report) else { continue };
        let Some(architecture) = Architecture::of_chip(&chain::chip(chain.leaf())) else { continue };
        let mut signers = Vec::new();
        for (version, id) in versions_and_ids(architecture, &report.opaque) {
            let found = library.signers_of(&version, architecture);
            if found.is_empty() {
                add(Need::Rim(id));
            }
            signers.extend(found);
        }
        chain.certificates().windows(2).skip(1).filter_map(unanswered).for_each(&mut add);
        for signer in signers {
            signer.certificates().windows(2).filter_map(unanswered).for_each(&mut add);
        }
    }
    needs
}

/// What a RIM says of itself, which was asked for by this id. No signature is looked at; its dates are its signer's.
///
/// # Errors
/// If it is none, or another version's.
pub fn rim_document(id: &str, xml: &[u8]) -> Result<Document, Malformed> {
    let texts = rim::texts(std::iter::once(xml));
    let library = Library::read(&texts);
    match (&library.unreadable, library.version_of_only()) {
        (Some(error), _) => Err(error.clone()),
        (None, Some(version)) => {
            let plain = |text: &str| text.replace('.', "").to_ascii_uppercase();
            if !plain(id).ends_with(&plain(version)) {
                let reason = format!("asked for {id}: it is of version {:?}", version.escape_debug());
                return Err(Malformed::new("RIM", reason));
            }
            Ok(Document { from: UnixTime(0), until: None, evaluation_number: None })
        }
        (None, None) => Err(Malformed::new("RIM", "none")),
    }
}

/// What an OCSP response says of the certificate that this request asked about. No signature is looked at.
///
/// # Errors
/// If it is none, or says nothing about it, or gives no end of its validity.
pub fn ocsp_document(request: &[u8], response: &[u8]) -> Result<Document, Malformed> {
    let (from, until) = answers(request, response)?;
    Ok(Document { from, until: Some(until), evaluation_number: None })
}

/// An OCSP request (RFC 6960, 4.1) in DER that asks about one certificate of one issuer. It has no nonce, so that its answer
/// can be kept and shown later; its dates say how long it counts.
///
/// # Errors
/// If one of them is not a certificate in DER.
pub fn ocsp_request(certificate: &[u8], issuer: &[u8]) -> Result<Vec<u8>, Malformed> {
    Ok(request(&Certificate::parse(certificate)?, &Certificate::parse(issuer)?))
}

fn request(certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> Vec<u8> {
    // 2.16.840.1.101.3.4.2.2, as NVIDIA's own tools ask.
    const SHA384: &[u8] = &[0x30, 11, 0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
    let sign = if certificate.serial.first().is_some_and(|byte| byte & 0x80 != 0) { &[0][..] } else { &[] };
    let id = [
        SHA384.to_vec(),
        tlv(0x04, &sha384(&[issuer.subject])),
        tlv(0x04, &sha384(&[issuer.key.bytes()])),
        tlv(0x02, &[sign, certificate.serial].concat()),
    ];
    // OCSPRequest { tbsRequest { requestList { Request { reqCert } } } }
    (0..5).fold(id.concat(), |content, _| tlv(0x30, &content))
}

/// One element of DER with a content of less than 64 KiB.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] =
        u16::try_from(content.len()).expect("hashes and a serial number are short").to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, 0..=0x7f) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
}
