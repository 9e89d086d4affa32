//! Rules about the report itself. No configuration relaxes them but the exceptions that are named in them.

use super::chain::Chain;
use super::policy::{GuestPolicy, PlatformInfo};
use super::product::{KeyKind, Product};
use super::report::Report;
use super::vek::Vek;
use crate::RefusalKind::{Rejected, Signature};
use crate::check::{Checklist, Finding};
use crate::verifier::Given;

fn rejected(expected: impl Into<String>, got: impl Into<String>, likely: &str, remedy: &str) -> Finding {
    Finding {
        kind: Rejected,
        expected: expected.into(),
        got: got.into(),
        likely: likely.into(),
        remedy: remedy.into(),
    }
}

/// Rules that need nothing but the report.
pub(crate) fn of_report(report: &Report, given: &Given<'_>, list: &mut Checklist) {
    debug(report.policy, list);
    policy(report.policy, list);
    platform_info(report.platform_info, given, list);
    vmpl(report.vmpl, given, list);
}

/// POLICY.DEBUG (AMD 56860, 4.3). Nothing allows it.
fn debug(policy: GuestPolicy, list: &mut Checklist) {
    list.require(!policy.debug(), "snp.debug", "the host cannot look into the guest", || {
        rejected(
            "DEBUG (bit 19 of the guest policy) clear",
            if policy.debug() { "set" } else { "clear" },
            "The host can read and change this guest's memory",
            "Never send it anything. Its operator must launch the guest without debug",
        )
    });
}

/// The other bits of POLICY that keep the host out (AMD 56860, 4.3). What is left, SMT and the like, is for the verifier's
/// policy.
fn policy(policy: GuestPolicy, list: &mut Checklist) {
    let broken: Vec<&str> = [
        (policy.must_be_one(), "bit 17 clear"),
        (!policy.migration_agent(), "MIGRATE_MA set"),
        (!policy.cxl(), "CXL_ALLOW set"),
        (policy.0 & GuestPolicy::RESERVED == 0, "reserved bits set"),
    ]
    .into_iter()
    .filter(|(holds, _)| !holds)
    .map(|(_, name)| name)
    .collect();
    list.require(broken.is_empty(), "snp.policy", "the guest's policy keeps the host out", || {
        let broken = if broken.is_empty() { "as expected".to_owned() } else { broken.join(", ") };
        rejected(
            "bit 17 set; MIGRATE_MA (18), CXL_ALLOW (21) and reserved bits clear",
            format!("{:#x}: {broken}", policy.0),
            "A migration agent can move the guest, its memory may lie on a device, or it uses features that are not known",
            "Its operator must launch the guest with the policy of the published image",
        )
    });
}

/// ALIAS_CHECK_COMPLETE (PLATFORM_INFO in AMD 56860, 7.3; AMD-SB-3015): without it, a memory module that lies about its size
/// may show the host what the guest writes.
fn platform_info(info: PlatformInfo, given: &Given<'_>, list: &mut Checklist) {
    let excused = given.exceptions.in_force("snp:no-alias-check", given.now);
    let known = info.0 & PlatformInfo::RESERVED == 0;
    let why = if info.alias_check_complete() {
        "memory has no second address for anything"
    } else {
        "tolerated by a named exception: nobody says that memory has no second addresses"
    };
    list.require((info.alias_check_complete() || excused) && known, "snp.platform_info", why, || {
        let alias = if info.alias_check_complete() { "set" } else { "clear" };
        let reserved = if known { "" } else { ", reserved bits set" };
        rejected(
            "ALIAS_CHECK_COMPLETE (bit 5) set, bits 8 and above clear",
            format!("{:#x}: ALIAS_CHECK_COMPLETE {alias}{reserved}", info.0),
            "The firmware is too old to check memory for aliases (BadRAM, CVE-2024-21944), found some, or says what is not known here",
            "Its operator must update the firmware; who accepts the risk names snp:no-alias-check",
        )
    });
}

/// VMPL (MSG_REPORT_REQ in AMD 56860, 7.3). At 0xffffffff the host asked, not the guest.
fn vmpl(vmpl: u32, given: &Given<'_>, list: &mut Checklist) {
    let named = ["snp:vmpl1", "snp:vmpl2", "snp:vmpl3"];
    let allowed = match vmpl {
        0 => true,
        1..=3 => given.exceptions.in_force(named[vmpl as usize - 1], given.now),
        _ => false,
    };
    let why = if vmpl == 0 { "the guest's highest level speaks" } else { "tolerated by a named exception" };
    list.require(allowed, "snp.vmpl", why, || {
        rejected(
            "VMPL 0, or one named as an exception in force",
            if vmpl == u32::MAX { "the host's own request".to_owned() } else { format!("VMPL {vmpl}") },
            "Software at a lower level of the guest asked for the report, or the host itself: what is above it is not ours",
            "Ask the guest's highest level; where a known service module runs there, name snp:vmpl1 to snp:vmpl3",
        )
    });
}

/// SIGNATURE: ECDSA P-384 with SHA-384 over the report's raw bytes up to it (AMD 56860, 7.3).
pub(crate) fn signature(bytes: &[u8], report: &Report, vek: &Vek<'_>, list: &mut Checklist) {
    let holds = report.signature_algorithm == 1
        && super::report::signed(bytes).is_some_and(|(message, signature)| {
            crate::crypto::holds(
                crate::crypto::Scheme::P384Fixed,
                vek.certificate.key.bytes(),
                message,
                &signature,
            )
        });
    list.require(holds, "snp.signature", "the report is as it was signed", || Finding {
        kind: Signature,
        expected: format!("a signature by the {} over bytes 0 to 0x2a0, SIGNATURE_ALGO 1", vek.kind.name()),
        got: match (holds, report.signature_algorithm) {
            (true, _) => "holds".into(),
            (false, 1) => "does not hold".into(),
            (false, other) => format!("SIGNATURE_ALGO {other}"),
        },
        likely: "The report was changed after it was signed, or the certificate is another chip's or TCB's"
            .into(),
        remedy: "Fetch the evidence and the certificate again; if it repeats, do not use this host".into(),
    });
}

/// SIGNING_KEY and MASK_CHIP_KEY (AMD 56860, 7.3), the certificate's kind, and the kind its issuer signs (AMD 57230).
pub(crate) fn signing_key(report: &Report, vek: &Vek<'_>, chain: Option<&Chain<'_>>, list: &mut Checklist) {
    let issuer_signs = chain.and_then(|chain| chain.product).map(|(_, kind)| kind);
    let named = report.signing_key();
    let agree = named == Some(vek.kind) && (chain.is_none() || issuer_signs == named);
    list.require(
        agree && !report.chip_key_masked(),
        "snp.signing_key",
        "the report names the key that signed it",
        || {
            let name = |kind: Option<KeyKind>| kind.map_or("none that is known", KeyKind::name);
            rejected(
                "one kind in report, certificate and issuer; MASK_CHIP_KEY clear",
                format!(
                    "SIGNING_KEY {} in the report, a {} certificate, an issuer of {}s, MASK_CHIP_KEY {}",
                    name(named),
                    vek.kind.name(),
                    name(issuer_signs),
                    if report.chip_key_masked() { "set" } else { "clear" },
                ),
                "The host does not let the firmware sign, or the certificate is of the other kind",
                "Bring the certificate of the key that the report names",
            )
        },
    );
}

/// The processor (CPUID fields, version 3 and later), the certificate's product and the chain's are one.
pub(crate) fn product(report: &Report, vek: &Vek<'_>, chain: &Chain<'_>, list: &mut Checklist) {
    let of_chain = chain.product.map(|(product, _)| product);
    let processor = report.cpuid.is_none() || report.product() == Some(vek.product);
    let layout = report.layout() == vek.product.layout();
    let agree = of_chain == Some(vek.product) && processor && layout;
    list.require(agree, "snp.product", "processor, certificate and root are of one product", || {
        let name = |product: Option<Product>| product.map_or("unknown", Product::name);
        let cpuid = match report.cpuid {
            Some([family, model, stepping]) => {
                format!(
                    "{} (family {family:#x}, model {model:#x}, stepping {stepping})",
                    name(report.product())
                )
            }
            None => "not named in version 2".to_owned(),
        };
        rejected(
            "one product in report, certificate and root",
            format!("processor {cpuid}, certificate {}, root {}", vek.product.name(), name(of_chain)),
            "The certificate is another product's, or the processor is newer than this verifier",
            "Bring the certificate of this chip; use a version that knows the processor",
        )
    });
}

/// CHIP_ID is the certificate's hardware id (AMD 57230, chapter 3; AMD 56860, 7.3). A VLEK is not bound to a chip.
pub(crate) fn chip(report: &Report, vek: &Vek<'_>, list: &mut Checklist) {
    if vek.kind == KeyKind::Vlek {
        let got = format!("a VLEK of {}", vek.cloud.escape_debug());
        list.pass(
            "snp.chip",
            "a chip id, or a cloud that AMD gave a VLEK",
            got,
            "the cloud vouches for the chip",
        );
        return;
    }
    let masked = report.chip_id == [0; 64];
    let rest_zero = report.chip_id.iter().skip(vek.hardware_id.len()).all(|byte| *byte == 0);
    let same = !masked && rest_zero && report.chip_id.starts_with(vek.hardware_id);
    list.require(same, "snp.chip", "the certificate is this chip's", || {
        rejected(
            hex::encode(vek.hardware_id),
            if masked { "zero: the host masks it".to_owned() } else { hex::encode(report.chip_id) },
            "The certificate is another chip's, or the host hides which chip this is",
            "Bring the certificate of this chip; its operator must clear MASK_CHIP_ID",
        )
    });
}

/// TCB: the certificate's is the report's REPORTED_TCB (AMD 57230, chapter 3), for which the key was derived, so that this much is
/// proven. CURRENT is at or above REPORTED and COMMITTED, as firmware keeps it (SNP_CONFIG, SNP_COMMIT in AMD 56860, 8). No
/// order holds for LAUNCH_TCB: the guest may come from a machine ahead of this one. Floors are the policy's.
pub(crate) fn tcb(report: &Report, vek: &Vek<'_>, list: &mut Checklist) {
    let current = &report.current_tcb;
    let broken: Vec<&str> = [
        (vek.tcb == report.reported_tcb, "certificate and REPORTED_TCB differ"),
        (current.at_least(&report.reported_tcb), "CURRENT_TCB is below REPORTED_TCB"),
        (current.at_least(&report.committed_tcb), "CURRENT_TCB is below COMMITTED_TCB"),
        (
            report.current_firmware >= report.committed_firmware,
            "the current firmware is below the committed one",
        ),
    ]
    .into_iter()
    .filter(|(holds, _)| !holds)
    .map(|(_, text)| text)
    .collect();
    list.require(broken.is_empty(), "snp.tcb", "the firmware's version is proven by the key", || {
        let broken = if broken.is_empty() { String::new() } else { format!("; {}", broken.join(", ")) };
        rejected(
            format!(
                "REPORTED_TCB of the certificate: {}; CURRENT at or above REPORTED and COMMITTED",
                vek.tcb
            ),
            format!(
                "reported {}; current {}; committed {}{broken}",
                report.reported_tcb, report.current_tcb, report.committed_tcb
            ),
            "The certificate is of another TCB, or the firmware was taken back",
            "Fetch the certificate for the reported TCB; if it repeats, do not use this host",
        )
    });
}

/// Milan's endorsement keys are held to be extractable by software (arXiv 2605.12990, May 2026).
pub(crate) fn milan(report: &Report, vek: &Vek<'_>, given: &Given<'_>, list: &mut Checklist) {
    let milan = [Some(vek.product), report.product()].contains(&Some(Product::Milan));
    let excused = given.exceptions.in_force("snp:milan", given.now);
    let why = if milan { "tolerated by a named exception" } else { "not one whose key may be extracted" };
    list.require(!milan || excused, "snp.milan", why, || {
        rejected(
            "a product other than Milan, or the exception snp:milan in force",
            vek.product.name(),
            "A paper claims that the seed of a Milan's VCEK can be extracted by software (arXiv 2605.12990): anybody who did can forge its reports",
            "Use a worker on Genoa or Turin; who accepts the risk names snp:milan",
        )
    });
}
