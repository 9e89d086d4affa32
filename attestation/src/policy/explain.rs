//! A policy in words: what it accepts, what it leaves free, and what holds whatever it says.

use super::coverage::{Field, Judge, SNP_REPORT, TD_REPORT};
use super::field::{Names, Switch};
use super::snp::{SnpRules, TcbFloor};
use super::{AzureReference, GpuRules, ImageReference, Policy, Source, TdxRules};

/// One heading and what stands under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// What it is about.
    pub heading: String,
    /// Sentences and `name: value` lines.
    pub lines: Vec<String>,
}

fn paragraph(heading: impl Into<String>, lines: Vec<String>) -> Paragraph {
    Paragraph { heading: heading.into(), lines }
}

impl Policy {
    /// What the policy accepts, in words, source by source.
    pub fn explain(&self) -> Vec<Paragraph> {
        let mut out = self.explain_own();
        for source in &self.also {
            match source {
                Source::Policy(policy) => out.extend(policy.explain()),
                Source::Release(release) => {
                    let heading = format!("Release {:?}: of its images only", release.name);
                    out.push(paragraph(
                        heading,
                        release.images.iter().map(|image| image.name.clone()).collect(),
                    ));
                }
            }
        }
        if !self.also.is_empty() {
            let all =
                "Every source above must accept a worker; of several limits the strictest counts.".to_owned();
            out.push(paragraph("Together", vec![all]));
        }
        out
    }

    fn explain_own(&self) -> Vec<Paragraph> {
        let mut out = vec![paragraph(format!("The {}", self.source), self.limits())];
        out.extend(self.images.iter().map(image));
        if self.images.is_empty() {
            out.push(paragraph("Images", vec!["None: nothing is accepted.".to_owned()]));
        }
        out.extend(self.tdx.as_ref().map(|rules| paragraph("TDX machines", tdx(rules))));
        out.extend(self.snp.as_ref().map(|rules| paragraph("SEV-SNP machines", snp(rules))));
        out.push(paragraph("GPUs", gpus(self.gpu.as_ref())));
        out.push(paragraph("Machines by name", self.machines()));
        out.push(paragraph("Whatever a policy says", hard()));
        out
    }

    fn limits(&self) -> Vec<String> {
        let models: Vec<String> = self.models.iter().map(hex::encode).collect();
        let exceptions = match self.exceptions.as_slice() {
            [] => "none: TCB up to date, all checks".to_owned(),
            names => names.join(", "),
        };
        vec![
            format!("Network: {}", self.network),
            format!("Evidence is at most {} s old, by a block of its chain.", self.max_age_seconds),
            format!(
                "Models: {}",
                if models.is_empty() { "none: nothing is accepted".into() } else { models.join(", ") }
            ),
            format!("Exceptions: {exceptions}"),
        ]
    }

    fn machines(&self) -> Vec<String> {
        let only = match &self.platforms.only {
            None => "Any machine, but for those barred.".to_owned(),
            Some(ids) if ids.is_empty() => "None: the list of machines is empty.".to_owned(),
            Some(ids) => {
                format!("Only these: {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let barred = self.platforms.bar.iter().map(|id| format!("Barred: {id}"));
        std::iter::once(only).chain(barred).collect()
    }
}

fn image(image: &ImageReference) -> Paragraph {
    let mut lines = vec![match &image.configuration {
        Some(digest) => format!("Configuration: {}", hex::encode(digest)),
        None => "Configuration: by its register alone".to_owned(),
    }];
    if let Some(reference) = &image.tdx {
        lines.extend(reference.named().map(|(name, pin)| format!("TDX {name}: {pin}")));
    }
    if let Some(reference) = &image.snp {
        lines.extend(reference.named().into_iter().map(|(name, value)| format!("SEV-SNP {name}: {value}")));
    }
    if let Some(azure) = &image.azure {
        lines.extend(paravisor(azure));
    }
    paragraph(format!("Image {:?}", image.name), lines)
}

fn paravisor(azure: &AzureReference) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(reference) = &azure.tdx {
        lines.extend(reference.named().map(|(name, pin)| format!("Azure TDX {name}: {pin}")));
    }
    if let Some(reference) = &azure.snp {
        lines.extend(
            reference.named().into_iter().map(|(name, value)| format!("Azure SEV-SNP {name}: {value}")),
        );
    }
    lines
        .extend((0..).zip(azure.pcrs.iter()).map(|(index, pin): (u8, _)| format!("Azure PCR{index}: {pin}")));
    lines
}

fn tdx(rules: &TdxRules) -> Vec<String> {
    vec![
        format!("TDX module (MRSEAM): {}", rules.mr_seam),
        format!("Its security versions: each byte at least that of {}", hex::encode(rules.tee_tcb_svn)),
        format!("Attributes beyond SEPT_VE_DISABLE: {}", rules.attributes),
        format!("Processor features (XFAM): {}", rules.xfam),
    ]
}

fn snp(rules: &SnpRules) -> Vec<String> {
    let floor = |name: &str, floor: Option<TcbFloor>| match floor {
        None => format!("{name}: not accepted"),
        Some(TcbFloor { fmc, boot_loader, tee, snp, microcode }) => {
            let fmc = fmc.map(|fmc| format!("FMC {fmc}, ")).unwrap_or_default();
            format!(
                "{name}: {fmc}boot loader {boot_loader}, TEE {tee}, SNP {snp}, microcode {microcode}, or above"
            )
        }
    };
    let (policy, info) = (&rules.guest_policy, &rules.platform_info);
    let switches = |what: &str, rows: &[(&str, Switch)]| {
        let rows: Vec<String> = rows.iter().map(|(name, switch)| format!("{name} {switch}")).collect();
        format!("{what}: {}", rows.join(", "))
    };
    vec![
        floor("Milan", rules.tcb.milan),
        floor("Genoa", rules.tcb.genoa),
        floor("Turin", rules.tcb.turin),
        format!("Firmware, current and committed: {}", rules.firmware),
        format!("Mitigations that must be on: {:#x}", rules.mitigations),
        format!("Lowest ABI that the guest insists on: {}", policy.minimum_abi),
        switches(
            "Guest policy",
            &[
                ("SMT", policy.smt),
                ("single socket", policy.single_socket),
                ("AES-256-XTS", policy.aes_256_xts),
                ("RAPL off", policy.rapl_off),
                ("ciphertext hiding", policy.ciphertext_hiding),
                ("page swap off", policy.page_swap_off),
            ],
        ),
        switches(
            "Platform",
            &[
                ("SMT", info.smt),
                ("TSME", info.tsme),
                ("ECC", info.ecc),
                ("RAPL off", info.rapl_off),
                ("ciphertext hiding", info.ciphertext_hiding),
                ("TIO", info.tio),
            ],
        ),
    ]
}

fn gpus(rules: Option<&GpuRules>) -> Vec<String> {
    let Some(rules) = rules else { return vec!["None: a guest that shows a GPU is refused.".to_owned()] };
    let names = |what: &str, names: &Names| format!("{what}: {names}");
    vec![
        format!("Exactly {} GPUs and {} switches", rules.gpus, rules.switches),
        names("Architectures", &rules.architectures),
        names("Drivers", &rules.drivers),
        names("VBIOS", &rules.vbios),
        format!("Measurements compared with NVIDIA's RIMs: {}", rules.rims),
        format!("Revocation checked by OCSP: {}", rules.revocation),
        format!("Protected PCIe: {}", rules.protected_pcie),
    ]
}

/// What no policy can relax, and what is free because it is only a name.
fn hard() -> Vec<String> {
    let list = |fields: &[Field], judges: &[Judge]| -> String {
        let chosen = fields.iter().filter(|field| judges.contains(&field.judge) && !field.bytes.is_empty());
        let mut names: Vec<String> = chosen
            .map(|field| match field.check {
                "" => field.name.to_owned(),
                check => format!("{} ({check})", field.name),
            })
            .collect();
        names.dedup();
        names.join(", ")
    };
    let judged = [Judge::Hard, Judge::Vendor, Judge::Bound];
    let words = judged.map(Judge::words).join("; ");
    vec![
        "Debug is refused, and so is a revoked TCB; no exception has their name.".to_owned(),
        format!("TD report, not left to the policy ({words}): {}.", list(&TD_REPORT, &judged)),
        format!("TD report, free because they are names: {}.", list(&TD_REPORT, &[Judge::Name])),
        format!("SNP report, not left to the policy: {}.", list(&SNP_REPORT, &judged)),
        format!("SNP report, free because they are names: {}.", list(&SNP_REPORT, &[Judge::Name])),
    ]
}
