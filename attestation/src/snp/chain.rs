//! VEK ← ASK or ASVK ← ARK: who vouches for the key that signed (AMD 57230).
//!
//! AMD's own ARKs, ASKs and ASVKs are pinned, and each ARK's signature over its two intermediates is a test of this crate:
//! a check costs one RSA signature. An intermediate that AMD issues anew can be given as an endorsement, and so can a
//! simulated platform's whole chain; then the ARK's signature is verified too.

use super::product::{KeyKind, Product};
use super::report::Report;
use super::vek::{Vek, is_vek};
use crate::anchors::Anchor;
use crate::check::{Checklist, Finding};
use crate::verifier::Given;
use crate::x509::{Certificate, Crl, NotIssued};
use crate::{Malformed, RefusalKind, UnixTime};

/// Most intermediates by the name that the VEK's issuer has: each costs two RSA signatures.
const MAX_INTERMEDIATES: usize = 4;

const REFETCH: &str = "Fetch the certificates again from AMD's key service (kdsintf.amd.com)";

/// Who vouches for a VEK.
pub(crate) struct Chain<'a> {
    pub(crate) root: Certificate<'a>,
    pub(crate) intermediate: Certificate<'a>,
    pub(crate) simulated: bool,
    /// By the intermediate's name.
    pub(crate) product: Option<(Product, KeyKind)>,
}

fn finding(
    kind: RefusalKind,
    expected: impl Into<String>,
    got: impl Into<String>,
    likely: &str,
    remedy: &str,
) -> Finding {
    Finding { kind, expected: expected.into(), got: got.into(), likely: likely.into(), remedy: remedy.into() }
}

/// Among all certificates given, the VEK that fits the report best.
pub(crate) fn find_vek<'a>(report: &Report, given: &Given<'a>, list: &mut Checklist) -> Option<Vek<'a>> {
    let kind = report.signing_key().map_or("VCEK or VLEK", KeyKind::name);
    let expected = format!("the {kind} certificate of this chip and TCB");
    let mut broken: Option<Malformed> = None;
    let mut best: Option<(usize, Vek<'a>)> = None;
    for der in given.endorsements.certificates() {
        // Parsed once before, when the endorsements were sorted.
        let Ok(certificate) = Certificate::parse(der) else { continue };
        if !is_vek(&certificate) {
            continue;
        }
        match Vek::read(certificate) {
            Ok(vek) => {
                let fit = fit(report, &vek);
                if best.as_ref().is_none_or(|(other, _)| *other < fit) {
                    best = Some((fit, vek));
                }
            }
            Err(error) => broken = Some(error),
        }
    }
    match (best, broken) {
        (Some((_, vek)), _) => {
            let got = format!(
                "a {} of {}, valid until {}",
                vek.kind.name(),
                vek.product.name(),
                vek.certificate.validity.1
            );
            list.pass("snp.vek", expected, got, "the key's certificate is at hand");
            Some(vek)
        }
        (None, Some(error)) => {
            let likely = "The certificate was changed, or AMD changed its form";
            list.fail(
                "snp.vek",
                finding(RefusalKind::Malformed, expected, error.to_string(), likely, REFETCH),
            );
            None
        }
        (None, None) => {
            let likely = "The endorsement is missing";
            list.fail("snp.vek", finding(RefusalKind::Unavailable, expected, "none", likely, REFETCH));
            None
        }
    }
}

fn fit(report: &Report, vek: &Vek<'_>) -> usize {
    let kind = report.signing_key() == Some(vek.kind);
    let chip = !vek.hardware_id.is_empty() && report.chip_id.starts_with(vek.hardware_id);
    4 * usize::from(kind) + 2 * usize::from(chip) + usize::from(report.reported_tcb == vek.tcb)
}

/// Builds the chain, and judges root and signatures. What is returned may be of a chain that does not hold: then a check
/// has failed.
pub(crate) fn build<'a>(
    vek: &Vek<'_>,
    given: &Given<'a>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<Chain<'a>> {
    let mut attempts = candidates(vek, given);
    let holding = attempts.iter().position(|(_, result)| result.is_ok());
    let (chain, result) = match (holding, attempts.is_empty()) {
        (Some(at), _) => attempts.swap_remove(at),
        (None, false) => attempts.swap_remove(0),
        (None, true) => {
            list.fail("snp.root", unknown_root(vek));
            return None;
        }
    };
    *simulated = chain.simulated;
    let (got, why) = if chain.simulated {
        (
            "the SIMULATED root of a development network".to_owned(),
            "SIMULATED: no hardware protects this guest",
        )
    } else {
        (format!("AMD's {}", chain.root.common_name()), "AMD vouches for the platform")
    };
    list.pass("snp.root", "AMD's root key of the product, or a simulated one that was named", got, why);
    list.require(result.is_ok(), "snp.chain", "the key that signed is the hardware's", || {
        finding(
            RefusalKind::Signature,
            format!("{} signed by {}, that by the root", vek.kind.name(), chain.intermediate.common_name()),
            match result {
                Ok(()) => "holds".to_owned(),
                Err(reason) => format!("of a certificate: {reason}"),
            },
            "The certificate is forged or was changed",
            REFETCH,
        )
    });
    Some(chain)
}

/// Chains that end in a known root and whose intermediate has the name of the VEK's issuer, with what came out of their
/// signatures. AMD's own comes first.
fn candidates<'a>(vek: &Vek<'_>, given: &Given<'a>) -> Vec<(Chain<'a>, Result<(), NotIssued>)> {
    let mut found = Vec::new();
    let named = Product::of_intermediate(&vek.certificate.issuer_common_name());
    if let Some((product, kind)) = named {
        let pinned = product.pinned();
        let parse = |der| Certificate::parse(der).expect("pinned certificates are read by a test");
        let (root, intermediate) = (parse(pinned.root), parse(pinned.intermediate(kind)));
        if intermediate.subject == vek.certificate.issuer {
            let result = intermediate.issue(&vek.certificate);
            found.push((Chain { root, intermediate, simulated: false, product: named }, result));
            if result.is_ok() {
                return found;
            }
        }
    }
    for intermediate in intermediates(vek, given) {
        for (root, simulated) in roots(named, given) {
            if root.subject != intermediate.issuer {
                continue;
            }
            let intermediate = intermediate.clone();
            let result = root.issue(&intermediate).and_then(|()| intermediate.issue(&vek.certificate));
            found.push((Chain { root, intermediate, simulated, product: named }, result));
        }
    }
    found
}

fn intermediates<'a>(vek: &Vek<'_>, given: &Given<'a>) -> impl Iterator<Item = Certificate<'a>> {
    let parsed = given.endorsements.certificates().filter_map(|der| Certificate::parse(der).ok());
    parsed.filter(|certificate| certificate.subject == vek.certificate.issuer).take(MAX_INTERMEDIATES)
}

/// AMD's root of the product, and every simulated root that was named and is among the endorsements.
fn roots<'a>(
    named: Option<(Product, KeyKind)>,
    given: &Given<'a>,
) -> impl Iterator<Item = (Certificate<'a>, bool)> {
    let pinned = named.map(|(product, _)| Anchor { der: product.pinned().root, simulated: false });
    let anchors = given.anchors;
    let simulated = given.endorsements.certificates().filter_map(move |der| anchors.simulated_root(der));
    pinned
        .into_iter()
        .chain(simulated)
        .filter_map(|anchor| Some((Certificate::parse(anchor.der).ok()?, anchor.simulated)))
}

fn unknown_root(vek: &Vek<'_>) -> Finding {
    finding(
        RefusalKind::Signature,
        "a chain to AMD's root key of the product, or to a simulated one that was named",
        format!("a {} issued by {:?}", vek.kind.name(), vek.certificate.issuer_common_name()),
        "The evidence comes from a simulated platform whose chain was not named or not given, or from a forged one",
        "On a development network, name its root and bring its chain; elsewhere do not use this host",
    )
}

/// All three certificates are in date (RFC 5280, 4.1.2.5).
pub(crate) fn validity(vek: &Vek<'_>, chain: &Chain<'_>, now: UnixTime, list: &mut Checklist) {
    let all = [&vek.certificate, &chain.intermediate, &chain.root];
    let first_out = all.into_iter().find(|certificate| !certificate.in_date(now)).unwrap_or(all[0]);
    let (from, to) = first_out.validity;
    list.require(first_out.in_date(now), "snp.validity", "every certificate is in date", || {
        finding(
            RefusalKind::Unavailable,
            format!("certificates in date at {now}"),
            format!("{} valid from {from} to {to}", first_out.common_name()),
            "A certificate is out of date or not valid yet, or the clock is wrong",
            "Check the clock; fetch a new certificate from AMD's key service, or from the cloud for a VLEK",
        )
    });
}

/// Revocation lists, where they are given: by the ARK over intermediates, by an intermediate over VEKs (AMD 57230, chapter 4).
/// Lists of other issuers are not about this chain. Returns when the first of those that count must be renewed.
pub(crate) fn revocation(
    vek: &Vek<'_>,
    chain: &Chain<'_>,
    given: &Given<'_>,
    list: &mut Checklist,
) -> UnixTime {
    let mut good_until = UnixTime(u64::MAX);
    let mut seen = Vec::new();
    for (issuer, subject) in [(&chain.root, &chain.intermediate), (&chain.intermediate, &vek.certificate)] {
        match newest(issuer, subject, given) {
            Ok(None) => {}
            Ok(Some(next_update)) => {
                good_until = good_until.min(next_update);
                seen.push(format!("{}: until {next_update}", issuer.common_name()));
            }
            Err(finding) => {
                list.fail("snp.crl", *finding);
                return good_until;
            }
        }
    }
    if seen.is_empty() {
        list.skip("snp.crl", "no revocation list of this product is shown");
    } else {
        let expected = "every list given is signed, and one of its issuer's is in date; nothing revoked";
        list.pass("snp.crl", expected, seen.join("; "), "nothing is revoked");
    }
    good_until
}

/// The latest `nextUpdate` of the issuer's lists, all of which must be signed by it and none of which may name the subject.
fn newest(
    issuer: &Certificate<'_>,
    subject: &Certificate<'_>,
    given: &Given<'_>,
) -> Result<Option<UnixTime>, Box<Finding>> {
    let expected = || {
        format!(
            "a list by {}, signed and in date at {}, that does not name {}",
            issuer.common_name(),
            given.now,
            subject.common_name()
        )
    };
    let fail = |kind, got: String, likely| Err(Box::new(finding(kind, expected(), got, likely, REFETCH)));
    let (mut newest, mut out_of_date) = (None::<UnixTime>, None);
    for der in given.endorsements.crls() {
        let Ok(crl) = Crl::parse(der) else { continue }; // read once before, when the endorsements were sorted
        if crl.issuer != issuer.subject {
            continue;
        }
        if let Err(reason) = crl.issued_by(issuer) {
            return fail(RefusalKind::Signature, reason.to_string(), "The list is forged or was changed");
        }
        if crl.revokes(subject) {
            let likely = "AMD took this key back";
            return fail(
                RefusalKind::Rejected,
                format!("serial {} revoked", hex::encode(subject.serial)),
                likely,
            );
        }
        if crl.in_date(given.now) {
            newest = newest.max(Some(crl.next_update));
        } else {
            out_of_date = Some((crl.this_update, crl.next_update));
        }
    }
    match (newest, out_of_date) {
        (None, Some((from, to))) => fail(
            RefusalKind::Unavailable,
            format!("a list from {from} to {to}"),
            "The list is too old, or the clock is wrong",
        ),
        _ => Ok(newest),
    }
}
