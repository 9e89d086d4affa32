//! The PCK chain: root, PCK CA, PCK (Intel SGX PCK Certificate and CRL Profile Specification), and the quoting enclave's
//! report under it (Intel TDX DCAP Quoting Library API, A.3.11, "QE report certification data").

use std::sync::Arc;

use super::documents::Dates;
use super::ids::{Ids, NOT_THIS_HOST, finding};
use super::pck::{PckCa, PckFacts};
use super::quote::Quote;
use crate::RefusalKind::{Malformed, Signature};
use crate::anchors::{Anchor, INTEL_ROOT};
use crate::check::Checklist;
use crate::crypto::{self, Scheme, sha256};
use crate::verifier::Given;
use crate::x509::{Certificate, PublicKey};

/// A PCK chain whose signatures hold and whose certificates have the profile they must have. It does not depend on the
/// time, on anchors or on revocation: those are looked at anew each time.
#[derive(Debug)]
pub(super) struct PckChain {
    /// PCK, PCK CA, root.
    pub(super) certificates: [Vec<u8>; 3],
    /// In the same order.
    pub(super) dates: [Dates; 3],
    pub(super) facts: PckFacts,
    pub(super) ca: PckCa,
    /// The PCK's serial number, which a CRL may name.
    pub(super) serial: Vec<u8>,
    /// The PCK's public key, an uncompressed point.
    key: Vec<u8>,
}

/// Whose fault it is, and what it is.
type Fault = (crate::RefusalKind, String);

impl PckChain {
    /// Verifies two signatures: the root's under the PCK CA, the PCK CA's under the PCK. The root's own needs none: it is
    /// compared with the anchors byte for byte.
    pub(super) fn verify(certificates: [Vec<u8>; 3]) -> Result<Self, Fault> {
        let [leaf, ca, root] = &certificates;
        let (leaf, ca, root) = (parse(leaf, "PCK")?, parse(ca, "PCK CA")?, parse(root, "root")?);
        let link = |issuer: &Certificate<'_>, subject: &Certificate<'_>, name: &str| {
            issuer.issue(subject).map_err(|reason| (Signature, format!("{name}: {reason}")))
        };
        link(&root, &ca, "PCK CA")?;
        link(&ca, &leaf, "PCK")?;
        if !root.allows_authorities_below(1) {
            return Err((Signature, "the root may not have authorities below it".into()));
        }
        let by = PckCa::of_name(&ca.common_name())
            .ok_or_else(|| (Signature, format!("{:?} is no PCK CA", ca.common_name())))?;
        if !is_signer(&leaf, " SGX PCK Certificate") {
            return Err((Signature, format!("{:?} is no PCK certificate", leaf.common_name())));
        }
        let PublicKey::P256(key) = leaf.key else {
            return Err((Signature, "the PCK's key is not P-256".into()));
        };
        let dates = |certificate: &Certificate<'_>| Dates {
            from: certificate.validity.0,
            until: certificate.validity.1,
        };
        Ok(Self {
            dates: [dates(&leaf), dates(&ca), dates(&root)],
            facts: PckFacts::parse(&leaf).map_err(|error| (Malformed, error.to_string()))?,
            ca: by,
            serial: leaf.serial.to_vec(),
            key: key.to_vec(),
            certificates,
        })
    }

    /// Did this platform's certified key sign the quoting enclave's report?
    fn signed(&self, quote: &Quote<'_>) -> bool {
        crypto::holds(Scheme::P256Fixed, &self.key, quote.qe_report, quote.qe_report_signature)
    }
}

fn parse<'c>(der: &'c [u8], name: &str) -> Result<Certificate<'c>, Fault> {
    Certificate::parse(der).map_err(|error| (Malformed, format!("{name}: {error}")))
}

/// An end entity that may sign, with a subject of this kind ("Subject" in each of the specification's profiles). The kinds
/// keep a certificate from being used in another's place.
pub(super) fn is_signer(certificate: &Certificate<'_>, name: &str) -> bool {
    const DIGITAL_SIGNATURE: u8 = 0;
    !certificate.is_authority()
        && certificate.key_usage_allows(DIGITAL_SIGNATURE)
        && certificate.common_name().ends_with(name)
}

/// Establishes the chain in the quote: its root is an anchor, its signatures hold, and the PCK signed the QE's report.
pub(super) fn establish<'g>(
    quote: &Quote<'_>,
    ids: &Ids,
    given: &Given<'g>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<(Arc<PckChain>, Anchor<'g>)> {
    let known = given.cache.and_then(|cache| cache.certified(quote));
    if let Some(chain) = known {
        let anchor = root(&chain.certificates, ids, given, list, simulated)?;
        pass(&chain, ids, list);
        return Some((chain, anchor));
    }
    let chain = given.cache.and_then(|cache| cache.chain(quote));
    let (chain, anchor) = match chain {
        Some(chain) => {
            let anchor = root(&chain.certificates, ids, given, list, simulated)?;
            (chain, anchor)
        }
        None => {
            let certificates = decode(quote, ids, list)?;
            let anchor = root(&certificates, ids, given, list, simulated)?;
            let certificates = certificates.try_into().expect("an anchor is found in a chain of three alone");
            match PckChain::verify(certificates) {
                Ok(chain) => (Arc::new(chain), anchor),
                Err((kind, got)) => {
                    fail(kind, got, ids, list);
                    return None;
                }
            }
        }
    };
    if !chain.signed(quote) {
        fail(Signature, "the PCK's signature over the QE report does not hold".into(), ids, list);
        return None;
    }
    if let Some(cache) = given.cache {
        cache.keep_certified(quote, &chain);
    }
    pass(&chain, ids, list);
    Some((chain, anchor))
}

const EXPECTED: &str = "PCK chain to the root, QE report signed by the PCK";

fn pass(chain: &PckChain, ids: &Ids, list: &mut Checklist) {
    let got = format!("holds, by the {} CA: {}", chain.ca.name(), chain.facts);
    list.pass(ids.chain, EXPECTED, got, "the platform's key is genuine");
}

fn fail(kind: crate::RefusalKind, got: String, ids: &Ids, list: &mut Checklist) {
    list.fail(
        ids.chain,
        finding(kind, EXPECTED, got, "The evidence is forged or was changed", NOT_THIS_HOST),
    );
}

fn decode(quote: &Quote<'_>, ids: &Ids, list: &mut Checklist) -> Option<Vec<Vec<u8>>> {
    quote.pck_chain().map_err(|error| list.fail(ids.format, super::malformed(error.to_string()))).ok()
}

/// The root that the chain names is one of the caller's anchors.
fn root<'g>(
    certificates: &[Vec<u8>],
    ids: &Ids,
    given: &Given<'g>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<Anchor<'g>> {
    let named = match certificates {
        [_leaf, _intermediate, root] => given.anchors.find(INTEL_ROOT, root),
        _ => None,
    };
    *simulated = named.is_some_and(|anchor| anchor.simulated);
    let (got, why) = match &named {
        Some(anchor) if anchor.simulated => (
            "the SIMULATED root of a development network".to_owned(),
            "SIMULATED: no hardware protects this guest",
        ),
        Some(_) => ("Intel's root".to_owned(), "Intel vouches for the platform"),
        None => (other_root(certificates), ""),
    };
    list.require(named.is_some(), ids.root, why, || {
        finding(
            Signature,
            "PCK, intermediate and a trusted root",
            got,
            "The evidence comes from a simulated platform, or from a forged one",
            "On a development network, name its root file; elsewhere do not use this host",
        )
    });
    named
}

fn other_root(certificates: &[Vec<u8>]) -> String {
    let last = certificates.last().map(|der| hex::encode(sha256(&[der]))).unwrap_or_default();
    format!("{} certificates, the last with SHA-256 {last}", certificates.len())
}
