//! Which collateral a quote needs, and whether some answers to that.

use super::chain::PckChain;
use super::documents::{Dates, QeIdentity, TcbInfo};
use super::ids::{SGX, TDX};
use super::issuer::Vouched;
use super::pck::{PckCa, PckFacts};
use super::platform::evaluation_number;
use super::quote::{self, Quote};
use crate::anchors::INTEL_ROOT;
use crate::check::Checklist;
use crate::collateral::{Collateral, Part, signed_part};
use crate::crypto::sha256;
use crate::needs::Document;
use crate::x509::{Certificate, Crl};
use crate::{Malformed, TrustAnchors, UnixTime};

/// What to ask Intel's PCS, or a cache of it, for. From an unverified quote: it says what to fetch, and proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntelNeeds {
    /// Family of the platform: `fmspc` of "Get TCB Info".
    pub fmspc: [u8; 6],
    /// Issuer of the PCK: `ca` of "Get PCK Cert CRL".
    pub ca: PckCa,
    /// `tdx` or `sgx`: whose TCB info and QE identity.
    pub tee: IntelTee,
    /// SHA-256 of the root that the quote names: rollback marks of one root say nothing about another's platforms.
    pub root: [u8; 32],
}

/// Intel's kinds of TEE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntelTee {
    /// Enclaves.
    Sgx,
    /// Trust domains.
    Tdx,
}

impl IntelTee {
    /// `sgx` or `tdx`: the first part of the path in Intel's PCS API v4.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
        }
    }
}

/// Reads from a quote which collateral verifies it.
///
/// # Errors
/// If it is not a TDX or SGX quote with a PCK chain by one of Intel's two PCK authorities.
pub fn intel_needs(quote: &[u8]) -> Result<IntelNeeds, Malformed> {
    let quote = Quote::parse(quote)?;
    let missing =
        |reason: String| Malformed { what: "Intel quote", offset: None, field: "PCK chain", reason };
    let chain = quote.pck_chain()?;
    let leaf = Certificate::parse(chain.first().ok_or_else(|| missing("empty".into()))?)?;
    let issuer = leaf.issuer_common_name();
    Ok(IntelNeeds {
        fmspc: PckFacts::parse(&leaf)?.fmspc,
        ca: PckCa::of_name(&issuer).ok_or_else(|| {
            missing(format!("{issuer:?} is neither Intel's processor CA nor its platform CA"))
        })?,
        tee: if quote.tee_type == quote::SGX { IntelTee::Sgx } else { IntelTee::Tdx },
        root: sha256(&[chain.last().map_or(&[][..], |root| root)]),
    })
}

impl IntelNeeds {
    /// Is this collateral for such a quote, complete, and in date? No signature is looked at.
    pub(crate) fn met_by(&self, collateral: &[u8], canonical: bool, at: UnixTime) -> bool {
        let met = || -> Result<bool, Malformed> {
            let collateral = Collateral::parse(collateral, canonical)?;
            let (info, identity) = (
                TcbInfo::parse(&collateral.tcb_info.text)?,
                QeIdentity::parse(&collateral.qe_identity.text)?,
            );
            let crls = [Crl::parse(&collateral.root_ca_crl)?, Crl::parse(&collateral.pck_crl)?];
            Ok(self.is_of(&info)
                && self.tee.is_of(&identity)
                && [info.dates, identity.dates].iter().all(|dates| dates.contain(at))
                && crls.iter().all(|crl| crl.in_date(at)))
        };
        met().unwrap_or(false)
    }

    /// What the answer to "Get TCB Info" says of itself (Intel PCS API v4). No signature is looked at.
    ///
    /// # Errors
    /// If it is none, or of another family or kind than was asked for.
    pub fn tcb_info(&self, answer: &[u8]) -> Result<Document, Malformed> {
        let info = TcbInfo::parse(signed_part(answer, Part::TcbInfo)?)?;
        if !self.is_of(&info) {
            let of = format!("{:?} of {}", info.id, hex::encode(info.fmspc));
            return Err(Malformed::new("TCB info", format!("asked for another: it is {of}")));
        }
        Ok(Document::new(info.dates, Some(info.evaluation_number)))
    }

    fn is_of(&self, info: &TcbInfo) -> bool {
        let same_kind = match self.tee {
            IntelTee::Tdx => info.id.as_deref() == Some("TDX"),
            IntelTee::Sgx => info.id.as_deref().is_none_or(|id| id == "SGX"),
        };
        same_kind && info.fmspc == self.fmspc
    }
}

impl IntelTee {
    /// What the answer to "Get Enclave Identity" says of itself (Intel PCS API v4). No signature is looked at.
    ///
    /// # Errors
    /// If it is none, or another enclave's.
    pub fn qe_identity(self, answer: &[u8]) -> Result<Document, Malformed> {
        let identity = QeIdentity::parse(signed_part(answer, Part::QeIdentity)?)?;
        if !self.is_of(&identity) {
            return Err(Malformed::new("QE identity", format!("asked for another: it is {:?}", identity.id)));
        }
        Ok(Document::new(identity.dates, Some(identity.evaluation_number)))
    }

    fn is_of(self, identity: &QeIdentity) -> bool {
        identity.id == if self == Self::Sgx { "QE" } else { "TD_QE" }
    }
}

/// A `tcbEvaluationDataNumber` that the issuer signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluationMark {
    /// The lower of TCB info's and QE identity's.
    pub number: u32,
    /// When both had been published: a verification as of an earlier time may show lower numbers.
    pub from: UnixTime,
}

/// What collateral may raise a rollback mark to: every signature in it holds up to the root that the quote names, and that is
/// an anchor. Dates, revocation of the platform and its TCB are not looked at: this is no verdict.
pub fn evaluation_mark(quote: &[u8], collateral: &[u8], anchors: &TrustAnchors) -> Option<EvaluationMark> {
    let quote = Quote::parse(quote).ok()?;
    let ids = if quote.tee_type == quote::SGX { &SGX } else { &TDX };
    let chain = PckChain::verify(quote.pck_chain().ok()?.try_into().ok()?).ok()?;
    anchors.find(INTEL_ROOT, chain.certificates.last()?)?;
    let mut list = Checklist::new(&[ids.collateral, ids.crl, ids.tcb_info, ids.qe_identity]);
    let vouched = Vouched::verify(Collateral::parse(collateral, false).ok()?, &chain, ids, &mut list)?;
    let from = vouched.tcb_info.dates.from.max(vouched.qe_identity.dates.from);
    (!list.failed() && vouched.tcb_info.fmspc == chain.facts.fmspc)
        .then(|| EvaluationMark { number: evaluation_number(&vouched), from })
}

impl Document {
    fn new(dates: Dates, evaluation_number: Option<u32>) -> Self {
        Self { from: dates.from, until: Some(dates.until), evaluation_number }
    }
}
