//! AMD SEV-SNP: from an attestation report and AMD's certificates to what genuine hardware said.
//!
//! Everything is verified over the raw bytes. AMD's documents: 56860 (SEV-SNP Firmware ABI) and 57230 (VCEK and VLEK
//! certificates, key distribution service).
//!
//! One change of a genuine report is accepted: to the equally valid twin (r, n − s) of its signature, which has no meaning.

mod chain;
mod needs;
mod policy;
mod product;
mod report;
mod rules;
mod tcb;
mod vek;

pub(crate) use needs::missing;
pub use needs::{AmdNeeds, amd_needs};
pub use policy::{GuestPolicy, PlatformInfo};
pub(crate) use product::is_root;
pub use product::{KeyKind, Product};
pub use report::{REPORT, Report};
pub use tcb::{TcbLayout, TcbVersion};
pub(crate) use vek::is_vek;

use crate::check::{Checklist, Finding};
use crate::platform::{PlatformId, PlatformKind};
use crate::verifier::Given;
use crate::{Platform, RefusalKind, UnixTime};

/// All SNP checks, in the order in which they are shown.
pub(crate) const CHECKS: [&str; 16] = [
    "snp.format",
    "snp.vek",
    "snp.signature",
    "snp.root",
    "snp.chain",
    "snp.validity",
    "snp.crl",
    "snp.signing_key",
    "snp.product",
    "snp.chip",
    "snp.tcb",
    "snp.debug",
    "snp.policy",
    "snp.platform_info",
    "snp.vmpl",
    "snp.milan",
];

/// Makes all SNP checks. `simulated` is set as soon as the chain names a simulated root. What is returned counts only if no
/// check in `list` failed.
pub(crate) fn verify(
    bytes: &[u8],
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<(Report, Platform)> {
    let report = format(bytes, list)?;
    rules::of_report(&report, given, list);
    let vek = chain::find_vek(&report, given, list)?;
    rules::signature(bytes, &report, &vek, list);
    rules::chip(&report, &vek, list);
    rules::tcb(&report, &vek, list);
    rules::milan(&report, &vek, given, list);
    let chain = chain::build(&vek, given, list, simulated);
    rules::signing_key(&report, &vek, chain.as_ref(), list);
    let chain = chain?;
    chain::validity(&vek, &chain, given.now, list);
    let lists_good_until = chain::revocation(&vek, &chain, given, list);
    rules::product(&report, &vek, &chain, list);
    let certificates = [&vek.certificate, &chain.intermediate, &chain.root];
    let good_until = certificates.map(|certificate| certificate.validity.1).into_iter().min();
    let platform = Platform {
        kind: PlatformKind::Snp,
        simulated: chain.simulated,
        product: chain.product.map_or("", |(product, _)| product.name()),
        tcb_status: "UpToDate".to_owned(),
        advisories: Vec::new(),
        evaluation_number: None,
        ids: chip_ids(&report, &vek),
        good_until: good_until.map_or(UnixTime(0), |until| until.min(lists_good_until)),
    };
    Some((report, platform))
}

/// By the VCEK; with a VLEK by the report, if the host does not mask it.
fn chip_ids(report: &Report, vek: &vek::Vek<'_>) -> Vec<PlatformId> {
    let id = match vek.kind {
        KeyKind::Vcek => vek.hardware_id,
        KeyKind::Vlek if report.chip_id == [0; 64] => return Vec::new(),
        KeyKind::Vlek => &report.chip_id[..vek.product.chip_id_length()],
    };
    vec![PlatformId::chip(id)]
}

/// The report's form. One whose reserved bytes are wrong is refused, but judged further, so that the list shows what else
/// is.
fn format(bytes: &[u8], list: &mut Checklist) -> Option<Report> {
    let expected = "1184 bytes, version 2, 3 or 5, every reserved byte zero";
    let finding = |got: String| Finding {
        kind: RefusalKind::Malformed,
        expected: expected.into(),
        got,
        likely: "The report was cut or changed on the way, or comes from firmware that is not known".into(),
        remedy: "Fetch the evidence again; use a version that knows this firmware".into(),
    };
    match Report::read(bytes) {
        Ok((report, None)) => {
            let got = format!("version {}, {} bytes", report.version, bytes.len());
            list.pass("snp.format", expected, got, "every byte is accounted for");
            Some(report)
        }
        Ok((report, Some(fault))) => {
            list.fail("snp.format", finding(fault.to_string()));
            Some(report)
        }
        Err(error) => {
            list.fail("snp.format", finding(error.to_string()));
            None
        }
    }
}
