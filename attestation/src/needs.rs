//! What a verifier still wants before it judges, whatever the evidence is: the questions to the vendors' services.
//!
//! It comes from evidence and endorsements that nobody has verified: it says what to fetch, and proves nothing.

use crate::evidence::Cpu;
use crate::snp::{AmdNeeds, KeyKind, Product};
use crate::x509::Crl;
use crate::{Endorsements, Evidence, IntelNeeds, Malformed, UnixTime, azure, intel_needs, nvidia, snp};

/// One thing to ask a vendor's service for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Intel's collateral: TCB info, QE identity, both revocation lists, with their issuers' chains.
    IntelCollateral(IntelNeeds),
    /// The certificate of the key that signed an SNP report. AMD's key service hands out VCEKs; a VLEK is the cloud's to give.
    Vek(AmdNeeds),
    /// AMD's revocation list of one product.
    AmdCrl {
        /// Whose.
        product: Product,
        /// Of which kind of key.
        key: KeyKind,
    },
    /// A RIM by its name at NVIDIA's RIM service. The name is made of what the device says: check it before it becomes part of
    /// a path.
    Rim(String),
    /// The answer of NVIDIA's responder to this OCSP request in DER.
    Ocsp(Vec<u8>),
}

/// What a vendor's document says of itself, for those who keep it. Nothing was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// Not to be used before.
    pub from: UnixTime,
    /// Not to be used after; `None`: its signer's certificates alone say.
    pub until: Option<UnixTime>,
    /// `tcbEvaluationDataNumber` of Intel's documents.
    pub evaluation_number: Option<u32>,
}

/// What is missing, or not in date at `at`, for a verification of this evidence with these endorsements and those that a
/// bundle carries. Each need is named once, in the order of the devices. Parts that cannot be read need nothing: verification
/// will say why.
///
/// Some needs are seen only once others are met (the signers of a RIM, the product of an old SNP report): ask again then.
pub fn needs(evidence: &Evidence, endorsements: &Endorsements, at: UnixTime) -> Vec<Need> {
    if let Evidence::RaTls(_, inner) = evidence {
        return needs(inner, endorsements, at);
    }
    let bundle = evidence.bundle();
    let carried = bundle.map_or_else(Endorsements::none, |bundle| {
        Endorsements::of_bundle(&bundle.endorsements, bundle.event_log.as_deref())
    });
    let all = if bundle.is_some() { endorsements.or_else(carried) } else { endorsements.clone() };
    let mut needs = match evidence.cpu() {
        Some(Cpu::Tdx(quote) | Cpu::Sgx(quote)) => intel(quote, &all, at),
        Some(Cpu::Snp(report)) => snp::missing(report, &all, at),
        Some(Cpu::Azure(json, kind)) => azure(json, kind, &all, at),
        None => Vec::new(),
    };
    let bundled = bundle.and_then(|bundle| nvidia::Evidence::of_records(&bundle.gpu).ok());
    let devices = match evidence {
        Evidence::Nvidia(devices) => Some(devices),
        _ => bundled.as_ref(),
    };
    needs.extend(devices.into_iter().flat_map(|devices| nvidia::missing(devices, &all, at)));
    needs
}

fn intel(quote: &[u8], endorsements: &Endorsements, at: UnixTime) -> Vec<Need> {
    let Ok(needs) = intel_needs(quote) else { return Vec::new() };
    let mut files = endorsements.intel();
    let met = match (files.next(), files.next()) {
        (Some(one), None) => needs.met_by(one, endorsements.canonical(), at),
        _ => false,
    };
    if met { Vec::new() } else { vec![Need::IntelCollateral(needs)] }
}

/// The hardware's report is inside the paravisor's, and the VCEK beside it.
fn azure(json: &[u8], kind: azure::Kind, endorsements: &Endorsements, at: UnixTime) -> Vec<Need> {
    match azure::hardware_unverified(json, kind) {
        Some(azure::BelowUnverified::Tdx(quote)) => intel(&quote, endorsements, at),
        Some(azure::BelowUnverified::Snp(report, certificates)) => {
            let mut all = endorsements.clone();
            certificates.into_iter().for_each(|certificate| all.push(certificate));
            snp::missing(&report, &all, at)
        }
        None => Vec::new(),
    }
}

impl Evidence {
    /// The Intel quote in it, alone, in a bundle or below Azure's paravisor: what [`crate::evaluation_mark`] takes.
    pub fn intel_quote(&self) -> Option<Vec<u8>> {
        if let Self::RaTls(_, inner) = self {
            return inner.intel_quote();
        }
        match self.cpu()? {
            Cpu::Tdx(quote) | Cpu::Sgx(quote) => Some(quote.to_vec()),
            Cpu::Snp(_) => None,
            Cpu::Azure(json, kind) => match azure::hardware_unverified(json, kind)? {
                azure::BelowUnverified::Tdx(quote) => Some(quote),
                azure::BelowUnverified::Snp(..) => None,
            },
        }
    }
}

/// What a revocation list in DER says of itself, and its issuer's common name. No signature is looked at.
///
/// # Errors
/// If it is none that this verifier reads.
pub fn crl_document(der: &[u8]) -> Result<(Document, String), Malformed> {
    let crl = Crl::parse(der)?;
    let document = Document { from: crl.this_update, until: Some(crl.next_update), evaluation_number: None };
    Ok((document, crl.issuer_common_name()))
}
