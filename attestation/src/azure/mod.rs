//! Azure's confidential machines: Microsoft's paravisor runs at the guest's highest level, holds a virtual TPM, and the guest
//! speaks through that.
//!
//! ```text
//! hardware report ── report data = SHA-256(runtime data) ──▶ attestation key ── signs ──▶ TPM quote: challenge, PCRs
//! ```
//!
//! So the hardware's measurement is the paravisor's, and what the guest booted is in the registers (PCRs) alone. Whoever
//! accepts that names the profile `profile:azure`.

mod evidence;
mod hcl;
mod td_report;
mod tpm;

pub use evidence::canonical_azure;
pub(crate) use evidence::{AzureEvidence, Hardware, Kind, MAX_JSON, kind};
pub use hcl::VmConfiguration;
pub(crate) use hcl::{HclReport, RuntimeClaims};

use crate::check::{Checklist, Finding};
use crate::crypto::{self, Scheme, sha256};
use crate::genuine::Claims;
use crate::platform::PlatformKind;
use crate::verifier::Given;
use crate::{Endorsement, Endorsements, Platform, RefusalKind, snp, tdx};
use tpm::{Attest, PCRS};

const FORM: [&str; 2] = ["azure.format", "azure.hcl"];
const BINDING: [&str; 6] = [
    "azure.runtime_data",
    "azure.tpm_signature",
    "azure.tpm_quote",
    "azure.nonce",
    "azure.pcrs",
    "azure.profile",
];

/// All checks of SNP behind the paravisor, in the order in which they are shown.
pub(crate) const SNP_CHECKS: [&str; FORM.len() + snp::CHECKS.len() + BINDING.len()] =
    joined(&[&FORM, &snp::CHECKS, &BINDING]);
/// The same for TDX.
pub(crate) const TDX_CHECKS: [&str; FORM.len() + tdx::CHECKS.len() + 1 + BINDING.len()] =
    joined(&[&FORM, &tdx::CHECKS, &["azure.td_report"], &BINDING]);

const fn joined<const N: usize>(lists: &[&[&'static str]]) -> [&'static str; N] {
    let (mut all, mut at, mut list) = ([""; N], 0, 0);
    while list < lists.len() {
        let mut item = 0;
        while item < lists[list].len() {
            all[at] = lists[list][item];
            (at, item) = (at + 1, item + 1);
        }
        list += 1;
    }
    assert!(at == N, "every place is filled");
    all
}

/// What the virtual TPM and the paravisor say about the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vtpm {
    /// What the guest bound into the TPM's quote, if it is 64 bytes: the digest of a statement, or what the asker gave.
    pub report_data: Option<[u8; 64]>,
    /// SHA-256 registers 0 to 23.
    pub pcrs: [[u8; 32]; PCRS],
    /// How the machine is set up, by the paravisor's word.
    pub vm: VmConfiguration,
    /// What the guest had the hardware bind beside the attestation key; newer paravisors only.
    pub user_data: Option<[u8; 64]>,
}

/// Makes all checks. `bundled`: the evidence comes with a statement, so it has one form only and answers no other challenge.
/// `simulated` is set as soon as the hardware's chain names a simulated root. What is returned counts only if no check failed.
pub(crate) fn verify(
    json: &[u8],
    kind: Kind,
    bundled: bool,
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<(Claims, Platform)> {
    profile(given, list);
    let evidence = format(json, kind, bundled, list)?;
    let report = report(&evidence, kind, list)?;
    let hardware = hardware(&evidence, &report, given, list, simulated)?;
    let claims = runtime_data(&report, hardware.report_data(), list);
    let quote = tpm_quote(&evidence, list);
    let (claims, quote) = (claims?, quote?);
    tpm_signature(&evidence, &claims, list);
    nonce(&quote, bundled, given, list);
    pcrs(&quote, &evidence, list);
    let vtpm = Box::new(Vtpm {
        report_data: quote.extra_data.try_into().ok(),
        pcrs: evidence.pcrs,
        vm: claims.vm,
        user_data: claims.user_data,
    });
    Some(match hardware {
        Below::Snp(report, platform) => {
            (Claims::AzureSnp(report, vtpm), Platform { kind: PlatformKind::AzureSnp, ..platform })
        }
        Below::Tdx(body, platform) => {
            (Claims::AzureTdx(body, vtpm), Platform { kind: PlatformKind::AzureTdx, ..platform })
        }
    })
}

/// What runs below the paravisor, once it was judged.
enum Below {
    Snp(snp::Report, Platform),
    Tdx(tdx::Body, Platform),
}

impl Below {
    fn report_data(&self) -> &[u8; 64] {
        match self {
            Self::Snp(report, _) => &report.report_data,
            Self::Tdx(body, _) => &body.report_data,
        }
    }
}

/// What runs below the paravisor, as the evidence has it: nothing is verified.
pub(crate) enum BelowUnverified {
    /// The report, and the certificates beside it.
    Snp(Vec<u8>, Vec<Endorsement>),
    /// The quote.
    Tdx(Vec<u8>),
}

/// The hardware's part of evidence that can be read.
pub(crate) fn hardware_unverified(json: &[u8], kind: Kind) -> Option<BelowUnverified> {
    let evidence = AzureEvidence::parse(json, kind).ok()?;
    Some(match evidence.hardware {
        Hardware::Tdx(quote) => BelowUnverified::Tdx(quote),
        Hardware::Snp(certificates) => {
            let report = HclReport::parse(&evidence.hcl_report).ok()?.hardware.to_vec();
            BelowUnverified::Snp(report, certificates)
        }
    })
}

fn finding(kind: RefusalKind, expected: &str, got: impl Into<String>, likely: &str, remedy: &str) -> Finding {
    Finding { kind, expected: expected.into(), got: got.into(), likely: likely.into(), remedy: remedy.into() }
}

const REFETCH: &str = "Fetch the evidence again; if it repeats, do not use this host";

fn profile(given: &Given<'_>, list: &mut Checklist) {
    let named = given.exceptions.in_force("profile:azure", given.now);
    list.require(named, "azure.profile", "Azure's paravisor is trusted by name", || {
        finding(
            RefusalKind::Rejected,
            "profile:azure named",
            if named { "named" } else { "not named" },
            "Microsoft's paravisor runs below the guest and speaks for it, so it must be trusted like hardware",
            "Whoever trusts it allows profile:azure",
        )
    });
}

fn format(json: &[u8], kind: Kind, bundled: bool, list: &mut Checklist) -> Option<AzureEvidence> {
    let expected = "JSON of version 1 or 2 or before it, no other field; in a bundle the one canonical form";
    let got = match AzureEvidence::parse(json, kind) {
        Ok(evidence) if bundled && evidence.encode() != json => "not the canonical form".to_owned(),
        Ok(evidence) => {
            list.pass("azure.format", expected, format!("{} bytes", json.len()), "all parts are there");
            return Some(evidence);
        }
        Err(error) => error.to_string(),
    };
    let likely = "The evidence was cut or changed on the way, or the attester is newer than this verifier";
    list.fail(
        "azure.format",
        finding(RefusalKind::Malformed, expected, got, likely, "Fetch the evidence again"),
    );
    None
}

fn report<'a>(evidence: &'a AzureEvidence, kind: Kind, list: &mut Checklist) -> Option<HclReport<'a>> {
    let expected = "an HCL report of version 1 or 2, of the kind of the evidence, every byte accounted for";
    let got = match HclReport::parse(&evidence.hcl_report) {
        Ok(report) if report.kind == kind => {
            let got = format!("{:?}, {} bytes of runtime data", report.kind, report.runtime_data.len());
            list.pass("azure.hcl", expected, got, "the paravisor's report is whole");
            return Some(report);
        }
        Ok(report) => format!("a report of {:?}", report.kind),
        Err(error) => error.to_string(),
    };
    let likely = "The report was cut or changed on the way, or the paravisor is newer than this verifier";
    list.fail(
        "azure.hcl",
        finding(RefusalKind::Malformed, expected, got, likely, "Fetch the evidence again"),
    );
    None
}

/// The hardware's own rules: all of SNP's or TDX's.
fn hardware(
    evidence: &AzureEvidence,
    report: &HclReport<'_>,
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<Below> {
    match &evidence.hardware {
        Hardware::Snp(certificates) => {
            let mut endorsements: Endorsements = given.endorsements.clone();
            certificates.iter().for_each(|certificate| endorsements.push(certificate.clone()));
            let given = Given { endorsements: &endorsements, ..*given };
            let (report, platform) = snp::verify(report.hardware, &given, list, simulated)?;
            Some(Below::Snp(report, platform))
        }
        Hardware::Tdx(quote) => {
            let verified = tdx::verify(quote, given, list, simulated);
            td_report(quote, report, list);
            verified.map(|(body, platform)| Below::Tdx(body, platform))
        }
    }
}

/// The TDREPORT is the one that was quoted. Azure's quotes are of version 4: the body stands behind a header of 48 bytes.
fn td_report(quote: &[u8], report: &HclReport<'_>, list: &mut Checklist) {
    let result = match quote {
        [4, 0, ..] => td_report::agrees(report.hardware, quote.get(48..).unwrap_or_default()),
        _ => Err("a quote of another version than 4"),
    };
    list.require(
        result.is_ok(),
        "azure.td_report",
        "the paravisor's report is the one that was quoted",
        || {
            finding(
                RefusalKind::Signature,
                "a TDREPORT with the very fields of the quote",
                result.err().unwrap_or("the same fields"),
                "Quote and paravisor's report are of two machines, or of two moments",
                REFETCH,
            )
        },
    );
}

/// The hardware signed SHA-256 of the runtime data, and nothing beside it; in it is the attestation key.
fn runtime_data(
    report: &HclReport<'_>,
    report_data: &[u8; 64],
    list: &mut Checklist,
) -> Option<RuntimeClaims> {
    let mut expected = [0; 64];
    expected[..32].copy_from_slice(&sha256(&[report.runtime_data]));
    let bound = expected == *report_data;
    list.require(bound, "azure.runtime_data", "the hardware vouches for the attestation key", || {
        finding(
            RefusalKind::Signature,
            &hex::encode(expected),
            hex::encode(report_data),
            "The attestation key is not this machine's",
            REFETCH,
        )
    });
    let parsed = RuntimeClaims::parse(report.runtime_data);
    if let (true, Err(error)) = (bound, &parsed) {
        let expected = "the paravisor's JSON with one RSA key HCLAkPub";
        let likely = "The paravisor is newer than this verifier";
        let remedy = "Use a version that knows it";
        list.fail(
            "azure.runtime_data",
            finding(RefusalKind::Malformed, expected, error.to_string(), likely, remedy),
        );
    }
    parsed.ok()
}

/// TPM_GENERATED_VALUE and TPM_ST_ATTEST_QUOTE (TPM 2.0 Library, part 2, TPMS_ATTEST).
fn tpm_quote<'a>(evidence: &'a AzureEvidence, list: &mut Checklist) -> Option<Attest<'a>> {
    let expected = "TPMS_ATTEST made by a TPM (0xff544347), of type quote (0x8018)";
    match Attest::parse(&evidence.message) {
        Ok(attest) => {
            list.require(
                attest.is_quote(),
                "azure.tpm_quote",
                "the TPM says what its registers hold",
                || {
                    let got = format!("{:#x}, type {:#x}", attest.magic, attest.kind);
                    let likely = "The key signed something else, which was passed off as a quote";
                    finding(RefusalKind::Rejected, expected, got, likely, REFETCH)
                },
            );
            Some(attest)
        }
        Err(error) => {
            let likely = "The quote was cut or changed on the way";
            list.fail(
                "azure.tpm_quote",
                finding(RefusalKind::Malformed, expected, error.to_string(), likely, REFETCH),
            );
            None
        }
    }
}

/// RSASSA-PKCS1-v1_5 with SHA-256 by the attestation key over TPMS_ATTEST (TPM 2.0 Library, part 3, TPM2_Quote).
fn tpm_signature(evidence: &AzureEvidence, claims: &RuntimeClaims, list: &mut Checklist) {
    let (key, message) = (&claims.attestation_key, &evidence.message);
    let holds = crypto::holds(Scheme::RsaPkcs1Sha256, key, message, &evidence.signature);
    list.require(holds, "azure.tpm_signature", "the TPM's quote is as it was signed", || {
        finding(
            RefusalKind::Signature,
            "an RSASSA signature with SHA-256 by the key HCLAkPub",
            if holds { "holds" } else { "does not hold" },
            "The quote was changed, or is another machine's",
            REFETCH,
        )
    });
}

fn nonce(quote: &Attest<'_>, bundled: bool, given: &Given<'_>, list: &mut Checklist) {
    match given.nonce {
        _ if bundled => {
            list.skip("azure.nonce", "the quote binds the bundle's statement: see binding.report_data")
        }
        None => list.skip("azure.nonce", "no challenge was given"),
        Some(nonce) => {
            let same = quote.extra_data == nonce;
            list.require(same, "azure.nonce", "the quote answers our challenge", || {
                finding(
                    RefusalKind::Rejected,
                    &hex::encode(nonce),
                    hex::encode(quote.extra_data),
                    "The quote answers somebody else's challenge, or is an old one",
                    "Ask for evidence with a challenge of your own again",
                )
            });
        }
    }
}

/// All 24 registers of the SHA-256 bank, and the digest over them (TPM 2.0 Library, part 2, TPMS_QUOTE_INFO).
fn pcrs(quote: &Attest<'_>, evidence: &AzureEvidence, list: &mut Checklist) {
    let (all, agree) = (quote.selects_all(), quote.agrees_with(&evidence.pcrs));
    list.require(all && agree, "azure.pcrs", "the registers shown are those that were quoted", || {
        finding(
            RefusalKind::Signature,
            "all 24 registers of the SHA-256 bank selected, their digest the quote's",
            match (all, agree) {
                (false, _) => "another selection",
                (true, false) => "another digest",
                (true, true) => "selected, and the digest agrees",
            },
            "Registers were changed or left out",
            REFETCH,
        )
    });
}
