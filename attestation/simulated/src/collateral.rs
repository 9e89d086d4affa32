//! Collateral: what the issuer publishes about the platform.

use cocoon_attestation::UnixTime;
use serde_json::{Value, json};

use crate::pki::{self, Revoked, SimulatedRoot, pem};
use crate::quote::{self, TEE_TCB_SVN};

const HOUR: u64 = 3_600;
const DAYS_VALID: u64 = 30;
/// Grows when the simulated platform's published TCB changes.
const EVALUATION_NUMBER: u32 = 1;

/// The issuer's documents before they are signed. A test changes one thing in them, and what is signed then carries a
/// genuine signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// TCB info, version 3, as JSON text.
    pub tcb_info: String,
    /// QE identity, version 2, as JSON text.
    pub qe_identity: String,
    /// Root CA's CRL in DER.
    pub root_ca_crl: Vec<u8>,
    /// PCK CA's CRL in DER.
    pub pck_crl: Vec<u8>,
}

impl SimulatedRoot {
    /// The documents as published an hour before `now`, valid for 30 days.
    pub fn documents(&self, now: UnixTime) -> Documents {
        let (root_ca_crl, pck_crl) = self.crls(now, None);
        let dates = (UnixTime(now.0.saturating_sub(HOUR)), UnixTime(now.0 + DAYS_VALID * 24 * HOUR));
        Documents {
            tcb_info: tcb_info(dates).to_string(),
            qe_identity: qe_identity(dates).to_string(),
            root_ca_crl,
            pck_crl,
        }
    }

    /// Collateral for this platform, signed at `now`, in canonical form.
    pub fn collateral(&self, now: UnixTime) -> Vec<u8> {
        self.endorse(&self.documents(now))
    }

    /// Signs documents into collateral in canonical form.
    pub fn endorse(&self, documents: &Documents) -> Vec<u8> {
        let pki = &self.0;
        let pck_crl_chain = pem(&[&pki.pck_ca.certificate, &pki.root.certificate]);
        let signer_chain = pem(&[&pki.tcb_signer.certificate, &pki.root.certificate]);
        let signature = |text: &str| hex::encode(pki.tcb_signer.key.sign_raw(text.as_bytes()));
        let collateral = json!({
            "pck_crl_issuer_chain": pck_crl_chain,
            "root_ca_crl": hex::encode(&documents.root_ca_crl),
            "pck_crl": hex::encode(&documents.pck_crl),
            "tcb_info_issuer_chain": signer_chain,
            "tcb_info": documents.tcb_info,
            "tcb_info_signature": signature(&documents.tcb_info),
            "qe_identity_issuer_chain": signer_chain,
            "qe_identity": documents.qe_identity,
            "qe_identity_signature": signature(&documents.qe_identity),
        });
        let text = collateral.to_string();
        // A test may put nonsense into the documents: then the text stays as it is, for the verifier to refuse.
        cocoon_attestation::canonical_collateral(text.as_bytes()).unwrap_or_else(|_| text.into_bytes())
    }

    /// As [`SimulatedRoot::documents`], with a certificate revoked.
    pub fn documents_revoking(&self, revoked: Revoked, now: UnixTime) -> Documents {
        let (root_ca_crl, pck_crl) = self.crls(now, Some(revoked));
        Documents { root_ca_crl, pck_crl, ..self.documents(now) }
    }
}

fn components(svns: &[u8]) -> Value {
    svns.iter().map(|svn| json!({ "svn": svn })).collect()
}

fn tcb_info((issued, next_update): (UnixTime, UnixTime)) -> Value {
    let module = json!({
        "mrsigner": hex::encode(quote::module_signer()),
        "attributes": "0000000000000000",
        "attributesMask": "FFFFFFFFFFFFFFFF",
    });
    let level = |svn: u8, status: &str| json!({ "tcb": { "isvsvn": svn }, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status });
    let mut identity = module.clone();
    identity["id"] = json!(format!("TDX_{:02X}", TEE_TCB_SVN[1]));
    identity["tcbLevels"] = json!([level(TEE_TCB_SVN[0], "UpToDate"), level(2, "OutOfDate")]);
    json!({
        "id": "TDX",
        "version": 3,
        "issueDate": issued.to_string(),
        "nextUpdate": next_update.to_string(),
        "fmspc": hex::encode(pki::FMSPC),
        "pceId": hex::encode(pki::PCE_ID),
        "tcbType": 0,
        "tcbEvaluationDataNumber": EVALUATION_NUMBER,
        "tdxModule": module,
        "tdxModuleIdentities": [identity],
        "tcbLevels": [{
            "tcb": {
                "sgxtcbcomponents": components(&pki::CPU_SVN),
                "pcesvn": pki::PCE_SVN,
                "tdxtcbcomponents": components(&TEE_TCB_SVN),
            },
            "tcbDate": "2026-01-01T00:00:00Z",
            "tcbStatus": "UpToDate",
        }],
    })
}

fn qe_identity((issued, next_update): (UnixTime, UnixTime)) -> Value {
    json!({
        "id": "TD_QE",
        "version": 2,
        "issueDate": issued.to_string(),
        "nextUpdate": next_update.to_string(),
        "tcbEvaluationDataNumber": EVALUATION_NUMBER,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": hex::encode(quote::QE_ATTRIBUTES),
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode(quote::qe_signer()),
        "isvprodid": quote::QE_PRODUCT,
        "tcbLevels": [{
            "tcb": { "isvsvn": quote::QE_SVN },
            "tcbDate": "2026-01-01T00:00:00Z",
            "tcbStatus": "UpToDate",
        }],
    })
}
