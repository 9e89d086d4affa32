//! Azure's vTPM evidence: what lies below the paravisor, and what its virtual TPM says.

use super::certificates::Pool;
use super::{Inspection, Section, field, intel, snp};
use crate::Endorsement;
use crate::azure::{AzureEvidence, Hardware, HclReport, Kind, RuntimeClaims};

/// Shows the evidence, and says what it is.
pub(super) fn evidence(json: &[u8], kind: Kind, shown: &mut Inspection, pool: &mut Pool) -> String {
    let evidence = match AzureEvidence::parse(json, kind) {
        Ok(evidence) => evidence,
        Err(error) => {
            shown.cannot_read("Azure evidence", &error);
            return "Azure's evidence that cannot be read".into();
        }
    };
    shown.registers.push(Section {
        title: "Virtual TPM".into(),
        fields: (0..)
            .zip(&evidence.pcrs)
            .map(|(index, value): (usize, _)| {
                field(format!("PCR{index}"), hex::encode(value), PCR.get(index).copied().unwrap_or_default())
            })
            .collect(),
    });
    let hcl = HclReport::parse(&evidence.hcl_report);
    match &hcl {
        Ok(hcl) => paravisor(hcl, shown),
        Err(error) => shown.cannot_read("HCL report", error),
    }
    match evidence.hardware {
        Hardware::Tdx(quote) => format!("Azure's evidence over {}", intel::quote(&quote, shown, pool)),
        Hardware::Snp(certificates) => {
            for item in &certificates {
                if let Endorsement::Certificate(der) = item {
                    pool.add(der, "evidence");
                }
            }
            let below = hcl.map_or("a report".into(), |hcl| snp::report(hcl.hardware, shown));
            format!("Azure's evidence over {below}")
        }
    }
}

/// What PCRs of a Linux guest on Azure hold (TCG PC Client PFP 1.06, 3.3.4; Linux TPM PCR registry).
const PCR: [&str; 16] = [
    "firmware",
    "firmware's configuration",
    "drivers of devices",
    "their configuration",
    "boot loader",
    "partition table, boot loader's configuration",
    "host's own",
    "Secure Boot",
    "boot loader's commands, kernel's command line",
    "what the boot loader read; initrd",
    "files, by IMA",
    "unified kernel image",
    "kernel's command line, by the stub",
    "system extensions",
    "shim's keys",
    "file systems and machine id",
];

fn paravisor(hcl: &HclReport<'_>, shown: &mut Inspection) {
    let claims = match RuntimeClaims::parse(hcl.runtime_data) {
        Ok(claims) => claims,
        Err(error) => return shown.cannot_read("runtime data", &error),
    };
    let known = |value: Option<bool>| value.map_or("not said", |yes| if yes { "yes" } else { "no" });
    let mut fields = vec![
        field("Secure Boot", known(claims.vm.secure_boot), "by the paravisor's word"),
        field("Console", known(claims.vm.console_enabled), "is there one?"),
        field("TPM state kept", known(claims.vm.tpm_persisted), "does it outlive the machine?"),
        field("Machine", claims.vm.vm_unique_id.unwrap_or_else(|| "not said".into()), "Azure's name of it"),
    ];
    if let Some(data) = claims.user_data {
        fields.push(field("User data", hex::encode(data), "what the guest had the hardware bind"));
    }
    shown.registers.push(Section { title: "Paravisor".into(), fields });
}
