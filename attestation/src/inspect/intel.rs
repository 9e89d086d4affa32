//! TDX and SGX quotes, and Intel's collateral.

use serde_json::Value;

use super::certificates::Pool;
use super::{Field, Inspection, Section, compared, field};
use crate::collateral::Collateral;
use crate::pem;
use crate::tdx::{Body, EnclaveReport, Quote, Report};
use crate::x509::Crl;

/// Shows a quote, and says what it is.
pub(super) fn quote(bytes: &[u8], shown: &mut Inspection, pool: &mut Pool) -> String {
    let quote = match Quote::parse(bytes) {
        Ok(quote) => quote,
        Err(error) => {
            shown.cannot_read("quote", &error);
            return "an Intel quote that cannot be read".into();
        }
    };
    let (kind, section) = match &quote.report {
        Report::Td(body) => ("TDX", td_report(body)),
        Report::Enclave(report) => ("SGX", enclave_report(report)),
    };
    shown.registers.push(section);
    shown.registers.push(quoting_enclave(bytes, &quote));
    match quote.pck_chain() {
        Ok(chain) => chain.iter().for_each(|der| pool.add(der, "quote")),
        Err(error) => shown.cannot_read("PCK chain", &error),
    }
    format!("a {kind} quote, version {}", quote.version)
}

/// The registers first: they are what people look for.
pub(super) fn td_report(body: &Body) -> Section {
    let rtmr = [
        ("RTMR0", "firmware and its configuration", "policy.rtmr0"),
        ("RTMR1", "kernel, or the command line", "policy.rtmr1"),
        ("RTMR2", "command line and initrd", "policy.rtmr2"),
        ("RTMR3", "configuration and weights, or what was loaded later", "policy.rtmr3"),
    ];
    let mut fields = vec![compared("MRTD", &body.mrtd, "the initial image", "policy.mrtd")];
    fields.extend(
        rtmr.iter()
            .zip(&body.rtmr)
            .map(|((name, meaning, check), value)| compared(name, value, meaning, check)),
    );
    const LAUNCH: &str = "set by the host at launch";
    fields.extend([
        compared("MRCONFIGID", &body.mrconfigid, LAUNCH, "policy.mrconfigid"),
        compared("MROWNER", &body.mrowner, LAUNCH, "policy.mrowner"),
        compared("MROWNERCONFIG", &body.mrownerconfig, LAUNCH, "policy.mrownerconfig"),
        field("REPORTDATA", hex::encode(body.report_data), "what the guest bound"),
        compared("MRSEAM", &body.mr_seam, "measurement of the TDX module", "policy.mr_seam"),
        field("MRSIGNERSEAM", hex::encode(body.mr_signer_seam), "who signed the TDX module; zero is Intel"),
        compared(
            "TEE_TCB_SVN",
            &body.tee_tcb_svn,
            "security versions of the TDX module",
            "policy.tee_tcb_svn",
        ),
        Field {
            check: Some("policy.attributes"),
            ..field("TDATTRIBUTES", format!("{:#018x}", body.attributes), "what the host may do with the TD")
        },
        Field {
            check: Some("policy.xfam"),
            ..field("XFAM", format!("{:#x}", body.xfam), "processor features that the TD may use")
        },
    ]);
    if let Some(svn) = body.tee_tcb_svn2 {
        fields.push(field("TEE_TCB_SVN_2", hex::encode(svn), "the same as they are now"));
    }
    Section { title: "TD report".into(), fields }
}

fn enclave_report(report: &EnclaveReport) -> Section {
    let fields = vec![
        field("MRENCLAVE", hex::encode(report.mr_enclave), "measurement of the enclave"),
        field("MRSIGNER", hex::encode(report.mr_signer), "who signed it"),
        field("ISVPRODID", report.isv_prod_id.to_string(), "which of the signer's products"),
        field("ISVSVN", report.isv_svn.to_string(), "its security version"),
        field("REPORTDATA", hex::encode(report.report_data), "what the enclave bound"),
        field("ATTRIBUTES", hex::encode(report.attributes), "flags and processor features"),
        field("CPUSVN", hex::encode(report.cpu_svn), "security versions of the processor"),
    ];
    Section { title: "Enclave report".into(), fields }
}

fn quoting_enclave(bytes: &[u8], quote: &Quote<'_>) -> Section {
    let mut fields = vec![
        field("Vendor", hex::encode(quote.vendor), "who wrote the quoting enclave"),
        field("Attestation key", hex::encode(quote.attestation_key), "ECDSA P-256, signs the quote"),
    ];
    if let Ok(needs) = crate::intel_needs(bytes) {
        fields.push(field("FMSPC", hex::encode(needs.fmspc), "family of the platform"));
    }
    Section { title: "Quoting enclave".into(), fields }
}

/// Shows collateral: its certificates, and the dates of what Intel signed.
pub(super) fn collateral(json: &[u8], shown: &mut Inspection, pool: &mut Pool) {
    let collateral = match Collateral::parse(json, false) {
        Ok(collateral) => collateral,
        Err(error) => return shown.cannot_read("collateral", &error),
    };
    let chains = [
        Some(&collateral.tcb_info_issuer_chain),
        Some(&collateral.qe_identity_issuer_chain),
        Some(&collateral.pck_crl_issuer_chain),
        collateral.pck_certificate_chain.as_ref(),
    ];
    for chain in chains.into_iter().flatten() {
        match pem::blocks(chain.as_bytes()) {
            Ok(chain) => chain.iter().for_each(|der| pool.add(der, "collateral")),
            Err(error) => shown.cannot_read("collateral", &error),
        }
    }
    shown.documents.extend(document("TCB info", &collateral.tcb_info.text));
    shown.documents.extend(document("QE identity", &collateral.qe_identity.text));
    for (title, der) in [("Root CA CRL", &collateral.root_ca_crl), ("PCK CRL", &collateral.pck_crl)] {
        if !der.is_empty() {
            crl(title, der, shown);
        }
    }
}

/// The members of a document that say what it is about and how long.
fn document(title: &str, text: &str) -> Option<Section> {
    const MEMBERS: [(&str, &str); 7] = [
        ("id", "what it is about"),
        ("version", "of its form"),
        ("fmspc", "family of the platform"),
        ("pceId", "its provisioning enclave"),
        ("issueDate", "not before"),
        ("nextUpdate", "not after"),
        ("tcbEvaluationDataNumber", "rises with every change of the requirements"),
    ];
    let value: Value = serde_json::from_str(text).ok()?;
    let shown = |(name, meaning): &(&str, &'static str)| {
        let text = match value.get(*name)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        Some(field(*name, text, meaning))
    };
    Some(Section { title: title.into(), fields: MEMBERS.iter().filter_map(shown).collect() })
}

/// Shows whose revocation list it is and for which time.
pub(super) fn crl(title: &str, der: &[u8], shown: &mut Inspection) {
    match Crl::parse(der) {
        Ok(crl) => shown.documents.push(Section {
            title: title.into(),
            fields: vec![
                field("Issuer", super::certificates::name(crl.issuer), ""),
                field("thisUpdate", crl.this_update.to_string(), "not before"),
                field("nextUpdate", crl.next_update.to_string(), "not after"),
            ],
        }),
        Err(error) => shown.cannot_read(title, &error),
    }
}
