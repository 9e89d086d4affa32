//! What the issuer says: TCB info, QE identity and revocation lists, each under its own signature (Intel PCS API v4; Intel
//! SGX PCK Certificate and CRL Profile Specification, "CRL").

use super::chain::{PckChain, is_signer};
use super::documents::{Dates, QeIdentity, TcbInfo};
use super::ids::{Ids, NOT_THIS_HOST, REFETCH, finding};
use crate::RefusalKind::{self, Malformed, Rejected, Signature, Unavailable};
use crate::check::Checklist;
use crate::collateral::{Collateral, Signed};
use crate::crypto::{self, Scheme};
use crate::pem;
use crate::x509::{Certificate, Crl, PublicKey};

/// How chains in collateral may end: as Intel's service and the tools around it write them.
const ENDINGS: [&str; 4] = ["", "\n", "\n\n", "\n\0"];

/// What the issuer signed, every signature verified. It does not depend on the time, on anchors, on exceptions or on the
/// quote: those are looked at anew each time.
#[derive(Debug)]
pub(super) struct Vouched {
    /// PCK CA and root, which the quote's chain must have too.
    pub(super) authorities: [Vec<u8>; 2],
    pub(super) tcb_info: TcbInfo,
    pub(super) qe_identity: QeIdentity,
    /// The PCK CA's list, in DER.
    pub(super) pck_crl: Vec<u8>,
    /// Of everything that is here.
    pub(super) dates: Vec<(&'static str, Dates)>,
    /// The PCK chain beside the quote, if one is given.
    pub(super) pck_chain: Option<Vec<Vec<u8>>>,
}

type Fault = (RefusalKind, String);

/// What the checks of this file want, and what they mean when they hold.
pub(super) mod wanted {
    pub(crate) const COLLATERAL: &str =
        "Intel's collateral for this platform, complete, its chains ending in the quote's root";
    pub(crate) const CRL: &str = "root and PCK CRLs signed by their issuers, nothing revoked";
    pub(crate) const TCB_INFO: &str = "TCB info of this kind of quote, signed by the root's signer";
    pub(crate) const QE_IDENTITY: &str = "QE identity signed by the root's signer and met by the QE";
}

impl Vouched {
    /// Verifies all signatures in the collateral; those of the chain it shares with the quote were verified before. What
    /// does not hold is put on the list, each under its own check.
    pub(super) fn verify(
        collateral: Collateral<'_>,
        chain: &PckChain,
        ids: &Ids,
        list: &mut Checklist,
    ) -> Option<Self> {
        let chains = match Chains::decode(&collateral, chain) {
            Ok(chains) => chains,
            Err((kind, got)) => {
                let likely = "The collateral is another platform's, or was changed";
                list.fail(ids.collateral, finding(kind, wanted::COLLATERAL, got, likely, REFETCH));
                return None;
            }
        };
        let [_, ca, root] = chain.certificates.each_ref().map(|der| Certificate::parse(der));
        let (ca, root) = (ca.expect("read when the chain was verified"), root.expect("read with it"));
        let mut dates = Vec::with_capacity(6);
        let root_crl = crls(&collateral, &root, &ca, ids, list, &mut dates);
        let signers = signers(&chains, &root, root_crl.as_ref(), ids, list, &mut dates);
        let documents = signers.and_then(|signers| documents(&collateral, &signers, ids, list, &mut dates));
        let (Some(_), Some((tcb_info, qe_identity))) = (root_crl, documents) else { return None };
        let authorities = [ca.raw.to_vec(), root.raw.to_vec()];
        Some(Self {
            authorities,
            tcb_info,
            qe_identity,
            pck_crl: collateral.pck_crl,
            dates,
            pck_chain: chains.pck_chain,
        })
    }
}

/// The chains that came with the collateral.
struct Chains {
    tcb_signer: Vec<u8>,
    /// None if it is the same, as Intel's always was.
    qe_signer: Option<Vec<u8>>,
    pck_chain: Option<Vec<Vec<u8>>>,
}

impl Chains {
    fn decode(collateral: &Collateral<'_>, chain: &PckChain) -> Result<Self, Fault> {
        let decode = |text: &str, name: &str| {
            pem::chain(text.as_bytes(), &ENDINGS).map_err(|error| (Malformed, format!("{name}: {error}")))
        };
        let [_, ca, root] = &chain.certificates;
        let by = decode(&collateral.pck_crl_issuer_chain, "PCK CRL issuer chain")?;
        if by.len() != 2 || by[0] != *ca || by[1] != *root {
            return Err((Signature, "the PCK CRL's issuer chain is not the quote's".into()));
        }
        let signer = |text: &str, name: &str| match &mut decode(text, name)?[..] {
            [signer, end] if end == root => Ok(std::mem::take(signer)),
            _ => Err((Signature, format!("{name} is not a signer and the quote's root"))),
        };
        let tcb_signer = signer(&collateral.tcb_info_issuer_chain, "TCB info issuer chain")?;
        let same = collateral.tcb_info_issuer_chain == collateral.qe_identity_issuer_chain;
        let qe_signer = match same {
            true => None,
            false => Some(signer(&collateral.qe_identity_issuer_chain, "QE identity issuer chain")?)
                .filter(|signer| *signer != tcb_signer),
        };
        let beside = collateral.pck_certificate_chain.as_deref();
        let pck_chain = beside.map(|text| decode(text, "PCK certificate chain")).transpose()?;
        Ok(Self { tcb_signer, qe_signer, pck_chain })
    }
}

/// Both CRLs by the right issuers. Gives back the root's.
fn crls<'c>(
    collateral: &'c Collateral<'_>,
    root: &Certificate<'_>,
    ca: &Certificate<'_>,
    ids: &Ids,
    list: &mut Checklist,
    dates: &mut Vec<(&'static str, Dates)>,
) -> Option<Crl<'c>> {
    let mut both = || -> Result<Crl<'c>, Fault> {
        let root_crl = crl(&collateral.root_ca_crl, "root CRL", root, dates)?;
        crl(&collateral.pck_crl, "PCK CRL", ca, dates)?;
        for (name, certificate) in [("root", root), ("PCK CA", ca)] {
            if root_crl.revokes(certificate) {
                return Err((Rejected, format!("the {name} is revoked")));
            }
        }
        Ok(root_crl)
    };
    both().map_err(|(kind, got)| list.fail(ids.crl, not_on_list(kind, got))).ok()
}

fn crl<'c>(
    der: &'c [u8],
    name: &'static str,
    issuer: &Certificate<'_>,
    dates: &mut Vec<(&'static str, Dates)>,
) -> Result<Crl<'c>, Fault> {
    if der.is_empty() {
        return Err((Unavailable, format!("the {name} is missing")));
    }
    let crl = Crl::parse(der).map_err(|error| (Malformed, format!("{name}: {error}")))?;
    crl.issued_by(issuer).map_err(|reason| (Signature, format!("{name}: {reason}")))?;
    dates.push((name, Dates { from: crl.this_update, until: crl.next_update }));
    Ok(crl)
}

/// The finding of anything that is wrong with a CRL, or because of one.
pub(super) fn not_on_list(kind: RefusalKind, got: String) -> crate::check::Finding {
    let (likely, remedy) = match kind {
        Rejected => ("Intel revoked this platform or authority", NOT_THIS_HOST),
        _ => ("A revocation list is missing, forged or another's", REFETCH),
    };
    finding(kind, wanted::CRL, got, likely, remedy)
}

/// Public keys of those who sign TCB info and QE identity.
type Signers = [Vec<u8>; 2];

/// The signers are end entities under the root, for this purpose, and not revoked.
fn signers(
    chains: &Chains,
    root: &Certificate<'_>,
    root_crl: Option<&Crl<'_>>,
    ids: &Ids,
    list: &mut Checklist,
    dates: &mut Vec<(&'static str, Dates)>,
) -> Option<Signers> {
    let mut signer = |der: &[u8]| -> Result<Vec<u8>, Fault> {
        let signer = Certificate::parse(der).map_err(|error| (Malformed, format!("TCB signer: {error}")))?;
        root.issue(&signer).map_err(|reason| (Signature, format!("TCB signer: {reason}")))?;
        if !is_signer(&signer, " SGX TCB Signing") {
            return Err((Signature, format!("{:?} may not sign this", signer.common_name())));
        }
        if root_crl.is_some_and(|crl| crl.revokes(&signer)) {
            return Err((Rejected, "its signer is revoked".into()));
        }
        let PublicKey::P256(key) = signer.key else {
            return Err((Signature, "its signer's key is not P-256".into()));
        };
        dates.push(("TCB signer", Dates { from: signer.validity.0, until: signer.validity.1 }));
        Ok(key.to_vec())
    };
    let tcb = signer(&chains.tcb_signer);
    let qe = chains.qe_signer.as_ref().map_or_else(|| tcb.clone(), |der| signer(der));
    for (id, expected, result) in
        [(ids.tcb_info, wanted::TCB_INFO, &tcb), (ids.qe_identity, wanted::QE_IDENTITY, &qe)]
    {
        if let Err((kind, got)) = result {
            list.fail(id, changed(*kind, expected, got.clone()));
        }
    }
    Some([tcb.ok()?, qe.ok()?])
}

/// Both documents, each signed and well formed.
fn documents(
    collateral: &Collateral<'_>,
    [tcb_signer, qe_signer]: &Signers,
    ids: &Ids,
    list: &mut Checklist,
    dates: &mut Vec<(&'static str, Dates)>,
) -> Option<(TcbInfo, QeIdentity)> {
    let tcb_info = document(&collateral.tcb_info, tcb_signer, TcbInfo::parse);
    let qe_identity = document(&collateral.qe_identity, qe_signer, QeIdentity::parse);
    if let Err((kind, got)) = &tcb_info {
        list.fail(ids.tcb_info, changed(*kind, wanted::TCB_INFO, got.clone()));
    }
    if let Err((kind, got)) = &qe_identity {
        list.fail(ids.qe_identity, changed(*kind, wanted::QE_IDENTITY, got.clone()));
    }
    dates.extend(tcb_info.iter().map(|info| ("TCB info", info.dates)));
    dates.extend(qe_identity.iter().map(|identity| ("QE identity", identity.dates)));
    tcb_info.ok().zip(qe_identity.ok())
}

fn document<T>(
    signed: &Signed<'_>,
    signer: &[u8],
    parse: impl FnOnce(&str) -> Result<T, crate::Malformed>,
) -> Result<T, Fault> {
    if !crypto::holds(Scheme::P256Fixed, signer, signed.text.as_bytes(), &signed.signature) {
        return Err((Signature, "its signature does not hold".into()));
    }
    parse(&signed.text).map_err(|error| (Malformed, error.to_string()))
}

fn changed(kind: RefusalKind, expected: &str, got: String) -> crate::check::Finding {
    finding(kind, expected, got, "The document was changed, or is not the issuer's", REFETCH)
}
