//! Intel's collateral: what Intel signed about the platform, its TCB, and what is revoked.

use dcap_qvl::{QuoteCollateralV3, TcbInfo};
use serde::{Deserialize, Serialize};

use crate::bundle::MAX_BUNDLE;
use crate::{Malformed, UnixTime, pem};

/// How chains in collateral may end: as Intel's service sends them.
const ENDINGS: [&str; 2] = ["\n", "\n\n"];

/// Collateral in the field names of Intel's PCS; byte fields are hex, documents are kept as their raw text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pck_certificate_chain: Option<String>,
}

/// Parsed, but not yet believed.
pub(crate) struct Collateral {
    pub(crate) raw: QuoteCollateralV3,
    pub(crate) tcb_info: TcbInfo,
    pub(crate) tcb_info_dates: Dates,
    pub(crate) qe_identity_dates: Dates,
    pub(crate) pck_crl_chain: Vec<Vec<u8>>,
    pub(crate) tcb_info_chain: Vec<Vec<u8>>,
    pub(crate) qe_identity_chain: Vec<Vec<u8>>,
}

/// Validity of a signed document.
#[derive(Clone, Copy)]
pub(crate) struct Dates {
    pub(crate) issued: UnixTime,
    pub(crate) next_update: UnixTime,
}

impl Dates {
    pub(crate) fn contain(&self, now: UnixTime) -> bool {
        self.issued <= now && now <= self.next_update
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated {
    issue_date: String,
    next_update: String,
}

fn dates(document: &str, name: &str) -> Result<Dates, String> {
    let dated: Dated = serde_json::from_str(document).map_err(|e| format!("{name}: {e}"))?;
    let read =
        |text: &str| UnixTime::from_rfc3339(text).ok_or_else(|| format!("{name}: {text:?} is no date"));
    Ok(Dates { issued: read(&dated.issue_date)?, next_update: read(&dated.next_update)? })
}

impl Collateral {
    /// Parses collateral. From a bundle it must be `canonical`: exactly what
    /// [`canonical_collateral`] gives.
    pub(crate) fn parse(json: &[u8], canonical: bool) -> Result<Self, String> {
        if json.len() > MAX_BUNDLE {
            return Err(format!("{} bytes, at most {MAX_BUNDLE}", json.len()));
        }
        let text: Text = serde_json::from_slice(json).map_err(|e| format!("not Intel collateral: {e}"))?;
        let bytes = |hex_text: &str| hex::decode(hex_text).map_err(|e| format!("not hex: {e}"));
        let raw = QuoteCollateralV3 {
            root_ca_crl: bytes(&text.root_ca_crl)?,
            pck_crl: bytes(&text.pck_crl)?,
            tcb_info_signature: bytes(&text.tcb_info_signature)?,
            qe_identity_signature: bytes(&text.qe_identity_signature)?,
            pck_crl_issuer_chain: text.pck_crl_issuer_chain,
            tcb_info_issuer_chain: text.tcb_info_issuer_chain,
            tcb_info: text.tcb_info,
            qe_identity_issuer_chain: text.qe_identity_issuer_chain,
            qe_identity: text.qe_identity,
            pck_certificate_chain: text.pck_certificate_chain,
        };
        if canonical && to_canonical(&raw) != json {
            return Err("not in canonical form".to_owned());
        }
        Self::from_raw(raw)
    }

    fn from_raw(raw: QuoteCollateralV3) -> Result<Self, String> {
        let chain = |text: &str| pem::chain(text.as_bytes(), &ENDINGS);
        Ok(Self {
            tcb_info: serde_json::from_str(&raw.tcb_info).map_err(|e| format!("TCB info: {e}"))?,
            tcb_info_dates: dates(&raw.tcb_info, "TCB info")?,
            qe_identity_dates: dates(&raw.qe_identity, "QE identity")?,
            pck_crl_chain: chain(&raw.pck_crl_issuer_chain)?,
            tcb_info_chain: chain(&raw.tcb_info_issuer_chain)?,
            qe_identity_chain: chain(&raw.qe_identity_issuer_chain)?,
            raw,
        })
    }
}

/// Intel's collateral in the one form a bundle may carry: these fields only, in order, hex in lower case, no white space.
/// What Intel signed is inside as text and is not touched.
///
/// # Errors
/// If `json` is not Intel's collateral, or a chain in it is not in Intel's form.
pub fn canonical_collateral(json: &[u8]) -> Result<Vec<u8>, Malformed> {
    let collateral = Collateral::parse(json, false).map_err(|e| Malformed::new("collateral", e))?;
    Ok(to_canonical(&collateral.raw))
}

fn to_canonical(raw: &QuoteCollateralV3) -> Vec<u8> {
    let raw = raw.clone();
    let text = Text {
        pck_crl_issuer_chain: raw.pck_crl_issuer_chain,
        root_ca_crl: hex::encode(raw.root_ca_crl),
        pck_crl: hex::encode(raw.pck_crl),
        tcb_info_issuer_chain: raw.tcb_info_issuer_chain,
        tcb_info: raw.tcb_info,
        tcb_info_signature: hex::encode(raw.tcb_info_signature),
        qe_identity_issuer_chain: raw.qe_identity_issuer_chain,
        qe_identity: raw.qe_identity,
        qe_identity_signature: hex::encode(raw.qe_identity_signature),
        pck_certificate_chain: raw.pck_certificate_chain,
    };
    serde_json::to_vec(&text).expect("strings always encode")
}
