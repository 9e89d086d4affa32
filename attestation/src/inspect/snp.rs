//! SEV-SNP reports.

use super::{Field, Inspection, Section, compared, field};
use crate::snp::Report;

/// Shows a report, and says what it is.
pub(super) fn report(bytes: &[u8], shown: &mut Inspection) -> String {
    match Report::parse(bytes) {
        Ok(report) => {
            shown.registers.push(section(&report));
            format!("an SEV-SNP report, version {}", report.version)
        }
        Err(error) => {
            shown.cannot_read("report", &error);
            "an SEV-SNP report that cannot be read".into()
        }
    }
}

fn section(report: &Report) -> Section {
    const ID_BLOCK: &str = "by the launcher's ID block";
    let mut fields = vec![
        compared(
            "MEASUREMENT",
            &report.measurement,
            "firmware, kernel, initrd and command line",
            "policy.measurement",
        ),
        compared("HOST_DATA", &report.host_data, "set by the host at launch", "policy.host_data"),
        field("REPORT_DATA", hex::encode(report.report_data), "what the guest bound"),
        compared("FAMILY_ID", &report.family_id, ID_BLOCK, "policy.family_id"),
        compared("IMAGE_ID", &report.image_id, ID_BLOCK, "policy.image_id"),
        compared("ID_KEY_DIGEST", &report.id_key_digest, "who signed the ID block", "policy.id_key"),
        compared(
            "AUTHOR_KEY_DIGEST",
            &report.author_key_digest,
            "who signed the ID key",
            "policy.author_key",
        ),
        Field {
            check: Some("policy.guest_svn"),
            ..field("GUEST_SVN", report.guest_svn.to_string(), "the guest's own security version")
        },
        field("POLICY", format!("{:#x}", report.policy.0), "what the host may do with the guest"),
        field("PLATFORM_INFO", format!("{:#x}", report.platform_info.0), "how the platform is set up"),
        field("VMPL", report.vmpl.to_string(), "privilege level that asked; 0 is the highest"),
        field("REPORTED_TCB", report.reported_tcb.to_string(), "for which the signing key was derived"),
        field("CURRENT_TCB", report.current_tcb.to_string(), "what runs now"),
        field("COMMITTED_TCB", report.committed_tcb.to_string(), "below which it cannot be taken back"),
        field("LAUNCH_TCB", report.launch_tcb.to_string(), "at which the guest was launched"),
        field("CHIP_ID", hex::encode(report.chip_id), "names this very chip"),
        field("REPORT_ID", hex::encode(report.report_id), "names this guest until it ends"),
    ];
    if let Some([family, model, stepping]) = report.cpuid {
        let product = report.product().map_or("an unknown product", crate::snp::Product::name);
        let value = format!("family {family:#x}, model {model:#x}, stepping {stepping:#x}: {product}");
        fields.push(field("CPUID", value, "the processor"));
    }
    Section { title: "Attestation report".into(), fields }
}
